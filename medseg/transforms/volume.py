"""The recipe of the neural-operator publications for whole volumes (HNOSeg-XS, arXiv 2507.08205).

A volume keeps its field of view and is resized as a whole; there are no crops and no patches. ``preprocessing`` and
``augmentation`` of ``recipes`` are the plan's choice for any data set; these are for bundles that keep the published
setting.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from monai import transforms as mt
from monai.transforms import Transform

from medseg.labels import LabelSpace
from medseg.transforms.grid import SameGridd
from medseg.transforms.intensity import NormalizeChannelsd
from medseg.transforms.nearest_affine import RandNearestAffined
from medseg.transforms.recipes import load
from medseg.transforms.scale import ScaleSized

__all__ = ["volume_augmentation", "volume_preprocessing"]


def volume_preprocessing(
    keys: Sequence[str],
    *,
    normalization: Sequence[Mapping[str, Any]],
    axcodes: str = "SPL",
    size: Sequence[int] | None = None,
    scale: float = 1.0,
    mode: str = "nearest",
    label_space: LabelSpace | None = None,
) -> list[Transform]:
    """Load, orient, resize, normalise.

    Args:
        keys: ``["image"]`` or ``["image", "label"]``.
        normalization: one scheme per channel, see ``NormalizeChannelsd``.
        axcodes: direction of the array axes. ``SPL`` is the publications' order (depth, height, width) for files such
            as those of BraTS, so that their weights fit.
        size: voxels along these axes before ``scale``; ``None`` is each volume's own.
        scale: fraction of the voxels per axis.
        mode: interpolation, ``nearest`` as published or ``linear`` (``ScaleSized``).
        label_space: needed with a label.
    """
    steps = load(keys, label_space)
    if "label" in keys:
        steps.append(SameGridd())
    steps.append(mt.Orientationd(keys, axcodes=axcodes, labels=None))
    if scale != 1 or size is not None:
        steps.append(ScaleSized(keys, scale, size, mode))
    if "label" in keys:
        steps.append(mt.CastToTyped("label", torch.int16))
    return [*steps, NormalizeChannelsd("image", normalization)]


def volume_augmentation(**settings: Any) -> list[Transform]:
    """``RandNearestAffined`` of image and label with ``settings``; plain tensors out."""
    keys = ["image", "label"]
    return [
        RandNearestAffined(keys, **settings),
        mt.SelectItemsd([*keys, "case_id"]),
        mt.EnsureTyped(keys, dtype=[torch.float32, torch.int16], track_meta=False),
    ]
