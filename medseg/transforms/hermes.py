"""The Hermes recipe (arXiv 2306.02416) for several data sets together: 1.5 mm, z-scores after clipping by modality,
crops with affine and intensity changes. One thing is different: images are really turned to RAS, unless told otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai import transforms as mt
from monai.config import KeysCollection
from monai.transforms import MapTransform, Transform

from medseg.errors import ConfigError, nearest
from medseg.labels import LabelSpace
from medseg.transforms.file_order import FileOrderd
from medseg.transforms.grid import SameGridd
from medseg.transforms.hermes_affine import RandHermesAffined
from medseg.transforms.hermes_intensity import RandHermesIntensityd
from medseg.transforms.intensity import NormalizeChannelsd
from medseg.transforms.recipes import load
from medseg.transforms.spacing import OwnSpacingd
from medseg.transforms.tasks import CaseFactsd

__all__ = ["HERMES_NORMALIZATION", "EqualPad", "NormalizeByModalityd", "hermes_augmentation", "hermes_preprocessing"]

_MARGIN = 30  # voxels that the first crop is larger than the patch, for what rotation cuts off

# HU for CT; percentiles of the volume for everything else.
HERMES_NORMALIZATION: dict[str, list[dict[str, Any]]] = {
    "ct": [{"kind": "case", "lower": -991, "upper": 500}],
    "default": [{"kind": "case", "percentiles": [2, 98]}],
}


class NormalizeByModalityd(MapTransform):
    """``NormalizeChannelsd`` with the schemes of the case's ``modality``, or those of ``default``.

    Raises:
        ConfigError: neither has any.
    """

    def __init__(
        self, keys: KeysCollection, schemes: Mapping[str, Sequence[Mapping[str, Any]]], allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.normalize = {name: NormalizeChannelsd(keys, found, allow_missing_keys) for name, found in schemes.items()}

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        modality = str(data.get("modality", ""))
        chosen = self.normalize.get(modality, self.normalize.get("default"))
        if chosen is None:
            raise ConfigError(
                f"No normalisation for modality '{modality}'.{nearest(modality, self.normalize)} Add it, or 'default'."
            )
        return chosen(data)


class EqualPad(mt.Pad):
    """Zeros to at least ``roi_size``, as many before as after: 127 voxels become 129 for 128."""

    def __init__(self, roi_size: Sequence[int], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.roi_size = tuple(roi_size)

    def compute_pad_width(self, spatial_shape: Sequence[int]) -> Any:
        sides = [max(0, math.ceil((r - n) / 2)) for r, n in zip(self.roi_size, spatial_shape, strict=True)]
        return ((0, 0), *((side, side) for side in sides))


def hermes_preprocessing(
    keys: Sequence[str],
    *,
    roi_size: Sequence[int] = (128, 128, 128),
    spacing: Sequence[float] = (1.5, 1.5, 1.5),
    normalization: Mapping[str, Sequence[Mapping[str, Any]]] = HERMES_NORMALIZATION,
    label_context: Sequence[int] | None = None,
    axcodes: str | None = "RAS",
    label_space: LabelSpace | None = None,
) -> list[Transform]:
    """Load, orient, resample, normalise by modality, pad to ``roi_size``.

    Args:
        keys: ``["image"]`` or ``["image", "label"]``.
        roi_size: smallest size after padding, in voxels.
        spacing: in mm.
        normalization: modality, or ``default``, -> one scheme per channel (``NormalizeChannelsd``).
        label_context: crop to the label's bounding box and so many voxels around it, per axis, as the published
            training *and evaluation* do; it needs a label, and makes test cases easier. ``None`` crops nothing.
        axcodes: direction of the array axes; ``None`` is the file's own order, last axis first, which the published
            weights were trained on.
        label_space: needed with a label.
    """
    steps = [CaseFactsd(), *load(keys, label_space)]
    modes = ["bilinear" if key == "image" else "nearest" for key in keys]
    if "label" in keys:
        steps.append(SameGridd())
    steps += [
        FileOrderd(keys) if axcodes is None else mt.Orientationd(keys, axcodes=axcodes, labels=None),
        OwnSpacingd(keys, pixdim=tuple(spacing), mode=modes, padding_mode="border"),
    ]
    if "label" in keys:
        steps.append(mt.CastToTyped("label", torch.int16))
        if label_context is not None:
            steps.append(mt.CropForegroundd(keys, source_key="label", margin=list(label_context), allow_smaller=True))
    steps += [NormalizeByModalityd("image", normalization), mt.Padd(keys, EqualPad(roi_size))]
    return steps


def hermes_augmentation(
    roi_size: Sequence[int] = (128, 128, 128),
    *,
    affine: float = 0.5,
    intensity: float = 0.1,
    intensity_of: Mapping[str, float] | None = None,
) -> list[Transform]:
    """A random crop, an affine map of it or a smaller crop, intensity changes; plain tensors out.

    Args:
        roi_size: crop size in voxels.
        affine: chance of the affine map.
        intensity, intensity_of: ``prob`` and ``prob_of`` of ``RandHermesIntensityd``.
    """
    keys = ["image", "label"]
    return [
        mt.RandSpatialCropd(keys, roi_size=[n + _MARGIN for n in roi_size], random_size=False),
        RandHermesAffined(keys, roi_size, modes=["bilinear", "nearest"], prob=affine),
        RandHermesIntensityd("image", intensity, intensity_of),
        mt.SelectItemsd([*keys, "case_id", "dataset", "modality"]),
        mt.EnsureTyped(keys, dtype=[torch.float32, torch.int16], track_meta=False),
    ]
