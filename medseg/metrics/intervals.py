"""Intervals: of mean scores by the percentile bootstrap over cases (Efron 1979), labels staying together; of a median
by order statistics.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

__all__ = ["Interval", "MedianInterval", "mean_interval", "median_interval"]


class Interval(NamedTuple):
    """A mean and the bounds of its interval; NaN where it is undefined."""

    mean: float
    low: float
    high: float


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


def mean_interval(scores: np.ndarray, *, level: float = 0.95, draws: int = 2000, seed: int = 0) -> Interval:
    """Mean over labels of the mean over cases, and its bootstrap interval over cases.

    Args:
        scores: ``(cases,)`` or ``(cases, labels)``; a NaN (the reference lacks the label) is ignored for its label.
        level: coverage, in (0, 1).
        draws: bootstrap samples.
        seed: random seed of the draws; equal input gives equal bounds.

    Returns:
        The mean, NaN without any finite score; the bounds are NaN with fewer than two cases that have a score.
    """
    table = np.asarray(scores, dtype=float)
    table = table[:, None] if table.ndim == 1 else table
    table = table[np.isfinite(table).any(axis=1)]
    cases = len(table)
    if cases == 0:
        return Interval(math.nan, math.nan, math.nan)
    mean = float(_means(np.ones((1, cases)), table)[0])
    if cases < 2:
        return Interval(mean, math.nan, math.nan)
    # How often each case is in a draw: the same as drawing indices, but the means become one matrix product.
    counts = np.random.default_rng(seed).multinomial(cases, np.full(cases, 1 / cases), size=draws)
    samples = _means(counts, table)
    tail = 50 * (1 - level)
    low, high = np.nanpercentile(samples, [tail, 100 - tail])
    return Interval(mean, float(low), float(high))


def _means(counts: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Counts ``(draws, cases)``, scores ``(cases, labels)`` -> mean over labels of the weighted means, ``(draws,)``.

    A draw that holds no case with a certain label goes without that label.
    """
    finite = np.isfinite(table)
    totals = counts @ np.where(finite, table, 0.0)
    weights = counts @ finite.astype(float)
    means = np.divide(totals, weights, out=np.zeros_like(totals), where=weights > 0)
    present = np.count_nonzero(weights, axis=1)
    result = np.full(len(counts), np.nan)
    np.divide(means.sum(axis=1), present, out=result, where=present > 0)
    return result
