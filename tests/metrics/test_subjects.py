"""Sums and weights of subjects, and what is printed beside a mean."""

from __future__ import annotations

import math

import numpy as np
import pytest

from medseg.errors import DataError
from medseg.metrics.shares import failures, share
from medseg.metrics.single_score import cr2, score_interval, t_interval
from medseg.metrics.subjects import subject_sums

SIX = np.array([0.7, 0.8, 0.85, 0.9, 0.92, 0.95])


def test_sums_by_hand() -> None:
    sums = subject_sums(np.array([[0.2, 0.8], [np.nan, 0.6], [0.4, np.nan], [np.nan, np.nan]]), ["b", "a", "b", "c"])
    assert sums.names == ("a", "b") and sums.cases == 3
    assert sums.sums == pytest.approx(np.array([[0, 0.6], [0.6, 0.8]]))
    assert sums.weights.tolist() == [[0, 1], [2, 1]]
    assert sums.label_means == pytest.approx([0.3, 0.7]) and sums.mean == pytest.approx(0.5)
    totals, weights = sums.combined()
    assert totals.sum() == pytest.approx(0.5) and weights.sum() == pytest.approx(1)


def test_a_label_without_scores_is_not_in_the_mean() -> None:
    assert subject_sums(np.array([[0.2, np.nan], [0.4, np.nan]]), ["a", "b"]).mean == pytest.approx(0.3)
    assert math.isnan(subject_sums(np.array([math.nan]), ["a"]).mean)


def test_weights() -> None:
    """Three cases of one subject and one of another; lesions found of lesions."""
    values, names = np.array([0.9, 0.9, 0.9, 0.5]), ["a", "a", "a", "b"]
    assert subject_sums(values, names).mean == pytest.approx(0.8)
    assert subject_sums(values, names, per_subject=True).mean == pytest.approx(0.7)
    found = subject_sums(np.array([1.0, 0, 2]), ["a", "b", "b"], counts=np.array([4, 0, 2]))
    assert found.mean == pytest.approx(3 / 6) and found.names == ("a", "b")
    with pytest.raises(DataError, match="3 cases have 2 subjects"):
        subject_sums(np.zeros(3), ["a", "b"])


def test_order_and_folds_do_not_matter() -> None:
    """A subject whose cases lie in two folds counts once, in whatever order the folds come."""
    values = np.random.default_rng(0).beta(14, 2.5, 20)
    names = [f"s{i % 10}" for i in range(20)]
    order = np.random.default_rng(1).permutation(20)
    first = score_interval(subject_sums(values, names))
    second = score_interval(subject_sums(values[order], [names[i] for i in order]))
    assert (first.low, first.high) == pytest.approx((second.low, second.high), abs=1e-12)
    assert (first.subjects, first.cases) == (10, 20)


def test_equal_weights_give_the_t_interval_of_subject_means() -> None:
    from scipy import stats

    values, names = np.repeat(SIX, 2) + np.tile([0.01, -0.01], 6), [f"s{i // 2}" for i in range(12)]
    sums = subject_sums(values, names)
    expected = stats.t.interval(0.95, 5, loc=SIX.mean(), scale=stats.sem(SIX))
    assert t_interval(sums) == pytest.approx(expected, abs=1e-12)
    assert cr2(sums)[1] == pytest.approx(5)


def test_studentised_bootstrap_against_a_loop() -> None:
    """The definition draw by draw, with other random numbers."""
    sums = subject_sums(SIX, list("abcdef"))
    generator, deviations = np.random.default_rng(5), []
    for _ in range(40_000):
        drawn = SIX[generator.integers(0, 6, 6)]
        error = drawn.std(ddof=1) / math.sqrt(6)
        if error > 1e-12:
            deviations.append((drawn.mean() - SIX.mean()) / error)
    low, high = np.percentile(deviations, [2.5, 97.5])
    error = SIX.std(ddof=1) / math.sqrt(6)
    found = score_interval(sums, draws=40_000)
    assert sums.standard_error() == pytest.approx(error)
    assert found.low == pytest.approx(SIX.mean() - high * error, abs=0.1 * error)
    assert found.high == pytest.approx(SIX.mean() - low * error, abs=0.1 * error)
    assert found.method == "bootstrap-t" and found.few_subjects


def test_labels_against_a_loop() -> None:
    """Two labels, one of them missing in some cases: error of each draw by the linearised formula."""
    generator = np.random.default_rng(2)
    table = generator.beta(14, 2.5, (12, 2))
    table[3:7, 0] = np.nan
    names = [f"s{i // 2 if i < 6 else i}" for i in range(12)]  # 3 pairs and 6 alone
    sums = subject_sums(table, names)
    deviations = []
    for _ in range(20_000):
        counts = np.bincount(generator.integers(0, 9, 9), minlength=9)
        totals, weights = counts @ sums.sums, counts @ sums.weights
        held = weights > 0
        means = totals[held] / weights[held]
        residuals = ((sums.sums[:, held] - sums.weights[:, held] * means) / weights[held]).mean(axis=1)
        error = math.sqrt(9 / 8 * float(counts @ residuals**2))
        if error > 1e-12:
            deviations.append((means.mean() - sums.mean) / error)
    low, high = np.percentile(deviations, [2.5, 97.5])
    error = sums.standard_error()
    found = score_interval(sums, draws=20_000)
    assert found.low == pytest.approx(sums.mean - high * error, abs=0.15 * error)
    assert found.high == pytest.approx(sums.mean - low * error, abs=0.15 * error)


def test_few_and_equal_subjects() -> None:
    five = score_interval(subject_sums(SIX[:5], list("abcde")))
    assert (five.method, five.mean) == ("none", pytest.approx(SIX[:5].mean()))
    assert math.isnan(five.low) and math.isnan(five.high) and not five.few_subjects
    equal = score_interval(subject_sums(np.full(8, 0.3), list("abcdefgh")))
    assert (equal.method, equal.low, equal.high) == ("t", pytest.approx(0.3), pytest.approx(0.3))
    tied = score_interval(subject_sums(np.array([1.0] * 9 + [0.0]), list("abcdefghij")), limits=(0, 1))
    assert tied.method == "t" and tied.high == 1.0  # a draw in three lacks the only other score


def test_seed_and_limits() -> None:
    sums = subject_sums(SIX, list("abcdef"))
    assert score_interval(sums) == score_interval(sums)
    assert score_interval(sums) != score_interval(sums, seed=1)
    assert score_interval(sums, limits=(0.75, 0.9)).low == 0.75
    narrow, wide = (score_interval(sums, level=level) for level in (0.8, 0.95))
    assert wide.low < narrow.low < narrow.high < wide.high


def test_exact_shares() -> None:
    """0 of 20: the bound solves (1 - p)^20 = 0.025."""
    assert share(0, 20).high == pytest.approx(1 - 0.025 ** (1 / 20)) and share(0, 20).low == 0
    assert (share(0, 0).low, share(0, 0).high) == (0, 1)


def test_failures() -> None:
    values = np.array([0.05, 0.9, 0.8, math.nan, 0.0, 0.7])
    assert failures(values, list("abcdef")) == share(2, 5)
    assert failures(values, list("aabbcc")).hits == 2
    none = failures(np.full(16, 0.8), [f"s{i // 2}" for i in range(16)])
    assert (none.hits, none.of, none.high) == (0, 16, share(0, 8).high)
    some = failures(np.array([0.0, 0.0, *[0.8] * 14, 0.0, 0.8]), [f"s{i // 2}" for i in range(18)])
    assert some.of == 18 and some.low <= 3 / 18 < some.high < 1
