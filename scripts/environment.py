"""A virtual environment for the two commands of a fresh checkout; standard library only.

``.venv`` in the repository is made where there is none, and the project is installed into it with the pinned versions
of ``constraints.txt``. A stamp file remembers what was installed, so that a repetition takes no time.
"""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
_OLDEST = (3, 10)
_PINS = ("constraints.txt", "setup.cfg", "pyproject.toml")  # what an installation depends on
_OFFLINE = (
    "Temporary failure in name resolution",
    "Name or service not known",
    "Network is unreachable",
    "No route to host",
    "Connection refused",
    "NewConnectionError",
    "ConnectTimeoutError",
    "getaddrinfo failed",
)


class SetupError(Exception):
    """The environment cannot be made; the sentence says why and what to do."""


def prepare(extra: str) -> Path:
    """Make and fill ``.venv`` where that is needed; returns its Python.

    Args:
        extra: the group of optional dependencies that the command needs, such as ``dev``.

    Raises:
        SetupError: see its sentence.
    """
    check_python(sys.version_info[:2])
    python = venv_python(VENV)
    if not python.exists():
        _make_venv()
    _check_venv(python)
    stamp = VENV / f"installed-{extra}.txt"
    wanted = fingerprint(ROOT, extra)
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == wanted:
        say(f"environment: {VENV} is up to date")
        return python
    say(f'environment: installing medseg with ".[{extra}]" into {VENV}; the first time takes some minutes')
    _install(python, extra)
    stamp.write_text(wanted, encoding="utf-8")
    return python


def check_python(version: Sequence[int]) -> None:
    """Raises: SetupError: the Python is too old."""
    if tuple(version) < _OLDEST:
        raise SetupError(
            f"Python {'.'.join(map(str, version))} is too old; medseg needs {'.'.join(map(str, _OLDEST))} or newer. "
            f"Start this script with a newer one, such as python3.11."
        )


def venv_python(venv: Path) -> Path:
    """The interpreter inside a virtual environment."""
    return venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def fingerprint(root: Path, extra: str) -> str:
    """What an installation depends on: the place, the extra and the pinned versions."""
    digest = hashlib.sha256(f"{root}\n{extra}\n".encode())
    for name in _PINS:
        digest.update((root / name).read_bytes())
    return digest.hexdigest() + "\n"


def _make_venv() -> None:
    say(f"environment: making {VENV}")
    made = subprocess.run([sys.executable, "-m", "venv", str(VENV)], capture_output=True, text=True)
    if made.returncode:
        raise SetupError(
            "Python's venv module cannot make an environment; on Debian and Ubuntu install it with "
            f"`apt install python3-venv`, then run this again.\n{(made.stderr or made.stdout).strip()}"
        )


def _check_venv(python: Path) -> None:
    question = "import sys; print('%d %d' % sys.version_info[:2])"
    try:
        answer = subprocess.run([str(python), "-c", question], capture_output=True, text=True)
    except OSError as error:
        raise SetupError(f"{python} does not start ({error}); delete {VENV} and run this again.") from error
    if answer.returncode:
        raise SetupError(f"{python} does not work; delete {VENV} and run this again.\n{answer.stderr.strip()}")
    if tuple(map(int, answer.stdout.split())) < _OLDEST:
        raise SetupError(f"{VENV} holds Python {'.'.join(answer.stdout.split())}; delete it and run this again.")
    if subprocess.run([str(python), "-m", "pip", "--version"], capture_output=True).returncode:
        raise SetupError(f"{VENV} has no pip; delete it and run this again.")


# By all cores, which pip does with one; before the first start, for environments that write no bytecode afterwards.
_COMPILE = "import compileall, sysconfig; compileall.compile_dir(sysconfig.get_path('purelib'), quiet=2, workers=0)"


def _install(python: Path, extra: str) -> None:
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"]
    command += ["--no-compile", "-e", f".[{extra}]", "-c", "constraints.txt"]
    began = time.monotonic()
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, errors="replace")
    errors: list[str] = []
    reader = threading.Thread(target=_pass_on, args=(process, errors), daemon=True)
    reader.start()
    while process.poll() is None:
        try:
            process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            say(f"  still installing, {time.monotonic() - began:.0f} s")
        except KeyboardInterrupt:
            process.terminate()
            process.wait()
            raise
    reader.join(timeout=5)
    if process.returncode:
        raise SetupError(pip_failure("".join(errors)))
    subprocess.run([str(python), "-c", _COMPILE])
    say(f"environment: installed in {time.monotonic() - began:.0f} s")


def _pass_on(process: subprocess.Popen[str], lines: list[str]) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        lines.append(line)  # warnings, such as retries of a download, tell why something failed, but only then
        if not line.startswith("WARNING:"):
            sys.stderr.write(line)
            sys.stderr.flush()


def pip_failure(messages: str) -> str:
    """The sentence for what pip said on its way out."""
    if any(sign in messages for sign in _OFFLINE):
        return (
            "pip reaches no package index: there seems to be no network. Connect, or name a reachable mirror with the "
            "environment variable PIP_INDEX_URL, then run this again."
        )
    if "No space left on device" in messages:
        return f"The disk is full. The environment needs several GB in {VENV.parent}; free some and run this again."
    return "pip failed; its messages are above. Fix the cause and run this again: what is installed already is kept."


def stream(command: Sequence[str]) -> int:
    """Run a command in the repository with its output shown as it comes; returns its exit status.

    Ctrl-C and a termination signal are the command's to answer (a training saves its state), so it is waited for.
    """
    process = subprocess.Popen(list(command), cwd=ROOT)
    before = signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    try:
        while True:
            try:
                status = process.wait()
                return status if status >= 0 else 128 - status
            except KeyboardInterrupt:
                continue
    finally:
        signal.signal(signal.SIGTERM, before)


def say(line: str) -> None:
    """Print at once, also into a pipe."""
    print(line, flush=True)


def main(job: Callable[[list[str]], int], arguments: Sequence[str] | None = None) -> int:
    """Run ``job(arguments)`` with setup errors as sentences; returns the exit status."""
    try:
        return job(sys.argv[1:] if arguments is None else list(arguments))
    except SetupError as error:
        print(f"error: {error}", file=sys.stderr)
        return 5
    except KeyboardInterrupt:
        print("interrupted; rerun the same command to resume", file=sys.stderr)
        return 130
