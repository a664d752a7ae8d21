"""What a check says: one finding, and one finding of a named case."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

__all__ = ["Finding", "Problem", "by"]


class Finding(NamedTuple):
    """``message`` says what is wrong and what was expected, ``remedy`` what to do; a warning does not stop."""

    message: str
    remedy: str
    warning: bool = False


@dataclass(frozen=True)
class Problem:
    """A finding and the case that it is about."""

    case: str
    message: str
    remedy: str
    warning: bool = False


def by(numbers: Sequence[float]) -> str:
    """A shape or spacing: ``512×512×117``."""
    return "×".join(f"{n:.4g}" for n in numbers)
