"""Checks of what random transforms are given."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from medseg.errors import ConfigError

__all__ = ["axes_of", "count", "least_and_largest", "probability"]


def probability(name: str, value: Any) -> float:
    """A number from 0 to 1.

    Raises:
        ConfigError: it is none.
    """
    if isinstance(value, (int, float)) and 0 <= value <= 1:
        return float(value)
    raise ConfigError(f"{name}: expected a probability from 0 to 1, got {value!r}.")


def count(name: str, value: Any) -> int:
    """A number of things, one or more.

    Raises:
        ConfigError: it is none.
    """
    if isinstance(value, int) and value >= 1:
        return value
    raise ConfigError(f"{name}: expected a positive integer, got {value!r}.")


def least_and_largest(name: str, values: Any, *, above: float = 0.0) -> tuple[float, float]:
    """Two numbers in their order, both above another.

    Raises:
        ConfigError: they are something else.
    """
    match values:
        case [int() | float() as low, int() | float() as high] if above < low <= high < math.inf:
            return float(low), float(high)
    raise ConfigError(f"{name}: expected a least and a largest number above {above:g}, got {values!r}.")


def axes_of(name: str, values: Any, dims: int) -> list[int]:
    """Spatial axes.

    Raises:
        ConfigError: not a list of some of them.
    """
    if isinstance(values, Sequence) and all(axis in range(dims) for axis in values):
        return [int(axis) for axis in values]
    raise ConfigError(f"{name}: expected some of the axes {list(range(dims))}, got {values!r}.")
