"""Shares, such as failures among cases, with exact bounds (Clopper and Pearson 1934): 0 of 20 is "at most 16.8 %"."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from medseg.metrics.single_score import score_interval
from medseg.metrics.subjects import FEWEST_SUBJECTS, subject_sums

__all__ = ["Share", "failures", "share"]


@dataclass(frozen=True)
class Share:
    """``hits`` of ``of`` and the interval of their share."""

    hits: int
    of: int
    low: float
    high: float


def share(hits: int, of: int, *, level: float = 0.95) -> Share:
    """Share of independent trials with its exact interval; 0 to 1 without any."""

    from scipy.stats import binomtest

    if not of:
        return Share(0, 0, 0.0, 1.0)
    bounds = binomtest(hits, of).proportion_ci(level, method="exact")
    return Share(hits, of, float(bounds.low), float(bounds.high))


def failures(scores: np.ndarray, subjects: Sequence[str], *, below: float = 0.1, level: float = 0.95) -> Share:
    """Cases whose score is below ``below``; undefined scores (NaN) are ignored.

    With several cases per subject the interval is that of the mean over subjects, and where that has none (no failure,
    only failures, fewer than six subjects) the exact one of the subjects with a failure.
    """
    values = np.asarray(scores, dtype=float)
    known = np.isfinite(values)
    names = np.asarray(subjects, dtype=str)[known]
    failed = values[known] < below
    hits, total, units = int(failed.sum()), len(failed), len(np.unique(names))
    if units == total:
        return share(hits, total, level=level)
    if units < FEWEST_SUBJECTS or hits in (0, total):
        bounds = share(len(np.unique(names[failed])), units, level=level)
        return Share(hits, total, bounds.low, bounds.high)
    interval = score_interval(subject_sums(failed, names.tolist()), level=level, limits=(0.0, 1.0))
    return Share(hits, total, interval.low, interval.high)
