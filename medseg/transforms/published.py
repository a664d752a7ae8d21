"""The CT recipe of the BTCV literature (UNETR, Swin UNETR, SSH-UNet): a fixed HU window to [0, 1], crops around
positive and negative voxels, flips, quarter turns, intensity scale and shift; and that of 3D UX-Net and 3D RepUX-Net,
which crops the same and then rotates, scales and shifts intensities.

``preprocessing`` and ``augmentation`` of ``recipes`` are the plan's choice for any data set; these are for bundles
that keep a published setting. One thing is fixed: padding to the patch comes last, so that no volume is too small
for a crop and the padding is air, not 0 HU.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from monai import transforms as mt
from monai.transforms import Transform

from medseg.labels import LabelSpace
from medseg.transforms.recipes import load
from medseg.transforms.spacing import OwnSpacingd

__all__ = ["window_affine_augmentation", "window_augmentation", "window_preprocessing"]


def window_preprocessing(
    keys: Sequence[str],
    *,
    window: Sequence[float],
    spacing: Sequence[float] | None,
    roi_size: Sequence[int],
    label_space: LabelSpace | None = None,
    spacing_first: bool = False,
) -> list[Transform]:
    """Load, orient to RAS, resample, map the intensity window to [0, 1], crop to where the result is above 0, pad.

    Args:
        keys: ``["image"]`` or ``["image", "label"]``.
        window: lower and upper intensity (CT: HU); values outside are clipped.
        spacing: target spacing in mm; ``None`` leaves the grid as it is.
        roi_size: smallest size after padding, in voxels.
        label_space: needed with a label.
        spacing_first: resample before the axes are turned, so that ``spacing`` is in the file's order of axes.
    """
    low, high = window
    modes = ["bilinear" if key == "image" else "nearest" for key in keys]
    grid: list[Transform] = [mt.Orientationd(keys, axcodes="RAS", labels=None)]
    if spacing is not None:
        grid.insert(0 if spacing_first else 1, OwnSpacingd(keys, pixdim=tuple(spacing), mode=modes))
    return [
        *load(keys, label_space),
        *grid,
        mt.ScaleIntensityRanged("image", a_min=low, a_max=high, b_min=0.0, b_max=1.0, clip=True),
        mt.CropForegroundd(keys, source_key="image", allow_smaller=True),
        mt.SpatialPadd(keys, spatial_size=tuple(roi_size), mode="constant"),
    ]


def window_augmentation(
    roi_size: Sequence[int],
    *,
    samples_per_case: int = 4,
    flip: float = 0.1,
    quarter_turn: float = 0.1,
    scale: float = 0.5,
    shift: float = 0.5,
) -> list[Transform]:
    """Crops with a label voxel or, as often, a background voxel above the intensity window's lower end at the centre;
    flips of each axis, quarter turns in the axial plane, intensity times 1 ± 0.1, plus ± 0.1; plain tensors out.

    Args:
        roi_size: crop size in voxels; the first two must be equal, for the quarter turns.
        samples_per_case: crops per case and iteration.
        flip, quarter_turn, scale, shift: probability of each.
    """
    keys = ["image", "label"]
    return [
        _crops(keys, roi_size, samples_per_case),
        *(mt.RandFlipd(keys, prob=flip, spatial_axis=axis) for axis in range(len(roi_size))),
        mt.RandRotate90d(keys, prob=quarter_turn, max_k=3),
        mt.RandScaleIntensityd("image", factors=0.1, prob=scale),
        mt.RandShiftIntensityd("image", offsets=0.1, prob=shift),
        mt.SelectItemsd([*keys, "case_id"]),
        mt.EnsureTyped(keys, track_meta=False),
    ]


def window_affine_augmentation(
    roi_size: Sequence[int],
    *,
    samples_per_case: int = 2,
    rotate: float = math.pi / 30,
    scale: float = 0.1,
    shift: float = 0.5,
) -> list[Transform]:
    """The crops of ``window_augmentation``; intensity plus ± 0.1; a turn about the third axis and a change of size of
    every crop, mirrored at the border; plain tensors out. Source: 3D UX-Net (ICLR 2023) and 3D RepUX-Net (MICCAI 2023).

    Args:
        roi_size: crop size in voxels.
        samples_per_case: crops per case and iteration.
        rotate: largest angle in radians.
        scale: largest relative change of each axis.
        shift: probability of the intensity shift.
    """
    keys = ["image", "label"]
    return [
        _crops(keys, roi_size, samples_per_case),
        mt.RandShiftIntensityd("image", offsets=0.1, prob=shift),
        mt.RandAffined(
            keys,
            prob=1.0,
            rotate_range=(0.0, 0.0, rotate),
            scale_range=(scale,) * len(roi_size),
            spatial_size=tuple(roi_size),
            mode=["bilinear", "nearest"],
            padding_mode="reflection",
        ),
        mt.SelectItemsd([*keys, "case_id"]),
        mt.EnsureTyped(keys, track_meta=False),
    ]


def _crops(keys: Sequence[str], roi_size: Sequence[int], number: int) -> Transform:
    """Crops whose centre is a label voxel, or as often a background voxel above the intensity window's lower end."""
    return mt.RandCropByPosNegLabeld(
        keys,
        label_key="label",
        spatial_size=tuple(roi_size),
        pos=1,
        neg=1,
        num_samples=number,
        image_key="image",
        image_threshold=0,
    )
