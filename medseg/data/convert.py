"""Many files from one place to another: in parallel, resumable, none of them half written."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

from medseg.errors import CasesFailed, few
from medseg.storage import whole_file

__all__ = ["convert_files", "link_or_copy"]

_Source = TypeVar("_Source")


def convert_files(
    pairs: Iterable[tuple[_Source, Path]],
    convert: Callable[[_Source, Path], object],
    *,
    num_workers: int | None = None,
) -> int:
    """Call ``convert(source, target)`` for every pair whose target does not exist; returns how many were made.

    ``convert`` writes to a temporary name of the same suffix, renamed when it is done. At most ``num_workers`` sources
    are in memory at a time (threads: reading, resampling and compressing release Python's lock). A failure leaves the
    others alone; the same call again makes what is missing. A progress bar is shown on a terminal only.

    Args:
        pairs: a source, in whatever form ``convert`` takes it, and its target.
        convert: makes one file.
        num_workers: threads, default at most 4.

    Raises:
        CasesFailed: some failed; the others are done.
    """
    todo = [(source, target) for source, target in pairs if not target.exists()]
    failures: dict[Path, str] = {}
    pool = ThreadPoolExecutor(num_workers or min(4, os.cpu_count() or 1))
    try:
        running = {pool.submit(_make, source, target, convert): target for source, target in todo}
        for future in tqdm(as_completed(running), total=len(running), unit="file", leave=False, disable=None):
            if error := future.exception():
                failures[running[future]] = f"{error}".rstrip(".") or type(error).__name__
    finally:
        pool.shutdown(cancel_futures=True)  # after Ctrl-C: nothing new is begun
    if failures:
        first, *others = sorted(failures)
        more = f"; also {few([path.name for path in others])}" if others else ""
        raise CasesFailed(
            f"{len(failures)} of {len(todo)} files could not be made, the first is {first}: {failures[first]}"
            f"{more}. Fix the cause and run the same command again; files that are done are kept."
        )
    return len(todo)


def _make(source: _Source, target: Path, convert: Callable[[_Source, Path], object]) -> None:
    with whole_file(target) as temporary:
        temporary.unlink(missing_ok=True)
        convert(source, temporary)


def link_or_copy(source: Path, target: Path) -> None:
    """A symbolic link to ``source``; a copy where the system allows no links."""
    try:
        target.symlink_to(source.resolve())
    except OSError:
        target.write_bytes(source.read_bytes())
