"""The CT recipe of the BTCV literature (UNETR, Swin UNETR, SSH-UNet): a fixed HU window to [0, 1], crops around
positive and negative voxels, flips, quarter turns, intensity scale and shift.

``preprocessing`` and ``augmentation`` of ``recipes`` are the plan's choice for any data set; these are for bundles
that keep a published setting. One thing is mended: padding to the window comes last, so that no volume is too small
for a crop and the padding is air, not 0 HU.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from monai import transforms as mt
from monai.transforms import InvertibleTransform, Transform

from medseg.labels import LabelSpace
from medseg.transforms.label import LogitsToLabelsd
from medseg.transforms.recipes import load
from medseg.transforms.save import SaveLabelsd

__all__ = ["window_augmentation", "window_postprocessing", "window_preprocessing"]


def window_preprocessing(
    keys: Sequence[str],
    *,
    window: Sequence[float],
    spacing: Sequence[float],
    roi_size: Sequence[int],
    label_space: LabelSpace | None = None,
) -> list[Transform]:
    """Load, orient to RAS, resample, map the window to [0, 1], crop to where the result is above 0, pad.

    Args:
        keys: ``["image"]`` or ``["image", "label"]``.
        window: lower and upper intensity (CT: HU); values outside are clipped.
        spacing: target spacing in mm.
        roi_size: smallest size after padding, in voxels.
        label_space: needed with a label.
    """
    low, high = window
    modes = ["bilinear" if key == "image" else "nearest" for key in keys]
    return [
        *load(keys, label_space),
        mt.Orientationd(keys, axcodes="RAS", labels=None),
        mt.Spacingd(keys, pixdim=tuple(spacing), mode=modes),
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
    """Crops with a label voxel or, as often, a background voxel above the window's lower end at the centre; flips of
    each axis, quarter turns in the axial plane, intensity times 1 ± 0.1, plus ± 0.1; plain tensors out.

    Args:
        roi_size: crop size in voxels; the first two must be equal, for the quarter turns.
        samples_per_case: crops per case and iteration.
        flip, quarter_turn, scale, shift: probability of each.
    """
    keys = ["image", "label"]
    return [
        mt.RandCropByPosNegLabeld(
            keys,
            label_key="label",
            spatial_size=tuple(roi_size),
            pos=1,
            neg=1,
            num_samples=samples_per_case,
            image_key="image",
            image_threshold=0,
        ),
        *(mt.RandFlipd(keys, prob=flip, spatial_axis=axis) for axis in range(len(roi_size))),
        mt.RandRotate90d(keys, prob=quarter_turn, max_k=3),
        mt.RandScaleIntensityd("image", factors=0.1, prob=scale),
        mt.RandShiftIntensityd("image", offsets=0.1, prob=shift),
        mt.SelectItemsd([*keys, "case_id"]),
        mt.EnsureTyped(keys, track_meta=False),
    ]


def window_postprocessing(
    preprocessing: InvertibleTransform, label_space: LabelSpace, output_dir: str | Path
) -> list[Transform]:
    """SSH-UNet's published protocol: logits (not probabilities) linearly to the source grid, argmax, the largest
    component of each label, saved.

    Args:
        preprocessing: what took the image from the source grid.
        label_space: of the logits.
        output_dir: of the label maps.
    """
    return [
        mt.Invertd("pred", transform=preprocessing, orig_keys="image", nearest_interp=False),
        LogitsToLabelsd("pred", label_space),
        mt.KeepLargestConnectedComponentd("pred"),
        SaveLabelsd("pred", output_dir, label_space),
    ]
