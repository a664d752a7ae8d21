"""Scores of simulated subjects, and how often intervals and tests are right about them.

Dice follows Beta(14, 2.5), mean 0.848; a failure is Beta(1, 6). Cases of a subject, and two methods on a case, are tied
by a Gaussian copula.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.stats import beta, norm

from medseg.metrics.paired_difference import paired_difference
from medseg.metrics.single_score import ScoreInterval, score_interval
from medseg.metrics.subjects import subject_sums

GOOD, FAILED = (14.0, 2.5), (1.0, 6.0)
_GRID = np.linspace(0, 1, 20_001)
_QUANTILES = beta.ppf(_GRID, *GOOD)
MEAN, MEAN_FAILED = GOOD[0] / sum(GOOD), FAILED[0] / sum(FAILED)


@dataclass(frozen=True)
class Scene:
    """A population.

    Attributes:
        cases: smallest and largest number of cases a subject.
        rho: copula correlation of a subject's cases.
        failures: shares of failures in the first and the second method.
        likeness: copula correlation of the two methods on a case.
        step: scores are rounded to it; 0 leaves them.
        equal: share of cases in which both methods have one score.
        labels: number of labels; a label's scores are independent of another's.
        missing: share of scores that are undefined in both methods.
    """

    cases: tuple[int, int] = (1, 1)
    rho: float = 0.0
    failures: tuple[float, float] = (0.0, 0.0)
    likeness: float = 0.8
    step: float = 0.0
    equal: float = 0.0
    labels: int = 1
    missing: float = 0.0

    @property
    def mean(self) -> float:
        """Expected score of the first method."""
        return MEAN + self.failures[0] * (MEAN_FAILED - MEAN)

    def draw(self, generator: np.random.Generator, subjects: int) -> tuple[np.ndarray, np.ndarray, list[str]]:
        """Scores ``(cases, labels)`` of two methods, shifted so that both have one mean, and the cases' subjects."""
        counts = generator.integers(self.cases[0], self.cases[1] + 1, subjects)
        names = [f"s{g:03d}" for g in np.repeat(np.arange(subjects), counts)]
        columns = [self._scores(generator, counts) for _ in range(self.labels)]
        first, second = np.stack(columns, axis=-1)
        undefined = generator.random(first.shape) < self.missing
        return np.where(undefined, np.nan, first), np.where(undefined, np.nan, second), names

    def _scores(self, generator: np.random.Generator, counts: np.ndarray) -> np.ndarray:
        """Scores ``(2, cases)`` of one label."""
        total = int(counts.sum())
        shared = np.repeat(self._pair(generator, len(counts)), counts, axis=1)
        normal = np.sqrt(self.rho) * shared + np.sqrt(1 - self.rho) * self._pair(generator, total)
        scores = np.interp(norm.cdf(normal), _GRID, _QUANTILES)
        for method, share in enumerate(self.failures):
            failed = generator.random(total) < share
            scores[method, failed] = generator.beta(*FAILED, int(failed.sum()))
        scores[1] += (self.failures[1] - self.failures[0]) * (MEAN - MEAN_FAILED)
        same = generator.random(total) < self.equal
        scores[1, same] = scores[0, same]
        return np.round(scores / self.step) * self.step if self.step else scores

    def _pair(self, generator: np.random.Generator, count: int) -> np.ndarray:
        first, noise = generator.standard_normal((2, count))
        return np.stack([first, self.likeness * first + np.sqrt(1 - self.likeness**2) * noise])

    def alone(self, failures: float) -> Scene:
        """The same with this share of failures in both methods."""
        return replace(self, failures=(failures, failures))


def interval_by_subject(scores: np.ndarray, names: Sequence[str], draws: int) -> ScoreInterval:
    return score_interval(subject_sums(scores, names), draws=draws, limits=(0.0, 1.0))


def interval_by_case(scores: np.ndarray, names: Sequence[str], draws: int) -> ScoreInterval:
    """The wrong unit: each case as if it were a subject."""
    return interval_by_subject(scores, [str(case) for case in range(len(names))], draws)


def coverage(
    scene: Scene,
    subjects: int,
    *,
    replicates: int,
    draws: int,
    seed: int = 20_000,
    interval: Callable[[np.ndarray, Sequence[str], int], ScoreInterval] = interval_by_subject,
) -> tuple[float, float]:
    """Share of intervals that hold the true mean, and their mean width."""
    generator = np.random.default_rng(seed + subjects)
    hits, width = 0, 0.0
    for _ in range(replicates):
        scores, _, names = scene.draw(generator, subjects)
        found = interval(scores, names, draws)
        hits += found.low <= scene.mean <= found.high
        width += found.high - found.low
    return hits / replicates, width / replicates


def size(
    scene: Scene, subjects: int, *, replicates: int, draws: int, seed: int = 30_000, by_case: bool = False
) -> tuple[float, float]:
    """Share of rejections at 5 % of a true "no difference", and coverage of 0 by the intervals."""
    generator = np.random.default_rng(seed + subjects)
    rejected = covered = 0
    for _ in range(replicates):
        first, second, names = scene.draw(generator, subjects)
        units = [str(case) for case in range(len(names))] if by_case else names
        found = paired_difference(first, second, units, draws=draws)
        rejected += found.p_value <= 0.05
        covered += found.low <= 0 <= found.high
    return rejected / replicates, covered / replicates
