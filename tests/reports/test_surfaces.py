"""Surfaces of labels: what lies in front is seen, what lies behind shines through."""

import numpy as np

from medseg.reports.surfaces import surfaces

RED, BLUE = "#ff0000", "#0000ff"


def test_what_is_seen_from_both_ends():
    labels = np.zeros((12, 10, 8), int)
    labels[2:10, 2:8, 1:3] = 1  # near the start of the last axis
    labels[4:6, 3:7, 5:7] = 2
    start, end = (surfaces(labels, (1, 1, 2), 2, [RED, BLUE], from_end=end) for end in (False, True))
    assert start.shape == (10, 12, 3) and not start[0].any() and 0 < start.max() <= 1
    assert start[5, 8, 0] > 0.3 and start[5, 8, 2] == 0  # red alone
    assert start[5, 5, 0] > start[5, 5, 2] > 0 and end[5, 5, 2] > end[5, 5, 0] > 0
    assert not surfaces(labels * 0, (1, 1, 2), 0, [RED, BLUE], from_end=True).any()


def test_a_slope_towards_the_light_is_brighter():
    x, _, z = np.indices((20, 20, 20))
    roof = (z > abs(x - 10)).astype(int)
    seen = surfaces(roof, (1, 1, 1), 2, [RED], from_end=False)[10, :, 0]
    assert seen[5] > 2 * seen[15] > 0
