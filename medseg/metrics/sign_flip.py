"""The sign-flip test of a paired difference, and the interval that it does not reject.

The means of subsets of subjects (Hartigan 1969) serve both: p counts those on the wrong side of 0, the interval ends at
their order statistics. So p < 0.05 and an interval without 0 are one statement, at any number of subjects.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from medseg.metrics.subjects import FEWEST_SUBJECTS, SubjectSums

__all__ = ["SubsetMeans", "subset_means"]

_ALL_SUBSETS = 12  # subjects up to which all 4095 subsets are taken
_BLOCK = 4_000_000  # numbers held at once: 32 MB


@dataclass(frozen=True)
class SubsetMeans:
    """Means of the differences of subsets of the subjects, in ascending order; none with fewer than six subjects."""

    ordered: np.ndarray

    @property
    def p_value(self) -> float:
        """Two-sided p of "no difference"; NaN with fewer than six subjects."""
        return float(np.minimum(1.0, 2 * min(self.p_less, self.p_greater)))

    @property
    def p_greater(self) -> float:
        """One-sided p: how likely is so large a difference where there is none."""
        return self._p(np.searchsorted(self.ordered, 0.0, side="right"))

    @property
    def p_less(self) -> float:
        """One-sided p: how likely is so small a difference where there is none."""
        return self._p(len(self.ordered) - np.searchsorted(self.ordered, 0.0, side="left"))

    def _p(self, beyond: np.intp | int) -> float:
        return (1 + int(beyond)) / (len(self.ordered) + 1) if len(self.ordered) else math.nan

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """All mean differences that the two-sided test at ``1 - level`` does not reject; NaN where it cannot reject."""
        rank = math.floor((1 - level) / 2 * (len(self.ordered) + 1) + 1e-9)
        if rank < 1:
            return math.nan, math.nan
        return float(self.ordered[rank - 1]), float(self.ordered[-rank])


def subset_means(differences: SubjectSums, *, draws: int = 99_999, seed: int = 0) -> SubsetMeans:
    """Means of all subsets of at most 12 subjects, of ``draws`` random subsets of more.

    Differences of 0 stay in and need no rule.

    Args:
        seed: random seed of the subsets; equal input gives equal figures.
    """
    count = len(differences.names)
    if count < FEWEST_SUBJECTS:
        return SubsetMeans(np.empty(0))
    sums, weights = differences.combined()
    both = np.stack([sums, weights], axis=1)
    if count <= _ALL_SUBSETS:
        totals = _every_subset(count) @ both
    else:
        generator, rows = np.random.default_rng(seed), max(1, _BLOCK // count)
        blocks = []
        for start in range(0, draws, rows):
            bits = generator.integers(0, 256, (min(rows, draws - start), -(-count // 8)), dtype=np.uint8)
            blocks.append(np.unpackbits(bits, axis=1, count=count) @ both)
        totals = np.concatenate(blocks)
        totals = totals[totals[:, 1] > 0]  # without the empty subset
    means = totals[:, 0] / totals[:, 1]
    # Sums that cancel are 0 in exact arithmetic: on neither side, in the test and in the interval alike.
    means[np.abs(totals[:, 0]) <= 1e-12 * np.abs(sums).sum()] = 0.0
    return SubsetMeans(np.sort(means))


@lru_cache
def _every_subset(count: int) -> np.ndarray:
    """Membership ``(2^count - 1, count)`` of all subsets but the empty one."""
    members: np.ndarray = (np.arange(1, 2**count)[:, None] >> np.arange(count) & 1).astype(float)
    return members
