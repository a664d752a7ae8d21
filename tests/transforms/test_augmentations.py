"""What a training config augments: of every published recipe, of plain MONAI components, after overrides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from medseg.transforms.augmentations import describe_augmentation, trained_mirror_axes

BUNDLES = Path(__file__).parents[2] / "bundles"
PIPELINE = {"_target_": "medseg.transforms.pipeline", "of": "@preprocess", "keys": ["image", "label"]}
PLANNED = {"_target_": "medseg.transforms.augmentation", "roi_size": "@roi_size", "label_space": "@label_space"}
BRIGHTER = {"_target_": "RandScaleIntensityd", "keys": "image", "prob": 0.3, "factors": 0.2}
PLANNED |= {"intensity": [BRIGHTER]}


def config(transforms: Any = None, **augment: Any) -> dict[str, Any]:
    """A config of a planned bundle, or one whose chain is ``transforms``."""
    chain = {"_target_": "Compose", "transforms": transforms}
    return {
        "roi_size": [8, 8, 8],
        "labels": {"labels": {"background": 0, "a": 1}},
        "label_space": {"_target_": "medseg.labels.LabelSpace.from_table", "table": "@labels"},
        "preprocess": {"_target_": "medseg.transforms.preprocessing", "_mode_": "callable"},
        "augment": PLANNED | augment if transforms is None else augment,
        "train": {"preprocessing": PIPELINE | {"augment": "@augment"} if transforms is None else chain},
    }


@pytest.mark.parametrize(
    ("family", "axes", "said"),
    [
        ("ssh_unet", (0, 1, 2), "quarter turns"),
        ("uxnet", (), "rotation up to 0, 0, 0.1047 rad"),
        ("repuxnet", (), "2 crops of 96 × 96 × 96"),
        ("qtseg", (0, 1), "0 to 4 of: mirrored along axis 0 (probability 0.5)"),
        ("hermes", (), "amos_mr 0.2"),
        ("hnoseg", (), "zoom 0.8 to 1.2 (probability 0.8)"),
    ],
)
def test_published_recipes(family: str, axes: tuple[int, ...], said: str) -> None:
    found = sorted(BUNDLES.glob(f"{family}_*/configs/train.yaml"))
    assert found
    for path in found:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        assert trained_mirror_axes(content) == axes
        assert said in "; ".join(describe_augmentation(content) or [])


def test_no_published_recipe_is_unknown() -> None:
    paths = sorted(BUNDLES.glob("*/configs/train.yaml"))
    assert len(paths) >= 19
    assert all(describe_augmentation(yaml.safe_load(path.read_text(encoding="utf-8"))) for path in paths)


def test_the_planned_recipe_says_the_values_of_the_config() -> None:
    lines = "; ".join(describe_augmentation(config(flip_axes=[1, 2], rotate=[0.3, 0, 0], samples_per_case=3)) or [])
    assert "3 crops of 8 × 8 × 8" in lines
    assert "rotation up to 0.3, 0, 0 rad, size changed by up to 0.15, 0.15, 0.15 (probability 0.5)" in lines
    assert "mirrored along axis 1 (probability 0.5); mirrored along axis 2 (probability 0.5)" in lines
    assert "intensity times 0.8 to 1.2 (probability 0.3)" in lines
    assert "intensity" not in "; ".join(describe_augmentation(config(intensity=[])) or [])
    assert trained_mirror_axes(config(flip_axes=[1, 2])) == (1, 2)


FLIP = {"_target_": "RandFlipd", "keys": ["image", "label"]}


@pytest.mark.parametrize(
    ("transforms", "axes"),
    [
        ([{**FLIP, "prob": 0.5, "spatial_axis": 2}], (2,)),
        ([{**FLIP, "prob": 0.5, "spatial_axis": -1}], (2,)),
        ([{**FLIP, "prob": 0.0, "spatial_axis": 2}], ()),
        ([{**FLIP, "prob": 0.5, "spatial_axis": [0, 1]}], ()),  # only both at once: neither mirror image was seen
        ([{"_target_": "monai.transforms.RandAxisFlipd", "keys": "image", "prob": 0.2}], (0, 1, 2)),
        ([{"_target_": "Orientationd", "keys": "image", "axcodes": "RAS"}], ()),
        ([{"_target_": "my.package.Augment"}], None),
        ("$t.augmentation(@roi_size)", None),
    ],
)
def test_other_configs(transforms: Any, axes: tuple[int, ...] | None) -> None:
    assert trained_mirror_axes(config(transforms)) == axes


@pytest.mark.parametrize(
    ("changes", "axes"),
    [
        ({"augment": None}, ()),
        ({"augment": {**PLANNED, "flip_axes": [0]}}, (0,)),
        ({"augment": {**PLANNED, "flip_axis": [0]}}, None),
        ({"augment": {"_target_": "mine.augmentation"}}, None),
        ({"augment": "@absent"}, None),
        ({"of": {"_target_": "mine.preprocessing"}}, None),
    ],
)
def test_other_pipelines(changes: dict[str, Any], axes: tuple[int, ...] | None) -> None:
    content = config()
    content["train"]["preprocessing"] |= changes
    assert trained_mirror_axes(content) == axes
