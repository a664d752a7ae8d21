"""Sign-flip test and interval against complete enumeration, scipy and bisection; verdicts and families."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy.stats import permutation_test

from medseg.errors import ConfigError, DataError
from medseg.metrics.agreement import bland_altman
from medseg.metrics.families import adjust_families, equivalence
from medseg.metrics.folds import fold_test
from medseg.metrics.paired_difference import Counts, influence, paired_difference, rank_biserial
from medseg.metrics.ranking import average_ranks, rank_stability
from medseg.metrics.seeds import crossed_mean, training_difference
from medseg.metrics.sign_flip import subset_means
from medseg.metrics.subjects import subject_sums

EIGHT = np.array([0.03, -0.01, 0.05, 0.02, -0.02, 0.04, 0.01, 0.06])
NAMES = list("abcdefgh")


def flips_p(sums: np.ndarray, weights: np.ndarray, shift: float) -> float:
    """Two-sided p over all sign flips of the differences less ``shift``."""
    centred = sums - shift * weights
    signs = np.array(list(itertools.product((-1, 1), repeat=len(sums))))
    return float((np.abs(signs @ centred) >= abs(centred.sum()) - 1e-12).mean())


def test_against_scipy() -> None:
    found = paired_difference(np.zeros(8), EIGHT, NAMES)
    expected = permutation_test((EIGHT,), np.mean, permutation_type="samples", n_resamples=np.inf)
    assert found.p_value == pytest.approx(expected.pvalue, abs=1e-12)


@pytest.mark.parametrize("names", [NAMES, list("aabcdefg"), list("aabbcdef")])
def test_the_interval_holds_what_the_test_does_not_reject(names: list[str]) -> None:
    sums = subject_sums(EIGHT, names)
    subsets = subset_means(sums)
    totals, weights = sums.sums[:, 0], sums.weights[:, 0]
    assert subsets.p_value == pytest.approx(flips_p(totals, weights, 0), abs=1e-12)
    low, high = subsets.interval()
    for bound, inside in ((low, 1e-7), (high, -1e-7)):
        assert flips_p(totals, weights, bound + inside) > 0.05
        assert flips_p(totals, weights, bound - inside) <= 0.05


def test_p_and_interval_never_contradict() -> None:
    generator = np.random.default_rng(0)
    for count in (6, 9, 13):
        for shift in np.linspace(0, 0.05, 12):
            values = np.round(generator.normal(shift, 0.04, count), 2)
            found = paired_difference(np.zeros(count), values, [str(i) for i in range(count)], draws=1999)
            assert (found.p_value <= 0.05) == (not found.low <= 0 <= found.high)
            assert found.low <= found.low_90 <= found.high_90 <= found.high


def test_random_subsets_agree_with_all() -> None:
    values = np.random.default_rng(4).normal(0.02, 0.05, 14)
    every = np.arange(1, 2**14)[:, None] >> np.arange(14) & 1
    means = np.sort(every @ values / every.sum(axis=1))
    found = subset_means(subject_sums(values, [str(i) for i in range(14)]))
    assert found.p_value == pytest.approx(flips_p(values, np.ones(14), 0), abs=0.005)
    assert found.interval() == pytest.approx((means[410], means[-410]), abs=0.001)
    assert (
        found.ordered.tolist()
        == subset_means(subject_sums(values[::-1], [str(i) for i in range(13, -1, -1)])).ordered.tolist()
    )


def test_few_equal_and_absent_differences() -> None:
    five = paired_difference(np.zeros(5), np.ones(5), list("abcde"))
    assert five.mean == 1 and all(map(math.isnan, (five.p_value, five.low, five.high)))
    equal = paired_difference(np.ones(7), np.ones(7), list("abcdefg"))
    assert (equal.p_value, equal.low, equal.high, equal.rank_biserial) == (1, 0, 0, 0)
    assert (equal.subjects, equal.influence.carried) == (Counts(0, 0, 7), False)
    none = paired_difference(np.full(3, np.nan), np.ones(3), list("abc"))
    assert math.isnan(none.mean) and math.isnan(none.p_value) and none.subjects == Counts(0, 0, 0)
    zeros = np.array([0.02, 0.03, 0.05, 0.04, 0.01, 0.02])
    padded = paired_difference(np.zeros(9), np.append(zeros, [0, 0, 0]), list("abcdefghi"))
    assert padded.p_value == paired_difference(np.zeros(6), zeros, list("abcdef")).p_value == 2 / 64


def test_unit_and_counts() -> None:
    """Two sides of six subjects: six units, whose sides may differ in sign."""
    second = np.array([0.1, -0.02, 0.05, 0.05, -0.01, -0.01, 0.02, 0.02, 0.03, 0.01, 0.04, 0.0])
    found = paired_difference(np.zeros(12), second, list("aabbccddeeff"))
    assert found.subjects == Counts(5, 1, 0) and found.cases == Counts(8, 3, 1)
    assert found.p_value == flips_p(second.reshape(6, 2).sum(axis=1), np.full(6, 2.0), 0)


def test_two_subjects_carry_the_difference() -> None:
    found = influence(subject_sums(np.array([0.9, 0.01, -0.02, 0.8, 0.01, 0.02]), list("abcdef")))
    assert found.subjects == ("a", "d") and found.carried
    assert found.share == pytest.approx(1.7 / 1.76)
    assert not influence(subject_sums(EIGHT, NAMES)).carried
    assert influence(subject_sums(np.empty(0), [])).share == 0


def test_rank_biserial() -> None:
    assert rank_biserial(np.array([1.0, 2, -3])) == 0
    assert rank_biserial(np.array([1.0, 2, 0])) == 1
    assert math.isnan(rank_biserial(np.empty(0)))


def test_families() -> None:
    """The primary comparisons are adjusted for each other, not for the eleven secondary ones."""
    p = {("dice", "mean"): 0.04} | {("dice", label): 0.03 for label in range(10)} | {("hd95", 1): math.nan}
    family = {row: "primary" if row[1] == "mean" else row[0] for row in p}
    found = adjust_families(p, family)
    assert found[("dice", "mean")].adjusted == 0.04 and found[("dice", "mean")].tests == 1
    assert found[("dice", 3)].adjusted == pytest.approx(0.3) and found[("dice", 3)].tests == 10
    assert math.isnan(found[("hd95", 1)].adjusted) and found[("hd95", 1)].tests == 0
    assert list(found) == list(p)
    with pytest.raises(ConfigError, match="No comparison belongs to the endpoint 'primary'.*dice, hd95"):
        adjust_families({1: 0.1, 2: 0.1}, {1: "dice", 2: "hd95"})


def test_equivalence() -> None:
    assert equivalence(-0.01, 0.015, 0.02).equivalent
    one_side = equivalence(-0.01, 0.03, 0.02)
    assert not one_side.equivalent and one_side.non_inferior
    assert not equivalence(-0.01, 0.03, 0.02, higher_is_better=False).non_inferior
    nothing = equivalence(math.nan, math.nan, 0.02)
    assert not nothing.equivalent and not nothing.non_inferior
    for margin in (0.0, -1.0, math.nan):
        with pytest.raises(ConfigError, match="not a valid margin"):
            equivalence(0, 0, margin)


def test_seeds() -> None:
    """Without chance in training the crossed error is that over subjects; with it, larger."""
    means = np.linspace(0.7, 0.9, 10)
    same = crossed_mean(np.stack([means, means, means], axis=1))
    assert same.standard_error == pytest.approx(means.std(ddof=1) / math.sqrt(10)) and same.degrees == 9
    shifted = crossed_mean(means[:, None] + np.array([0.1, 0, -0.1]))
    assert shifted.standard_error > same.standard_error and shifted.seed_sd == pytest.approx(0.1)
    assert shifted.degrees < 9
    with pytest.raises(DataError, match="10 subjects and 1 seeds"):
        crossed_mean(means[:, None])


def test_training_difference_by_hand() -> None:
    """One method's seeds differ by 0.2, cases by nothing: V is the seeds' variance alone."""
    first, second = np.zeros((6, 2)), np.tile([0.1, 0.3], (6, 1))
    found = training_difference(first, second)
    assert found.mean == pytest.approx(0.2) and found.degrees == pytest.approx(1)
    assert found.t == pytest.approx(0.2 / math.sqrt(0.02 / 2))
    assert training_difference(first, first).p_value == 1
    with pytest.raises(DataError, match="same number of seeds"):
        training_difference(first, np.zeros((6, 3)))


def test_training_chance_is_in_the_test() -> None:
    """At a spread between seeds of 0.01 and 100 cases the test keeps 5 %, and one over cases does not."""
    generator, found, by_case = np.random.default_rng(0), [], []
    for _ in range(400):
        case = generator.normal(0.85, 0.08, (100, 1))
        first, second = (
            case + generator.normal(0, 0.01, (1, 3)) + generator.normal(0, 0.03, (100, 3)) for _ in range(2)
        )
        found.append(training_difference(first, second).p_value)
        differences = second.mean(axis=1) - first.mean(axis=1)
        by_case.append(abs(differences.mean()) / differences.std(ddof=1) * 10 > 1.98)
    assert np.mean(np.array(found) <= 0.05) < 0.085 < 0.2 < np.mean(by_case)


def test_folds() -> None:
    found = fold_test([0.02, 0.03, 0.01, 0.04, 0.02], 0.25)
    values = np.array([0.02, 0.03, 0.01, 0.04, 0.02])
    assert found.t == pytest.approx(values.mean() / math.sqrt((0.2 + 0.25) * values.var(ddof=1)))
    assert fold_test([0.0, 0.0], 1).p_value == 1
    with pytest.raises(DataError, match="at least two"):
        fold_test([0.1], 0.25)


def test_bland_altman_by_hand() -> None:
    found = bland_altman(np.array([10.0, 20, 30, np.nan]), np.array([11.0, 22, 33, 5]))
    assert (found.bias, found.sd) == (2, 1)
    assert (found.lower, found.upper) == pytest.approx((0.04, 3.96))
    assert bland_altman(np.array([1.0]), np.array([2.0])).bias == 1
    assert math.isnan(bland_altman(np.empty(0), np.empty(0)).bias)


def test_ranks() -> None:
    scores = np.array([[0.9, 0.8, 0.7], [0.8, 0.7, 0.6], [0.8, 0.7, 0.6]])
    found = rank_stability(scores, draws=100)
    assert found.ranks.tolist() == [1, 2, 2] and found.winner_wins == 1 and found.kendall_tau == pytest.approx(1)
    assert found.shares.tolist() == [[1, 0, 0], [0, 1, 0], [0, 1, 0]]
    assert rank_stability(scores, draws=100, higher_is_better=False).ranks.tolist() == [3, 1, 1]
    scores[0, 0] = np.nan
    assert rank_stability(scores, draws=100).ranks.tolist() == [3, 1, 1]
    with pytest.raises(DataError, match="needs three"):
        average_ranks(scores[:2])
