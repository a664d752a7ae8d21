"""Lines that tell how far long work over many cases is."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

__all__ = ["told"]

logger = logging.getLogger("medseg")

T = TypeVar("T")
_FIRST, _FACTOR = 5.0, 2.0  # seconds to the first line, and from each line to the next as a multiple of the one before


def told(done: Iterable[T], what: str, total: int) -> Iterator[T]:
    """What is iterated over, with a line such as ``read 1200 of 5000 cases`` every now and then: none of short work.

    Args:
        done: cases, as they are finished.
        what: past participle of what is done to them.
        total: number of cases.
    """
    began, wait = time.monotonic(), _FIRST
    for number, one in enumerate(done, 1):
        if time.monotonic() - began > wait and number < total:
            logger.info("%s %d of %d cases", what, number, total)
            wait = _FACTOR * (time.monotonic() - began)
        yield one
