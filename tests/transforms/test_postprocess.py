"""Cleaning of label maps against maps drawn by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from medseg.errors import ConfigError
from medseg.labels import LabelSpace
from medseg.transforms import CleanLabelsd, CleanRule, clean_labels, clean_mask

SPACE = LabelSpace.from_table({"labels": {"background": 0, "liver": 1, "tumour": 2}})
DRAWN = """
1 1 1 1 1 . . . 1
1 . . . 1 . . . .
1 . 2 . 1 . 2 . .
1 . . . 1 . . . .
1 1 1 1 1 . . 1 1
. . . . . 2 2 . .
"""


def drawn(text: str) -> np.ndarray:
    return np.array([[0 if c == "." else int(c) for c in row.split()] for row in text.strip().splitlines()], np.int16)


def cleaned(rules: dict[str, CleanRule], spacing: tuple[float, ...] = (1.0, 1.0)) -> np.ndarray:
    return clean_labels(drawn(DRAWN), rules, SPACE, spacing)


def test_the_largest_component_stays() -> None:
    result = cleaned({"liver": CleanRule(keep_largest=True)})
    changed = drawn(DRAWN) != result
    assert set(zip(*np.nonzero(changed), strict=True)) == {(0, 8), (4, 7), (4, 8)}
    assert not result[changed].any()


def test_only_background_is_filled_and_other_labels_stay() -> None:
    result = cleaned({"liver": CleanRule(fill_holes=True)})
    assert (result[1:4, 1:4] == np.array([[1, 1, 1], [1, 2, 1], [1, 1, 1]])).all()
    assert np.count_nonzero(result != drawn(DRAWN)) == 8


def test_sizes_are_physical() -> None:
    """Tumours of 1, 1 and 2 voxels: at 1.5 mm² per voxel, 3 mm² keeps the last one only."""
    assert np.count_nonzero(cleaned({"tumour": CleanRule(min_size=2.0)}) == 2) == 2
    assert np.count_nonzero(cleaned({"tumour": CleanRule(min_size=1.5)}, (1.0, 1.5)) == 2) == 4
    assert np.count_nonzero(cleaned({"tumour": CleanRule(min_size=3.0)}, (1.0, 1.5)) == 2) == 2
    assert np.count_nonzero(cleaned({"tumour": CleanRule(min_size=3.1)}, (1.0, 1.5)) == 2) == 0


def test_corners_connect_and_open_holes_stay() -> None:
    ring = drawn("1 1 . .\n1 . 1 .\n1 1 . .\n. . . 1") == 1
    assert clean_mask(ring, CleanRule(keep_largest=True), (1, 1)).sum() == 6  # the last pixel touches nothing
    assert clean_mask(ring, CleanRule(min_size=2), (1, 1)).sum() == 6
    beside = drawn("1 1 1\n. . 1\n1 1 1") == 1
    assert clean_mask(beside, CleanRule(fill_holes=True), (1, 1)).sum() == 7


def test_the_dictionary_transform_takes_sizes_from_the_map_and_leaves_its_input() -> None:
    values = torch.from_numpy(np.stack([drawn(DRAWN)] * 2, axis=-1))[None]
    affine = torch.diag(torch.tensor([1.0, 1.0, 4.0, 1.0]))
    source = MetaTensor(values.clone(), affine=affine)
    rules = {"tumour": {"min_size": 12.0}, "liver": {"keep_largest": True, "fill_holes": False}}
    result = CleanLabelsd("pred", SPACE, rules)({"pred": source, "other": 1})
    assert torch.equal(source.as_tensor(), values)
    assert result["pred"].dtype == torch.int16 and torch.equal(result["pred"].affine, affine)
    # A tumour of 2 x 1 voxels of 4 mm³ is 8, one of 2 x 2 is 16.
    assert int((result["pred"] == 2).sum()) == 4
    assert int((result["pred"] == 1).sum()) == 2 * 16


@pytest.mark.parametrize(
    ("rules", "sentence"),
    [
        ({"livr": {}}, "label 'livr', not declared. Did you mean 'liver'"),
        ({"liver": {"keep_lagest": True}}, "no step 'keep_lagest'. Did you mean 'keep_largest'"),
        ({"liver": {"min_size": "big"}}, "min_size is 'big'; expected a size from 0 on"),
        ({"liver": {"fill_holes": 1}}, "fill_holes is 1; expected true or false"),
    ],
)
def test_bad_rules_are_refused(rules: dict, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        CleanLabelsd("pred", SPACE, rules)
