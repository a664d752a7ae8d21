"""What a command owes its terminal and whoever started it: streams that take any text, pipes that may be left, and a
clean end on SIGTERM.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any

__all__ = ["open_streams", "stopped_by_sigterm"]


class _Leavable(io.FileIO):
    """A stream whose reader may leave, as `head` does: the command still does its work and ends with its own status."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data) or 0
        except OSError as error:
            nowhere = os.open(os.devnull, os.O_WRONLY)  # what is left in the buffer goes there
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            if not isinstance(error, BrokenPipeError):
                raise OSError(error.errno, error.strerror, "The output of the command") from error
            return len(data)


def open_streams() -> None:
    """Standard output and error of a process of our own; what a terminal's encoding lacks is written as an escape."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by whoever started the command
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115
            continue
        if stream is not getattr(sys, f"__{name}__"):
            continue  # a program around this one has put its own there, or this was done before
        stream.flush()
        buffer = io.BufferedWriter(_Leavable(stream.fileno(), "w", closefd=False))
        lines = name == "stderr" or stream.line_buffering
        new = io.TextIOWrapper(buffer, stream.encoding, "backslashreplace", line_buffering=lines, write_through=lines)
        setattr(sys, name, new)


@contextlib.contextmanager
def stopped_by_sigterm() -> Iterator[None]:
    """SIGTERM ends the process with status 143 as an exception does, so that no file is left half written.

    A training has a handler of its own meanwhile, which saves its state first.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    process = os.getpid()

    def stop(number: int, frame: Any) -> None:
        signal.signal(number, signal.SIG_DFL if os.getpid() != process else signal.SIG_IGN)
        if os.getpid() != process:  # a worker, forked with this handler
            os.kill(os.getpid(), number)
        logging.disable(logging.ERROR)  # engines report the exit as an error of theirs
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        logging.disable(logging.NOTSET)
