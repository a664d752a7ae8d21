"""How stable a ranking of methods is: ranks in bootstrap samples of subjects, as challenges report them (Wiesenfarth
et al. 2021), and average ranks with their critical difference (Demšar 2006).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from medseg.errors import DataError

__all__ = ["AverageRanks", "RankStability", "average_ranks", "rank_stability"]


@dataclass(frozen=True)
class RankStability:
    """Ranks of M methods.

    Attributes:
        ranks: rank of each method by its mean over all subjects; ties take the smaller rank.
        shares: ``(M, M)``, the share of draws in which a method (row) has a rank (column).
        low, high: each method's ranks at 2.5 % and 97.5 % of the draws.
        winner_wins: share of draws in which the first of the full ranking is first.
        kendall_tau: mean of Kendall's tau-b between the ranking of a draw and the full one.
    """

    ranks: np.ndarray
    shares: np.ndarray
    low: np.ndarray
    high: np.ndarray
    winner_wins: float
    kendall_tau: float


@dataclass(frozen=True)
class AverageRanks:
    """Average rank of each method over subjects, Friedman's test, and the difference that tells two of them apart."""

    ranks: np.ndarray
    chi_squared: float
    p_value: float
    critical_difference: float


def rank_stability(
    scores: np.ndarray,
    *,
    higher_is_better: bool = True,
    draws: int = 9999,
    seed: int = 0,
    counts: np.ndarray | None = None,
) -> RankStability:
    """Draw subjects, average, then rank.

    Args:
        scores: ``(methods, subjects)``; a NaN ranks last wherever its subject is drawn.
        counts: how often each subject is in a draw, ``(draws, subjects)``, in place of random draws.
    """
    table = np.asarray(scores, dtype=float) * (-1 if higher_is_better else 1)
    table = np.where(np.isfinite(table), table, np.inf)
    subjects = table.shape[1]
    if counts is None:
        counts = np.random.default_rng(seed).multinomial(subjects, np.full(subjects, 1 / subjects), size=draws)
    ranks = _ranks(_means(np.ones((1, subjects)), table))[0]
    drawn = _ranks(_means(counts, table))
    shares = np.stack([(drawn == rank).mean(axis=0) for rank in range(1, len(table) + 1)], axis=1)
    low, high = np.percentile(drawn, [2.5, 97.5], axis=0, method="inverted_cdf")
    return RankStability(
        ranks, shares, low, high, float((drawn[:, ranks == 1] == 1).all(axis=1).mean()), _tau_b(drawn, ranks)
    )


def _means(counts: np.ndarray, table: np.ndarray) -> np.ndarray:
    """``(draws, methods)``; infinite where a subject without a score is drawn."""
    missing = np.isinf(table)
    means = counts @ np.where(missing, 0.0, table).T / counts.sum(axis=1, keepdims=True)
    return np.where(counts @ missing.T > 0, np.inf, np.round(means, 12))


def _ranks(means: np.ndarray) -> np.ndarray:
    from scipy.stats import rankdata

    ranks: np.ndarray = rankdata(means, method="min", axis=1).astype(int)
    return ranks


def _tau_b(drawn: np.ndarray, ranks: np.ndarray) -> float:
    """Mean Kendall's tau-b of each row of ``drawn`` with ``ranks``; NaN where all methods tie."""
    first, second = np.triu_indices(len(ranks), 1)
    one, other = np.sign(drawn[:, first] - drawn[:, second]), np.sign(ranks[first] - ranks[second])
    size = np.sqrt(np.abs(one).sum(axis=1) * np.abs(other).sum())
    tau = np.divide(one @ other, size, out=np.full(len(drawn), math.nan), where=size > 0)
    return float(np.nanmean(tau)) if np.isfinite(tau).any() else math.nan


def average_ranks(scores: np.ndarray, *, higher_is_better: bool = True, level: float = 0.95) -> AverageRanks:
    """Rank the methods in each subject, then average.

    Args:
        scores: ``(methods, subjects)`` without NaN.

    Raises:
        DataError: fewer than three methods, for which Friedman's test does not exist.
    """

    from scipy.stats import friedmanchisquare, rankdata, studentized_range

    table = np.asarray(scores, dtype=float)
    methods, subjects = table.shape
    if methods < 3:
        raise DataError(f"{methods} methods have no critical difference; it needs three. Compare the pair instead.")
    ranks = rankdata(-table if higher_is_better else table, axis=0).mean(axis=1)
    test = friedmanchisquare(*table)
    quantile = float(studentized_range.ppf(level, methods, math.inf)) / math.sqrt(2)
    difference = quantile * math.sqrt(methods * (methods + 1) / (6 * subjects))
    return AverageRanks(ranks, float(test.statistic), float(test.pvalue), difference)
