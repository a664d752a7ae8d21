"""The interval of a median against the binomial distribution."""

from __future__ import annotations

import math

from medseg.metrics import median_interval


def test_median_by_order_statistics() -> None:
    """Of 11 values the bounds are the second and the tenth: P(2 <= Binomial(11, 1/2) <= 9) = 0.988, and one value
    further in 0.935 would be too little.
    """
    values = [3, 1, 4, 11, 5, 9, 2, 6, 8, 7, 10]
    assert median_interval(values) == (6, 2, 10)
    assert sum(math.comb(11, k) for k in range(2, 10)) / 2**11 > 0.95
    assert sum(math.comb(11, k) for k in range(3, 9)) / 2**11 < 0.95
    assert math.isnan(median_interval(values[:5]).low)
