"""Two methods on the same cases: mean difference over subjects, its interval and test, and who carries it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from medseg.metrics.sign_flip import subset_means
from medseg.metrics.subjects import SubjectSums, subject_sums

__all__ = ["Counts", "Influence", "PairedDifference", "influence", "paired_difference", "rank_biserial"]


@dataclass(frozen=True)
class Counts:
    """Numbers of units in which the second method's score is higher, lower or equal."""

    higher: int
    lower: int
    equal: int

    @property
    def total(self) -> int:
        return self.higher + self.lower + self.equal


@dataclass(frozen=True)
class Influence:
    """The two subjects with the largest share in the differences.

    Attributes:
        subjects: their names.
        share: their share of the sum of absolute differences, 0 to 1.
    """

    subjects: tuple[str, ...]
    share: float

    @property
    def carried(self) -> bool:
        """Whether two subjects carry more than half: rare failures cannot be judged below about 50 subjects."""
        return self.share > 0.5


@dataclass(frozen=True)
class PairedDifference:
    """``second - first`` over subjects.

    Attributes:
        mean: mean over labels of the mean over cases.
        low, high: 95 % interval that inverts the test; NaN with fewer than six subjects.
        low_90, high_90: 90 % interval, which ``equivalence`` takes.
        p_value: two-sided sign-flip test of the mean; NaN with fewer than six subjects.
        rank_biserial: matched-pairs rank-biserial correlation of the subjects' means, -1 to 1.
        cases, subjects: counts of cases and subjects by the sign of their difference.
        influence: the two subjects with the largest share.
    """

    mean: float
    low: float
    high: float
    low_90: float
    high_90: float
    p_value: float
    rank_biserial: float
    cases: Counts
    subjects: Counts
    influence: Influence


def paired_difference(
    first: np.ndarray, second: np.ndarray, subjects: Sequence[str], *, draws: int = 99_999, seed: int = 0
) -> PairedDifference:
    """Compare two methods.

    Args:
        first, second: scores ``(cases,)`` or ``(cases, labels)`` of the same cases; pairs with a NaN are ignored.
        subjects: subject of each case.
        draws: number of random subsets of more than 12 subjects.
        seed: random seed of the subsets.
    """
    table = np.asarray(second, dtype=float) - np.asarray(first, dtype=float)
    table = table[:, None] if table.ndim == 1 else table
    differences = subject_sums(table, subjects)
    subsets = subset_means(differences, draws=draws, seed=seed)
    low, high = subsets.interval()
    low_90, high_90 = subsets.interval(0.9)
    known = np.isfinite(table)
    per_case = np.where(known, table, 0).sum(axis=1)[known.any(axis=1)]
    sums, weights = differences.combined() if differences.names else (np.empty(0), np.empty(0))
    return PairedDifference(
        differences.mean,
        low,
        high,
        low_90,
        high_90,
        subsets.p_value,
        rank_biserial(sums / weights),
        _counts(per_case),
        _counts(sums),
        influence(differences),
    )


def _counts(values: np.ndarray) -> Counts:
    size = 1e-12 * float(np.abs(values).max(initial=0.0))
    higher, lower = int((values > size).sum()), int((values < -size).sum())
    return Counts(higher, lower, len(values) - higher - lower)


def influence(differences: SubjectSums) -> Influence:
    """The two subjects with the largest share of the sum of absolute differences; a share of 0 without differences."""
    if not differences.names:
        return Influence((), 0.0)
    sums = np.abs(differences.combined()[0])
    top = np.argsort(-sums, kind="stable")[:2]
    total = float(sums.sum())
    return Influence(tuple(differences.names[i] for i in top), float(sums[top].sum()) / total if total else 0.0)


def rank_biserial(differences: np.ndarray) -> float:
    """Share of favourable minus share of unfavourable rank sums (Kerby 2014); 0 without differences, NaN of none."""

    from scipy.stats import rankdata

    if not len(differences):
        return math.nan
    nonzero = differences[differences != 0]
    if not len(nonzero):
        return 0.0
    ranks = rankdata(np.abs(nonzero))
    return float((ranks[nonzero > 0].sum() - ranks[nonzero < 0].sum()) / ranks.sum())
