"""The recipe of QTSeg for photographs (arXiv 2412.17241): resize, colours, padding to a square, grey levels to [-1, 1],
and up to four of ten augmentations.

``preprocessing`` and ``augmentation`` of ``recipes`` are the plan's choice for any data set; these are for bundles that
keep the published setting. Of imgaug's parameters, MONAI's transforms draw the same ranges, but other numbers; the
grid of ``RandZoomd`` and ``RandAffined`` is about the centre as there.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai import transforms as mt
from monai.config import KeysCollection
from monai.transforms import Randomizable, Transform
from monai.utils import convert_to_tensor

from medseg.errors import ConfigError
from medseg.labels import LabelSpace
from medseg.transforms.colors import RGBToYCrCbd
from medseg.transforms.each_key import EachKey
from medseg.transforms.picture import ToRGBd
from medseg.transforms.recipes import load
from medseg.transforms.resize import AreaResized

__all__ = ["RandLinearContrastd", "RandSharedNoised", "photo_augmentation", "photo_preprocessing"]


def photo_preprocessing(
    keys: Sequence[str],
    *,
    size: int | Sequence[int] = 512,
    fit: str = "longest",
    color: str = "rgb",
    label_space: LabelSpace | None = None,
    random: Sequence[Transform] = (),
) -> list[Transform]:
    """Load in colour, resize, change colours, pad, augment, scale.

    Args:
        keys: ``["image"]`` or ``["image", "label"]``.
        size: side length of the result in pixels, or a config's ``roi_size``, whose axes are equal.
        fit: ``longest``: the longest side becomes ``size``, zeros at the bottom and right make a square, and the
            image's smallest and largest value, padding included, become -1 and 1 (versions 0.3). ``stretch``: both
            sides become ``size``, and 0 and 255 become -1 and 1 (versions 0.1 and 0.2).
        color: ``rgb`` or ``ycrcb`` (the published skin lesion setting); padding is zero in that space.
        label_space: needed with a label.
        random: ``photo_augmentation``, for training; the result then is plain tensors.

    Raises:
        ConfigError: an unknown ``fit`` or ``color``.
    """
    if color not in ("rgb", "ycrcb"):
        raise ConfigError(f"color is '{color}'; use 'rgb' or 'ycrcb'.")
    size = _side(size)
    steps = [*load(keys, label_space), ToRGBd("image"), AreaResized(keys, size, fit)]
    if color == "ycrcb":
        steps.append(RGBToYCrCbd("image"))
    if fit == "longest":
        steps.append(mt.SpatialPadd(keys, spatial_size=(size, size), method="end"))
    steps += random
    if fit == "longest":
        steps.append(mt.ScaleIntensityd("image", minv=-1.0, maxv=1.0))
    else:
        steps.append(mt.ScaleIntensityRanged("image", a_min=0.0, a_max=255.0, b_min=-1.0, b_max=1.0))
    if random:
        steps += [
            mt.SelectItemsd([*keys, "case_id"]),
            mt.EnsureTyped(keys, dtype=[torch.float32, torch.int16][: len(keys)], track_meta=False),
        ]
    return steps


def _side(size: int | Sequence[int]) -> int:
    return size if isinstance(size, int) else size[0]


def photo_augmentation(size: int | Sequence[int] = 512) -> list[Transform]:
    """None to four of ten changes, in random order, of an image of 0..255 and its label, before scaling.

    Flips; noise and blur; contrast; scale, rotation, shear, shift, and a distortion by 4 x 4 points, outside zero.

    ``size`` is that of ``photo_preprocessing``.
    """
    size = _side(size)
    keys = ["image", "label"]
    warp: dict[str, Any] = {"prob": 1.0, "mode": ["bilinear", "nearest"], "padding_mode": "zeros"}
    choices: list[Transform] = [
        mt.RandFlipd(keys, prob=0.5, spatial_axis=0),
        mt.RandFlipd(keys, prob=0.5, spatial_axis=1),
        RandSharedNoised("image", std=1.275),
        mt.GaussianSmoothd("image", sigma=1.0),
        RandLinearContrastd("image", factors=(0.5, 1.5)),
        mt.RandZoomd(
            keys,
            prob=1.0,
            min_zoom=(0.5, 0.5),
            max_zoom=(2.0, 2.0),
            mode=["bilinear", "nearest"],
            padding_mode="constant",
        ),
        mt.RandAffined(keys, rotate_range=math.radians(40), **warp),
        mt.RandAffined(
            keys, shear_range=[(0.0, 0.0), (-math.tan(math.radians(16)), math.tan(math.radians(16)))], **warp
        ),
        mt.RandAffined(keys, translate_range=(0.2 * size, 0.2 * size), **warp),
        mt.Rand2DElasticd(keys, spacing=(size / 4, size / 4), magnitude_range=(0.008 * size, 0.03 * size), **warp),
    ]
    return [mt.SomeOf(choices, num_transforms=(0, 4))]


class RandSharedNoised(EachKey, Randomizable):
    """Add Gaussian noise, the same in all channels of ``(C, H, W)``.

    Args:
        keys: what to change.
        std: standard deviation in grey levels.
    """

    def __init__(self, keys: KeysCollection, std: float, allow_missing_keys: bool = False) -> None:
        EachKey.__init__(self, keys, allow_missing_keys)
        self.std = std

    def change(self, value: Any, data: Mapping[Hashable, Any]) -> Any:
        image = convert_to_tensor(value, track_meta=True)
        noise = self.R.normal(0.0, self.std, size=tuple(image.shape[1:]))
        return image + torch.as_tensor(noise, dtype=image.dtype)


class RandLinearContrastd(EachKey, Randomizable):
    """``127 + a (v - 127)`` of an image of 0..255, clipped; ``a`` uniform, one for all channels or, as often, one each.

    Args:
        keys: what to change.
        factors: range of ``a``.
    """

    def __init__(self, keys: KeysCollection, factors: tuple[float, float], allow_missing_keys: bool = False) -> None:
        EachKey.__init__(self, keys, allow_missing_keys)
        self.factors = factors

    def change(self, value: Any, data: Mapping[Hashable, Any]) -> Any:
        image = convert_to_tensor(value, track_meta=True)
        count = image.shape[0] if self.R.uniform() < 0.5 else 1
        factor = torch.as_tensor(self.R.uniform(*self.factors, size=(count, 1, 1)), dtype=image.dtype)
        return (127 + factor * (image - 127)).clamp(0, 255)
