"""Paired comparison of two methods on the same cases: interval, test and effect size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["PairedComparison", "holm", "paired_comparison"]


@dataclass(frozen=True)
class PairedComparison:
    """Differences of two methods on the same cases; NaN where a figure is undefined.

    Attributes:
        cases: number of pairs.
        mean_difference: mean over cases.
        interval: 95 %, percentile bootstrap.
        p_value: Wilcoxon signed-rank, two-sided (Wilcoxon 1945); 1.0 where all differences are 0, NaN below two cases.
        effect_size: matched-pairs rank-biserial correlation (Kerby 2014): share of favourable minus share of
            unfavourable rank sums, -1 to 1.
    """

    cases: int
    mean_difference: float
    interval: tuple[float, float]
    p_value: float
    effect_size: float


def paired_comparison(
    first: Sequence[float], second: Sequence[float], *, draws: int = 10_000, seed: int = 0
) -> PairedComparison:
    """Differences ``second - first`` over cases.

    Args:
        first, second: one score per case, in the same order; pairs with a NaN are ignored.
        draws: bootstrap resamples of cases.
        seed: random seed of the resampling.
    """
    difference = np.asarray(second, dtype=float) - np.asarray(first, dtype=float)
    difference = difference[np.isfinite(difference)]
    count = len(difference)
    if count == 0:
        return PairedComparison(0, math.nan, (math.nan, math.nan), math.nan, math.nan)
    picks = np.random.default_rng(seed).integers(0, count, (draws, count))
    low, high = np.percentile(difference[picks].mean(axis=1), [2.5, 97.5])
    if count < 2:
        p_value = math.nan
    elif not difference.any():
        p_value = 1.0
    else:
        from scipy.stats import wilcoxon

        p_value = float(wilcoxon(difference).pvalue)
    mean, interval = float(difference.mean()), (float(low), float(high))
    return PairedComparison(count, mean, interval, p_value, _rank_biserial(difference))


def _rank_biserial(difference: np.ndarray) -> float:
    nonzero = difference[difference != 0]
    if not len(nonzero):
        return 0.0
    from scipy.stats import rankdata

    ranks = rankdata(np.abs(nonzero))
    return float((ranks[nonzero > 0].sum() - ranks[nonzero < 0].sum()) / ranks.sum())


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment (Holm 1979); NaN stays NaN and does not count."""
    order = [i for i in np.argsort(p_values) if math.isfinite(p_values[i])]
    adjusted = [math.nan] * len(p_values)
    running = 0.0
    for position, index in enumerate(order):
        running = max(running, min(1.0, (len(order) - position) * p_values[index]))
        adjusted[index] = running
    return adjusted
