"""Choosing among rules of post-processing without being fooled by their number: one test for all of them.

Of nine useless rules the best improves the mean of nearly every data set, and passes its own test far more often than
once in twenty. Here all rules share the subjects' sign flips, and the best is held against the best of each flip
(Westfall and Young 1993).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from medseg.metrics.subjects import FEWEST_SUBJECTS

__all__ = ["RuleTest", "rule_test"]

_ALL_FLIPS = 12  # subjects up to which all sign flips are taken
_BLOCK = 4_000_000  # numbers held at once: 32 MB


@dataclass(frozen=True)
class RuleTest:
    """One-sided p of each rule ``(rules,)``, corrected for their number; NaN with fewer than six subjects."""

    p_values: np.ndarray

    def accepted(self, level: float = 0.05) -> np.ndarray:
        """Indices of the rules that improve the mean beyond chance, the most certain first; often none."""
        order = np.argsort(self.p_values, kind="stable")
        chosen: np.ndarray = order[self.p_values[order] <= level]
        return chosen


def rule_test(improvements: np.ndarray, *, draws: int = 9999, seed: int = 0) -> RuleTest:
    """Test all rules together by their largest studentised mean improvement.

    Args:
        improvements: score with the rule less score without it, ``(rules, subjects)``, without NaN; of the other folds'
            cases where the choice is nested.
        draws: number of random sign flips of more than 12 subjects.
        seed: random seed of the flips.
    """
    table = np.asarray(improvements, dtype=float)
    rules, subjects = table.shape
    if subjects < FEWEST_SUBJECTS:
        return RuleTest(np.full(rules, np.nan))
    # Flips leave a rule's sum of squares as it is, so its studentised mean rises with its sum over their root.
    size = np.sqrt((table**2).sum(axis=1, keepdims=True))
    scaled = np.divide(table, size, out=np.zeros_like(table), where=size > 0)
    found = scaled.sum(axis=1)
    if subjects <= _ALL_FLIPS:
        signs = 1.0 - 2 * (np.arange(1, 2**subjects)[:, None] >> np.arange(subjects) & 1)
        largest = (signs @ scaled.T).max(axis=1)
    else:
        generator, rows = np.random.default_rng(seed), max(1, _BLOCK // subjects)
        flips = (generator.choice([-1.0, 1.0], (min(rows, draws - s), subjects)) for s in range(0, draws, rows))
        largest = np.concatenate([(signs @ scaled.T).max(axis=1) for signs in flips])
    beyond = (largest[:, None] >= found - 1e-12).sum(axis=0)
    return RuleTest((1 + beyond) / (1 + len(largest)))
