"""One writer at a time in a run or output folder: a lock file that names its holder.

A file and not ``flock``: a lock of the kernel does not say who holds it, on many network disks it is missing or counts
for one machine alone, and loader processes inherit it and outlive a killed training by seconds. The file is created
exclusively, which network disks offer too, and names process, machine and time.

A lock that its holder did not remove is recognised: on the same machine by the starts of machine and process; on
another one by its age, since a holder renews the file's time every ``_RENEWED`` seconds.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar
from uuid import uuid4

from medseg.bundle.parts import start_distributed
from medseg.engines.ranks import is_main, on_main
from medseg.errors import ConfigError, ResourceError

__all__ = ["LOCK", "Holder", "only_writer", "writes_into"]

logger = logging.getLogger("medseg")

_S = TypeVar("_S")
_R = TypeVar("_R")

LOCK = ".medseg.lock"
_RENEWED, _LOST = 30.0, 600.0  # seconds
_ours: dict[Path, int] = {}  # folders that this process holds -> how many calls do


@dataclass(frozen=True)
class Holder:
    """Who writes into a folder.

    Attributes:
        pid, host: the process and its machine.
        boot: the machine's start, empty where the system does not tell it.
        began: the process's start in the system's ticks, which tells it from a later one of the same number; 0 where
            the system does not tell it.
        since: local time of the lock.
    """

    pid: int
    host: str
    boot: str
    began: int
    since: str

    @classmethod
    def here(cls) -> Holder:
        """This process."""
        now = time.strftime("%Y-%m-%d %H:%M:%S")
        return cls(os.getpid(), socket.gethostname(), _boot(), _start_of(os.getpid()), now)

    def is_alive(self, age: float) -> bool:
        """Whether it still may write; ``age``: seconds since the lock was renewed."""
        if self.host != socket.gethostname():
            return age < _LOST
        if self.boot != _boot():
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:  # another user's
            pass
        return _start_of(self.pid) in (0, self.began)


@contextlib.contextmanager
def only_writer(folder: str | Path) -> Iterator[None]:
    """Hold a folder's lock, which is made if it is missing; calls of one process may be nested.

    Under torchrun every process makes the same call, and the first one takes the lock for all.

    Raises:
        ConfigError: it is a file.
        ResourceError: another process holds the lock.
    """
    path = Path(folder).resolve()
    held = path in _ours
    renewing = threading.Event()
    there = path.is_dir()
    if not held:
        on_main(lambda: _take(path))
        if is_main():
            threading.Thread(target=_renew, args=(path / LOCK, renewing), daemon=True).start()
    _ours[path] = _ours.get(path, 0) + 1
    try:
        yield
    finally:
        _ours[path] -= 1
        if not _ours[path]:
            del _ours[path]
            renewing.set()
            if is_main():
                _release(path / LOCK)
                if not there:
                    with contextlib.suppress(OSError):
                        path.rmdir()  # nothing came of it


def writes_into(field: str) -> Callable[[Callable[[_S], _R]], Callable[[_S], _R]]:
    """A decorator of commands that write into the folder of this name in their settings: ``output``, which is made, or
    ``run``, which the function itself refuses if it is missing.
    """

    def decorate(function: Callable[[_S], _R]) -> Callable[[_S], _R]:
        @functools.wraps(function)
        def alone(settings: _S) -> _R:
            folder = Path(getattr(settings, field))
            start_distributed()
            if field == "run" and not folder.is_dir():
                return function(settings)
            with only_writer(folder):
                return function(settings)

        return alone

    return decorate


def _take(folder: Path) -> None:
    """Make the lock file, in the place of one whose holder is gone."""
    if folder.is_file():
        raise ConfigError(f"{folder} is a file; expected a folder to write into. Name another.")
    folder.mkdir(parents=True, exist_ok=True)
    lock = folder / LOCK
    while True:
        try:
            with lock.open("x", encoding="utf-8") as file:
                file.write(json.dumps(asdict(Holder.here())) + "\n")
            return
        except FileExistsError:
            _remove_stale(lock)


def _remove_stale(lock: Path) -> None:
    """Remove a lock whose holder is gone.

    Raises:
        ResourceError: it is not.
    """
    try:
        text, age = lock.read_text(encoding="utf-8"), time.time() - lock.stat().st_mtime
    except FileNotFoundError:  # released meanwhile
        return
    holder = _read(text)
    if age < _LOST if holder is None else holder.is_alive(age):
        who = f"process {holder.pid} on {holder.host} since {holder.since}" if holder else "another process"
        raise ResourceError(
            f"{lock.parent} is being written by {who}; one command at a time writes into a folder. Wait for its end, "
            f"name another folder, or, if that process is gone, delete {lock}."
        )
    taken = lock.with_name(f"{LOCK}.{uuid4().hex}")
    try:
        lock.rename(taken)  # of several processes that see the same stale lock, one succeeds
    except FileNotFoundError:
        return
    if taken.read_text(encoding="utf-8") != text:
        taken.replace(lock)  # it was the new one of a process that was faster
        return
    taken.unlink()
    logger.warning("%s was left locked by a process that is gone; its lock is removed", lock.parent)


def _release(lock: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        holder = _read(lock.read_text(encoding="utf-8"))
        if holder is None or (holder.pid, holder.host) == (os.getpid(), socket.gethostname()):
            lock.unlink()


def _renew(lock: Path, released: threading.Event) -> None:
    while not released.wait(_RENEWED):
        with contextlib.suppress(OSError):
            os.utime(lock)


def _read(text: str) -> Holder | None:
    try:
        return Holder(**json.loads(text))
    except (ValueError, TypeError):
        return None


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _start_of(pid: int) -> int:
    """A process's start as Linux tells it; 0 where it is not told, -1 of one that has ended and was not waited for."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return 0
    state, *fields = text.rpartition(")")[2].split()  # fields 3, 4, … of proc(5)
    return -1 if state in "ZX" else int(fields[18])
