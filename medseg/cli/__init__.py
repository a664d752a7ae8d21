"""The command line: ``medseg <command>``. Each command is a function of one settings value (``medseg.settings``) and a
row in ``COMMANDS``; its options, defaults and help are read from there.

Nothing heavy is imported before a command runs, so that ``--help`` answers at once.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import logging
import shlex
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medseg.cli.commands import COMMANDS
from medseg.cli.parser import CommandParser, overview
from medseg.cli.process import open_streams, stopped_by_sigterm
from medseg.cli.values import values
from medseg.errors import ConfigError, MedsegError
from medseg.faults import unwrapped
from medseg.lean import import_monai_lean, imports_uncollected

__all__ = ["COMMANDS", "main"]


def main(argv: Sequence[str] | None = None, command: str | None = None) -> int:
    """Run a command; returns its exit status.

    Args:
        argv: arguments, default ``sys.argv[1:]``.
        command: the command where a script already is one.
    """
    argv = [*(command.split() if command else ()), *(sys.argv[1:] if argv is None else argv)]
    open_streams()
    import_monai_lean()
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.raiseExceptions = False  # a log that cannot be written is no reason for a trace
    name = next((name for name in (" ".join(argv[:2]), *argv[:1]) if name in COMMANDS), None)
    if name is None:
        overview().parse_args(argv[:1])  # ends the process
        return 2
    argv, debug = argv[len(name.split()) :], "--debug" in argv
    logging.getLogger("medseg").setLevel(logging.DEBUG if debug else logging.INFO)
    try:
        with stopped_by_sigterm(), unwrapped():
            _run(name, argv)
            sys.stdout.flush()
        return 0
    except MedsegError as error:
        if debug:
            traceback.print_exc()
        print(f"error: {error}", file=sys.stderr)
        return error.status
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except SystemExit as error:
        if error.code in (0, 2):  # of argparse
            raise
        if error.code == 143:
            print("stopped by SIGTERM; files that are there are whole", file=sys.stderr)
        return error.code if isinstance(error.code, int) else 1
    except Exception as error:  # ours: one sentence for the user, the trace with --debug
        if debug:
            traceback.print_exc()
        print(
            f"internal error: {type(error).__name__}: {error}. Run again with --debug for the trace.", file=sys.stderr
        )
        return 1


def _run(name: str, argv: list[str]) -> None:
    command, parser = COMMANDS[name], CommandParser(name)
    given = dict(command.given)
    if command.parts is None:
        args = parser.parse(argv)
    else:
        known = parser.parse_known(argv)
        part = getattr(known, parser.options[0].name, None)
        if part is None or hasattr(known, "list"):
            parser.parse(argv)
            command.parts.show_all(part)
            return
        module = command.parts.module(part)
        options = command.parts.options(module)
        parser.add_part(part, options)
        args = parser.parse(argv)
        if missing := parser.missing(args):
            raise ConfigError(
                f"{name} {part} needs {' and '.join(missing)}; {command.parts.needs.format(facts=module.FACTS)}"
            )
        given["options"] = values(options, args)
    given |= values(parser.options, args)
    place = given.get("output", given.get("run"))
    with unwrapped(place if isinstance(place, Path) else None), _trust(args):
        settings = _named(parser.settings)(**given)
        result = _named(command.function).of(settings)
        if isinstance(command.answer, str):
            print(command.answer.format(s=settings, result=result, typed=shlex.quote(str(result))))
        else:
            command.answer(settings, result)


def _named(path: str) -> Any:
    module, _, name = path.rpartition(".")
    with imports_uncollected():
        return getattr(importlib.import_module(module), name)


def _trust(args: argparse.Namespace) -> contextlib.AbstractContextManager[None]:
    if not hasattr(args, "trust_bundle"):
        return contextlib.nullcontext()
    from medseg.bundle.trust import trusted_bundles

    return trusted_bundles()
