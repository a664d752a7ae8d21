#!/usr/bin/env python3
"""Lint, check types and run the tests, from a fresh checkout if need be.

Only Python 3.10 or newer is needed. It makes .venv in the repository and installs medseg with its development tools
there (once), then runs ruff check, ruff format --check, mypy and pytest, which uses a process per core, at most four.
The slow tests, which a plain pytest skips, are among them. All of them run, whatever the first say. The exit
status is pytest's; 1 where the tests pass but another check does not.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

from environment import main, prepare, say, stream

CHECKS = (("ruff", "check", "."), ("ruff", "format", "--check", "."), ("mypy",))


def run_tests(arguments: list[str]) -> int:
    """Checks, then pytest with its own closing line last."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="All other arguments go to pytest, for example: -k metrics -x (-n 0: without further processes)",
    )
    _, further = parser.parse_known_args(arguments)
    python = prepare("dev")
    if not any(argument.startswith(("-n", "--numprocesses", "--pdb")) for argument in further):
        further = [
            f"--numprocesses={min(4, os.cpu_count() or 1)}",
            "--dist=loadfile",
            "--no-loadscope-reorder",
            *further,
        ]
        os.environ.setdefault("OMP_NUM_THREADS", "1")  # per process
    if not any(argument.startswith("-m") for argument in further):
        further = ["-m", "slow or not slow", *further]
    failed = [" ".join(check) for check in CHECKS if not passes(python, check)]
    if failed:
        say(f"FAILED: {', '.join(failed)} (see above)")
    say(f"pytest {' '.join(further)}".rstrip())
    status = stream([str(python), "-m", "pytest", *further])
    return status or int(bool(failed))


def passes(python: Path, check: tuple[str, ...]) -> bool:
    """Run one check; its output is shown as it comes."""
    began = time.monotonic()
    say(" ".join(check))
    status = stream([str(python), "-m", *check])
    say(f"  {'failed' if status else 'passed'} in {time.monotonic() - began:.0f} s")
    return status == 0


if __name__ == "__main__":
    raise SystemExit(main(run_tests))
