"""Recipes: lists of MONAI dictionary transforms for CT, MR, PET and colour images, in 2D and 3D.

``preprocessing`` is deterministic (a cache holds its result, inference runs the same), ``augmentation`` is random.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from monai import transforms as mt
from monai.data import MetaTensor
from monai.transforms import Transform

from medseg.errors import ConfigError
from medseg.labels import LabelSpace
from medseg.transforms.cubic_spacing import CubicSpacingd
from medseg.transforms.grid import SameGridd
from medseg.transforms.intensity import NormalizeChannelsd
from medseg.transforms.label import EncodeLabelsd
from medseg.transforms.limits import axes_of, count, probability
from medseg.transforms.picture import ToGreyd, ToRGBd
from medseg.transforms.previous import PREVIOUS, PreviousMapd
from medseg.transforms.reader import VolumeReader
from medseg.transforms.scale import ScaleSized
from medseg.transforms.spacing import OwnSpacingd

__all__ = ["CROP_SAMPLES_PER_CLASS", "DRAWN", "augmentation", "in_plane", "load", "preprocessing"]

CROP_SAMPLES_PER_CLASS = 20_000  # voxel positions kept per class and case for drawing crop centres
DRAWN = "drawn"  # key of a case: the numbers of its changes that are made on the device, (N,) float32


def load(keys: Sequence[str], label_space: LabelSpace | None = None) -> list[Transform]:
    """Read files to channel-first float tensors; encode ``label`` by the label space."""
    encode = "label" in keys and label_space is not None
    steps: list[Transform] = [
        mt.LoadImaged(
            key,
            reader=VolumeReader(mask=key == "label"),  # type: ignore[arg-type]  # MONAI takes instances too
            dtype=None if encode and key == "label" else np.float32,  # labels: every digit
            ensure_channel_first=True,
            image_only=True,
            expanduser=False,  # an image in memory stays what it is
        )
        for key in keys
    ]
    if "label" in keys and label_space is not None:
        steps.append(EncodeLabelsd("label", label_space))
    return steps


def is_nonzero(image: Any) -> Any:
    return image != 0


def _resize(key: str, longest: int) -> Transform:
    image = key == "image"
    mode = "bilinear" if image else "nearest"
    return mt.Resized(key, spatial_size=longest, size_mode="longest", mode=mode, anti_aliasing=image)


def preprocessing(
    keys: Sequence[str],
    *,
    normalization: Sequence[Mapping[str, Any]],
    roi_size: Sequence[int],
    spacing: Sequence[float] | None = None,
    crop_foreground: bool = False,
    color: bool = False,
    longest: int | None = None,
    scale: float = 1.0,
    cubic: bool = False,
    slice_axis: int | None = None,
    label_space: LabelSpace | None = None,
    previous: Callable[[Mapping[Hashable, Any]], MetaTensor] | None = None,
) -> list[Transform]:
    """Load, orient to RAS, crop to non-zero, resample, normalise, pad to ``roi_size``.

    Args:
        keys: ``["image"]`` or ``["image", "label"]``.
        normalization: one scheme per channel, see ``NormalizeChannelsd``.
        roi_size: smallest size after padding, in voxels; images that are larger keep their size.
        spacing: target spacing in mm; ``None`` leaves the grid as it is (2D images).
        crop_foreground: crop to the bounding box of voxels that are not 0 in any channel, before normalisation.
        color: whether 2D images are in colour: grey ones become RGB, so that both kinds may be mixed.
        longest: number of pixels that the longer side of 2D images is resized to.
        scale: then shrink or enlarge to this fraction of the voxels per axis (``ScaleSized``), but for slice_axis.
        cubic: images are normalised first, then resampled by cubic splines and labels by their masks, as nnU-Net does
            (``CubicSpacingd``), instead of linearly and to the nearest before they are normalised.
        slice_axis: axis across slices that a 2D network sees one by one; along it every case keeps its spacing.
        label_space: needed with a label.
        previous: the stage before, whose label map goes with the image (``PreviousMapd``).
    """
    steps = load(keys, label_space)
    if previous is not None:
        steps.append(PreviousMapd(previous))
        keys = [*keys, PREVIOUS]
    modes = ["bilinear" if key == "image" else "nearest" for key in keys]
    if "label" in keys:
        steps.append(SameGridd())
    if color:
        steps.append(ToRGBd("image"))
    elif len(roi_size) == 2 and len(normalization) == 1:
        steps.append(ToGreyd("image"))
    if len(roi_size) == 3:
        steps.append(mt.Orientationd(keys, axcodes="RAS", labels=None))
    if crop_foreground:
        steps.append(mt.CropForegroundd(keys, source_key="image", select_fn=is_nonzero, allow_smaller=True))
    normalize = NormalizeChannelsd("image", normalization)
    if cubic:  # splines leave no voxel at 0, by which a z-score would tell the background
        steps.append(normalize)
    if spacing is not None:
        resample = CubicSpacingd if cubic else OwnSpacingd
        pixdim = [0.0 if axis == slice_axis else mm for axis, mm in enumerate(spacing)]  # MONAI: 0 keeps its own
        steps.append(resample(keys, pixdim=pixdim, mode=modes, padding_mode="border"))
    if longest is not None:
        steps += [_resize(key, longest) for key in keys]
    if scale != 1:
        steps.append(ScaleSized(keys, scale, kept_axis=slice_axis))
    if maps := [key for key in keys if key != "image"]:
        steps.append(mt.CastToTyped(maps, torch.int16))  # resampling makes float32; caches hold half of it
    if not cubic:
        steps.append(normalize)
    steps.append(mt.SpatialPadd(keys, spatial_size=tuple(roi_size), mode="constant"))
    return steps


def in_plane(intensity: Sequence[Transform], roi_size: Sequence[int]) -> list[Transform]:
    """Intensity changes whose blur sees a slice as a 2D image: MONAI's would take what a slice lacks beside it for 0.

    Args:
        intensity: transforms of the image.
        roi_size: a patch; a slice where a volume's has one voxel along an axis.
    """
    if len(roi_size) != 3 or 1 not in roi_size:
        return list(intensity)
    flat, back = (partial(change, dim=list(roi_size).index(1) + 1) for change in (torch.squeeze, torch.unsqueeze))
    around = (mt.Lambdad("image", flat), mt.Lambdad("image", back))
    wrapped = ([around[0], one, around[1]] if isinstance(one, mt.RandGaussianSmoothd) else [one] for one in intensity)
    return [step for steps in wrapped for step in steps]


def augmentation(
    roi_size: Sequence[int],
    *,
    label_space: LabelSpace,
    intensity: Sequence[Transform],
    flip_axes: Sequence[int] = (),
    rotate: float | Sequence[float] = 0.2,
    scale: float = 0.15,
    affine_prob: float = 0.5,
    samples_per_case: int = 1,
    keys: Sequence[str] = ("image", "label"),
) -> list[Transform]:
    """Class-balanced crops of ``roi_size``, small rotations and scalings, flips, intensity changes; plain tensors out.

    Args:
        roi_size: crop size in voxels.
        label_space: crop centres are drawn by label, background included.
        intensity: random transforms of the image, in their order.
        flip_axes: spatial axes to mirror with probability 0.5 each.
        rotate: largest rotation in radians, one number or one per axis.
        scale: largest relative change of size.
        affine_prob: probability of rotation and scaling together.
        samples_per_case: crops per case and iteration.
        keys: image, label, and further label maps on their grid.
    """
    dims = len(roi_size)
    classes = len(label_space.labels) + 1
    angles = np.asarray(rotate, dtype=float)
    number = 3 if dims == 3 else 1
    if angles.size not in (1, number) or not np.isfinite(angles).all():
        raise ConfigError(f"rotate: expected {'one angle or three' if number == 3 else 'one angle'}, got {rotate!r}.")
    if not 0 <= scale < 1:
        raise ConfigError(f"scale: expected a share from 0 to below 1, got {scale!r}.")
    return [
        mt.ClassesToIndicesd("label", num_classes=classes, max_samples_per_class=CROP_SAMPLES_PER_CLASS),
        mt.RandCropByLabelClassesd(
            keys,
            label_key="label",
            spatial_size=tuple(roi_size),
            num_classes=classes,
            num_samples=count("samples_per_case", samples_per_case),
            indices_key="label_cls_indices",
            warn=False,
        ),
        mt.RandAffined(
            keys,
            prob=probability("affine_prob", affine_prob),
            rotate_range=np.broadcast_to(angles, number).tolist(),
            scale_range=[scale] * dims,
            mode=["bilinear", *["nearest"] * (len(keys) - 1)],
            padding_mode="border",
            cache_grid=True,
            spatial_size=tuple(roi_size),
        ),
        *(mt.RandFlipd(keys, prob=0.5, spatial_axis=axis) for axis in axes_of("flip_axes", flip_axes, dims)),
        *in_plane(intensity, roi_size),
        mt.SelectItemsd([*keys, "case_id", DRAWN], allow_missing_keys=True),
        mt.EnsureTyped(keys, dtype=[torch.float32, *[torch.int16] * (len(keys) - 1)], track_meta=False),
    ]
