"""Paired comparison against independent computations."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from medseg.metrics.paired import holm, paired_comparison

FIRST = [0.80, 0.75, 0.90, 0.60, 0.85, 0.70, 0.88]
SECOND = [0.83, 0.74, 0.94, 0.66, 0.87, 0.75, 0.91]


def _exact_p(differences: list[float]) -> float:
    """Two-sided Wilcoxon signed-rank p-value by enumeration of all signs."""
    order = sorted(range(len(differences)), key=lambda i: abs(differences[i]))
    ranks = [0.0] * len(differences)
    for rank, index in enumerate(order, 1):
        ranks[index] = rank
    observed = min(
        sum(r for r, d in zip(ranks, differences, strict=True) if d > 0),
        sum(r for r, d in zip(ranks, differences, strict=True) if d < 0),
    )
    total = sum(ranks)
    sums = [
        sum(r for r, s in zip(ranks, signs, strict=True) if s) for signs in itertools.product((0, 1), repeat=len(ranks))
    ]
    return sum(min(s, total - s) <= observed for s in sums) / len(sums)


def test_p_value_effect_and_mean_agree_with_enumeration() -> None:
    differences = [b - a for a, b in zip(FIRST, SECOND, strict=True)]
    result = paired_comparison(FIRST, SECOND)
    assert result.cases == 7
    assert result.mean_difference == pytest.approx(sum(differences) / 7)
    # Ranks are unique up to rounding of 0.03, 0.04, ... : use rounded values for both.
    rounded = [0.031, -0.01, 0.04, 0.06, 0.02, 0.05, 0.03]
    exact = paired_comparison([0.0] * 7, rounded)
    assert exact.p_value == pytest.approx(_exact_p(rounded))
    assert exact.effect_size == pytest.approx((28 - 1 - 1) / 28)


def test_interval_is_the_percentile_bootstrap() -> None:
    result = paired_comparison(FIRST, SECOND, draws=2000, seed=3)
    difference = np.subtract(SECOND, FIRST)
    rng = np.random.default_rng(3)
    means = [difference[row].mean() for row in rng.integers(0, 7, (2000, 7))]
    assert result.interval == pytest.approx(tuple(np.percentile(means, [2.5, 97.5])))
    assert result.interval[0] < result.mean_difference < result.interval[1]


def test_undefined_scores_leave_pairs_out() -> None:
    assert paired_comparison([0.5, math.nan, 0.7], [0.6, 0.9, math.nan]).cases == 1
    assert math.isnan(paired_comparison([0.5], [0.6]).p_value)
    assert paired_comparison([], []).cases == 0
    same = paired_comparison([0.5, 0.6], [0.5, 0.6])
    assert (same.p_value, same.effect_size) == (1.0, 0.0)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    adjusted = holm([0.5, math.nan, 0.01])
    assert adjusted[0] == pytest.approx(0.5)
    assert math.isnan(adjusted[1])
    assert adjusted[2] == pytest.approx(0.02)
