"""Noise of scale factors and floating point is taken off label values; every other fraction stays to be refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from medseg.errors import DataError
from medseg.labels import LabelSpace, whole_values

_SPACE = LabelSpace.from_table({"labels": {"background": 0, "object": 1, "other": 3}})


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.longdouble])
def test_near_numbers_are_rounded_and_others_stay(dtype: Any) -> None:
    raw = np.asfortranarray(np.array([[0, 1.0000000591, 0.99999], [-1e-9, 2.995, 0.6]], dtype))
    values = whole_values(raw)
    np.testing.assert_allclose(values, [[0, 1, 1], [0, 3, 0.6]], atol=1e-7)
    assert values.flags.f_contiguous
    assert not np.signbit(values[1, 0])


def test_odd_numbers_are_not_touched() -> None:
    raw = np.array([np.nan, np.inf, -np.inf, 0.02])
    np.testing.assert_array_equal(whole_values(raw), raw)
    assert whole_values(raw) is raw  # no copy without a change


@pytest.mark.parametrize("dtype", ["?", "u1", "i1", ">i2", "u2", "<u4", "i8", "u8", ">f4", "f8"])
def test_any_type_encodes_alike(dtype: str) -> None:
    raw = np.array([[0, 1], [1, 0]]).astype(dtype)
    assert _SPACE.encode(raw).tolist() == [[0, 1], [1, 0]]


def test_large_integers_keep_every_digit() -> None:
    space = LabelSpace.from_table({"labels": {"background": 0, "object": 2**24}})
    with pytest.raises(DataError, match="not declared"):
        space.encode(np.array([0, 2**24 + 1]))


def test_encoding_rounds_and_refuses() -> None:
    assert _SPACE.encode(np.array([0, 1.00000006, 0.99999, 2.999])).tolist() == [0, 1, 1, 2]
    with pytest.raises(DataError, match=r"\{0.6\} are not declared"):
        _SPACE.encode(np.array([0, 0.6]))


@pytest.mark.parametrize(
    ("members", "sentence"),
    [
        ([4], "Region 'TC' uses label 4; expected names of declared labels."),
        (3, "Region 'TC' uses label 3; expected names of declared labels. Write 'other' for it."),
        ([["object"]], "Region 'TC' uses label"),
        (None, "Region 'TC' uses label None"),
    ],
)
def test_regions_hold_names(members: Any, sentence: str) -> None:
    with pytest.raises(DataError) as error:
        LabelSpace.from_table({"labels": {"background": 0, "object": 1, "other": 3}, "regions": {"TC": members}})
    assert sentence in str(error.value)
