"""The augmentations of the recipes, and cases for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from monai import transforms as mt
from monai.bundle import ConfigParser

from medseg.bundle.build import BundleRecipe
from medseg.labels import LabelSpace

SPACE = LabelSpace.from_table({"labels": {"background": 0, "a": 1, "b": 2}, "ignore": [255]})


def steps_of(name: str, roi: Sequence[int], likely: float | None = None) -> list[Any]:
    """The augmentation of a recipe; ``likely``: probability of all its changes but noise and mirror images."""
    dims = len(roi)
    stated = BundleRecipe(("generated", name), ()).config("train").tree["augment"]
    filled = {"roi_size": list(roi), "foreground": 0.33, "coarse_axis": None, "label_space": None, "flip_axes": [0]}
    open_ = {"samples_per_case": 1, "mirror_axes": [*range(dims)], "flip_axes": [*range(dims)], "rotate": 0.5}
    augment = {**stated, **{k: v for k, v in open_.items() if k in stated}}
    if likely is not None:
        augment["intensity"] = [
            {**one, "prob": likely} for one in augment["intensity"] if one["_target_"] != "RandGaussianNoised"
        ]
        if "affine_prob" in augment:
            augment["affine_prob"] = likely
        else:
            augment["spatial"] = {**augment["spatial"], "rotation_prob": likely, "scaling_prob": likely}
    return list(ConfigParser({**filled, "augment": augment}).get_parsed_content("augment")(label_space=SPACE))


def case(roi: Sequence[int], number: int = 0) -> dict[str, Any]:
    """Smooth structures in two channels, larger than the patch, and labels of them, ignored ones included."""
    generator = torch.Generator().manual_seed(number)
    size = [n + 3 for n in roi]
    noise = torch.randn(2, *size, generator=generator)
    image = mt.GaussianSmooth(1.5)(noise) * 10
    label = (image[:1] > 0).short() + (image[:1] > 1).short()
    label[image[:1] < -1.5] = -1
    return {"image": image, "label": label, "case_id": f"c{number}"}
