"""The interval of a median, by order statistics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

__all__ = ["MedianInterval", "median_interval"]


class MedianInterval(NamedTuple):
    """A median and the bounds of its interval; NaN where it is undefined."""

    median: float
    low: float
    high: float


def median_interval(values: Sequence[float], *, level: float = 0.95) -> MedianInterval:
    """Median and its interval between two order statistics: at least ``level``, whatever the distribution.

    The bounds are NaN with too few values: 0.95 needs six.
    """
    from scipy.stats import quantile_test

    low, high = quantile_test(values, p=0.5).confidence_interval(level)
    return MedianInterval(float(np.median(values)), float(low), float(high))
