"""Bootstrap intervals of mean scores."""

import math

import numpy as np
import pytest

from medseg.metrics import mean_interval, median_interval


def test_known_normal_case():
    """For a mean of many values the bootstrap agrees with the normal interval, 1.96 standard errors either way."""
    values = np.random.default_rng(3).normal(0.8, 0.1, 400)
    interval = mean_interval(values, draws=4000)
    error = values.std() / math.sqrt(len(values))
    assert interval.mean == pytest.approx(values.mean(), abs=1e-12)
    assert interval.low == pytest.approx(values.mean() - 1.96 * error, abs=0.1 * error)
    assert interval.high == pytest.approx(values.mean() + 1.96 * error, abs=0.1 * error)


def test_two_cases_by_hand():
    """Of two cases a draw holds 00, 01, 10 or 11: a quarter of the means at either end."""
    interval = mean_interval(np.array([0.0, 1.0]))
    assert interval == (0.5, 0.0, 1.0)
    assert mean_interval(np.array([0.0, 1.0]), level=0.4) == (0.5, 0.5, 0.5)


def test_labels_first_then_mean():
    """A case without a label leaves only that label's mean: (0.2 + mean(0.8, 0.6)) / 2, not the mean of all three."""
    scores = np.array([[0.2, 0.8], [np.nan, 0.6]])
    assert mean_interval(scores).mean == pytest.approx((0.2 + 0.7) / 2)


def test_labels_of_a_case_stay_together():
    """Labels that mirror each other sum to the same in every draw, so nothing varies."""
    first = np.linspace(0, 1, 20)
    interval = mean_interval(np.stack([first, 1 - first], axis=1))
    assert interval.low == pytest.approx(0.5) and interval.high == pytest.approx(0.5)


def test_seed():
    values = np.linspace(0.3, 0.9, 15)
    assert mean_interval(values) == mean_interval(values)
    assert mean_interval(values) != mean_interval(values, seed=1)


@pytest.mark.parametrize(("scores", "mean"), [([], math.nan), ([math.nan], math.nan), ([0.7], 0.7)])
def test_too_few(scores, mean):
    interval = mean_interval(np.array(scores, dtype=float))
    assert interval.mean == pytest.approx(mean, nan_ok=True)
    assert math.isnan(interval.low) and math.isnan(interval.high)


def test_median_by_order_statistics():
    """Of 11 values the bounds are the second and the tenth: P(2 <= Binomial(11, 1/2) <= 9) = 0.988, and one value
    further in 0.935 would be too little.
    """
    values = [3, 1, 4, 11, 5, 9, 2, 6, 8, 7, 10]
    assert median_interval(values) == (6, 2, 10)
    assert sum(math.comb(11, k) for k in range(2, 10)) / 2**11 > 0.95
    assert sum(math.comb(11, k) for k in range(3, 9)) / 2**11 < 0.95
    assert math.isnan(median_interval(values[:5]).low)
