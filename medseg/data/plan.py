"""The plan: from the fingerprint of a datalist to spacing, window, normalisation, batch and cache, each with its
reason.

The rules follow nnU-Net's (Isensee et al. 2021, supplement): median spacing, the 10th percentile on a strongly
coarser axis; the window as near to the median shape as the memory and, on CPU, the time allow; CT clipped and scaled
with figures of the foreground, MR per case. Networks that want whole volumes get a window that holds the cases, and
where that is too large, all cases at a fraction of their voxels.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from medseg.data.case_facts import CaseFacts
from medseg.data.datalist import Datalist
from medseg.data.modality import channel_kind, is_color
from medseg.data.nnunet_plans import NnunetPlans
from medseg.data.run_settings import SET
from medseg.errors import DataError
from medseg.transforms.scale import scaled_size

__all__ = ["Plan", "available_gib", "make_plan"]

_ANISOTROPY = 3.0  # nnU-Net: an axis more than three times coarser than the finest is treated as slices
_CPU_VOXELS = {
    3: 96_000,
    2: 160_000,
}  # per window: about half a second per training step on two cores for light networks
_GPU_VOXELS = {3: 128**3, 2: 768**2}
_WHOLE = 4  # networks of whole volumes work at half resolution: this many times the voxels in the same time
_CPU_LONGEST, _GPU_LONGEST = 512, 1024  # pixels; the usual sizes for dermoscopy and endoscopy, and for fundus
_CPU_ITERATIONS, _GPU_ITERATIONS = 50, 250  # per epoch; nnU-Net's 250 on a GPU


# Names of the plan that have another id in the config.
_IDS = {
    **{
        name: f"preprocess::{name}"
        for name in ("spacing", "longest", "scale", "normalization", "crop_foreground", "color")
    },
    **{name: f"augment::{name}" for name in ("flip_axes", "rotate", "samples_per_case")},
    "light": "network_def::_target_",
}
_T = TypeVar("_T")


@dataclass
class Plan:
    """Choices of one training, with the reason for each in ``reasons``.

    Attributes:
        spatial_dims: 2 or 3.
        in_channels, out_channels: of the network.
        spacing: target spacing in mm, RAS order; ``None`` for 2D images without physical size.
        roi_size: window in voxels.
        normalization: one scheme per channel (``NormalizeChannelsd``).
        crop_foreground: crop to non-zero voxels first.
        color: grey pictures become RGB.
        longest: pixels of the longer side that pictures are resized to; ``None`` leaves them.
        scale: fraction of the voxels per axis that cases are then resized to.
        whole_volume: the window holds whole cases; the network is no sliding window.
        flip_axes: axes that augmentation mirrors.
        rotate: largest rotation in radians per axis.
        batch_size, samples_per_case, repeats: cases per batch, windows per case, passes over the cases per epoch.
        cache: ``cache`` or ``persistent``.
        cache_gib: estimated size of the cache.
        learning_rate: of AdamW.
        light: small networks (training on CPU).
    """

    spatial_dims: int
    in_channels: int
    out_channels: int
    spacing: tuple[float, ...] | None
    roi_size: tuple[int, ...]
    median_shape: tuple[int, ...]
    normalization: list[dict[str, Any]]
    crop_foreground: bool
    flip_axes: list[int]
    rotate: list[float]
    batch_size: int
    samples_per_case: int
    repeats: int
    cache: str
    cache_gib: float
    learning_rate: float
    light: bool
    color: bool = False
    longest: int | None = None
    scale: float = 1.0
    whole_volume: bool = False
    reasons: dict[str, str] = field(default_factory=dict)

    def reasons_by_id(self) -> dict[str, str]:
        """Id of the config -> reason, for what is written into it."""
        return {_IDS.get(name, name): reason for name, reason in self.reasons.items()}


def make_plan(
    datalist: Datalist,
    facts: Sequence[CaseFacts],
    *,
    device_type: str = "cpu",
    free_memory_gib: float | None = None,
    roi_size: Sequence[int] | None = None,
    spacing: Sequence[float] | None = None,
    longest: int | None = None,
    scale: float | None = None,
    batch_size: int | None = None,
    num_training: int | None = None,
    roi_step: int = 8,
    whole_volume: bool = False,
    nnunet: NnunetPlans | None = None,
) -> Plan:
    """Plan from the facts of (sound) cases; sizes, ``spacing`` and ``batch_size`` are taken where given.

    ``roi_step``: the window is a multiple of it in every axis, where it is neither given nor of whole volumes.
    ``nnunet``: spacing, window (not of whole volumes) and normalisation are taken from it where they are not given.

    Raises:
        DataError: no usable case, or cases of different dimensions or channels.
        ConfigError: nnU-Net's plans do not fit the images.
    """
    facts = [case for case in facts if not case.broken]
    if not facts:
        raise DataError(f"{datalist.path} has no usable case; see `medseg check`.")
    dims = {len(case.shape) for case in facts}
    channels = {case.channels for case in facts}
    if len(dims) > 1 or len(channels) > 1:
        raise DataError(
            f"{datalist.path} mixes {sorted(dims)} spatial axes and {sorted(channels)} channels; expected one of each."
        )
    spatial_dims, in_channels = dims.pop(), channels.pop()
    reasons: dict[str, str] = {}
    gpu = device_type == "cuda"
    count = num_training or len(facts)
    theirs = nnunet.choices(facts) if nnunet is not None else None
    if theirs is not None:
        reasons |= {"spacing": theirs.source} if spacing is None and theirs.spacing is not None else {}
        reasons |= {"roi_size": theirs.source} if roi_size is None and not whole_volume else {}
        spacing = theirs.spacing if spacing is None else spacing
        roi_size = theirs.patch_size if "roi_size" in reasons else roi_size

    target = _spacing(facts, spatial_dims, reasons) if spacing is None else _given(tuple(spacing), "spacing", reasons)
    if longest is None and spatial_dims == 2 and theirs is None:  # nnU-Net resizes no pictures
        longest = _longest(facts, gpu, reasons)
    elif longest is not None:
        reasons["longest"] = SET
    shapes = np.array([_resampled(case, target, longest) for case in facts])
    budget = (_GPU_VOXELS if gpu else _CPU_VOXELS)[spatial_dims] * (_WHOLE if whole_volume else 1)
    scale = (
        _scale(shapes, budget if whole_volume else None, reasons) if scale is None else _given(scale, "scale", reasons)
    )
    if scale != 1:
        shapes = np.array([scaled_size(shape, scale) for shape in shapes])
    median_shape = tuple(int(n) for n in np.median(shapes, axis=0))
    if roi_size is not None:
        roi = _given(tuple(int(n) for n in roi_size), "roi_size", reasons)
    elif whole_volume:
        roi = _whole(shapes, budget, reasons)
    else:
        roi = _roi(median_shape, target, budget, gpu, roi_step, reasons)
    normalization, kinds = _normalization(datalist, facts, in_channels, reasons)
    if theirs is not None:
        normalization, reasons["normalization"] = theirs.normalization, theirs.source
    zero_share = float(np.median([case.zero_share for case in facts]))
    crop = zero_share > 0.25 and spatial_dims == 3 and "ct" not in kinds and not whole_volume
    reasons["crop_foreground"] = f"{zero_share:.0%} of the voxels are 0 in every channel (median case)" + (
        "; the whole field of view is kept" if whole_volume else ""
    )
    sided = any(re.search(r"\b(left|right)\b", name.lower()) for name in datalist.label_space.labels)
    flips = list(range(spatial_dims)) if spatial_dims == 2 else ([] if sided else [0])
    reasons["flip_axes"] = (
        "label names tell left from right" if sided else "mirror images are plausible along these axes"
    )
    rotate = _rotation(target, spatial_dims)
    reasons["rotate"] = "radians per axis; in plane only where slices are coarse"
    planned_batch = 1 if whole_volume else 8 if spatial_dims == 2 else 2
    batch_size = planned_batch if batch_size is None else _given(batch_size, "batch_size", reasons)
    reasons.setdefault(
        "batch_size",
        "whole volumes one by one, as published"
        if whole_volume
        else "planes differ more than windows of a volume, and batch norm needs some"
        if spatial_dims == 2
        else "nnU-Net's smallest batch; the window takes the memory",
    )
    per_epoch = (_GPU_ITERATIONS if gpu else _CPU_ITERATIONS) * batch_size
    repeats = max(1, round(per_epoch / count)) if count < per_epoch else 1
    reasons["repeats"] = f"{count} training cases make epochs of {count * repeats // batch_size} iterations"
    bytes_per_case = float(np.prod(np.maximum(shapes, roi), axis=1).mean()) * (4 * in_channels + 2)
    cache_gib = bytes_per_case * len(facts) / 2**30
    free = available_gib() if free_memory_gib is None else free_memory_gib
    cache = "cache" if cache_gib < 0.6 * free else "persistent"
    reasons["cache"] = f"{len(facts)} cases need about {cache_gib:.2g} GiB after preprocessing, {free:.1f} GiB are free"
    learning_rate = 0.001 if gpu else 0.002 if spatial_dims == 2 else 0.005
    reasons["learning_rate"] = "AdamW; " + (
        "usual for published sizes" if gpu else "small networks learn by large steps"
    )
    reasons["light"] = (
        "GPU: published network sizes" if gpu else "no GPU: small networks, so that steps take well under a second"
    )
    return Plan(
        spatial_dims=spatial_dims,
        in_channels=in_channels,
        out_channels=datalist.label_space.num_channels,
        spacing=tuple(target) if target is not None else None,
        roi_size=tuple(roi),
        median_shape=median_shape,
        normalization=normalization,
        crop_foreground=crop,
        flip_axes=flips,
        rotate=rotate,
        batch_size=batch_size,
        samples_per_case=1,
        repeats=repeats,
        cache=cache,
        cache_gib=cache_gib,
        learning_rate=learning_rate,
        light=not gpu,
        color=is_color(datalist.channels) and in_channels == 3,
        longest=longest,
        scale=scale,
        whole_volume=whole_volume,
        reasons=reasons,
    )


def _given(value: _T, name: str, reasons: dict[str, str]) -> _T:
    reasons.setdefault(name, SET)
    return value


def _spacing(facts: Sequence[CaseFacts], spatial_dims: int, reasons: dict[str, str]) -> tuple[float, ...] | None:
    if spatial_dims == 2:
        reasons["spacing"] = "2D images keep their pixels"
        return None
    spacings = np.array([case.ras_spacing for case in facts])
    target = np.median(spacings, axis=0)
    reasons["spacing"] = f"median of {len(facts)} cases, mm (right, anterior, superior)"
    coarse = int(np.argmax(target))
    if target[coarse] > _ANISOTROPY * np.delete(target, coarse).max():
        target[coarse] = max(np.percentile(spacings[:, coarse], 10), np.delete(target, coarse).max())
        reasons["spacing"] += f"; 10th percentile on the coarse axis {coarse}"
    return tuple(float(f"{s:.4g}") for s in target)


def _longest(facts: Sequence[CaseFacts], gpu: bool, reasons: dict[str, str]) -> int | None:
    """Pictures much larger than a window are made smaller: no window of theirs would show a whole lesion."""
    longest = _GPU_LONGEST if gpu else _CPU_LONGEST
    sides = [max(case.shape) for case in facts if case.picture]
    if not sides or np.median(sides) <= 1.5 * longest:
        return None
    reasons["longest"] = f"pictures have {np.median(sides):g} pixels along the longer side (median); resized to this"
    return longest


def _resampled(case: CaseFacts, target: Sequence[float] | None, longest: int | None) -> np.ndarray:
    shape: np.ndarray = np.array(case.ras_shape, dtype=float)
    if longest is not None:
        shape = np.round(shape * longest / shape.max())
    elif target is not None:
        shape = np.round(shape * np.array(case.ras_spacing) / np.array(target))
    resampled: np.ndarray = np.maximum(shape, 1)
    return resampled


def _scale(shapes: np.ndarray, budget: int | None, reasons: dict[str, str]) -> float:
    """1, or where whole volumes would go beyond the budget, the fraction at which all but the largest keep within."""
    voxels = float(np.percentile(shapes, 95, axis=0).prod())
    if budget is None or voxels <= budget:
        return 1.0
    scale: float = math.floor(100 * (budget / voxels) ** (1 / shapes.shape[1])) / 100
    reasons["scale"] = f"whole volumes have up to {voxels:.3g} voxels, the limit is {budget:.3g}; all at this fraction"
    return max(scale, 0.01)


def _whole(shapes: np.ndarray, budget: int, reasons: dict[str, str]) -> tuple[int, ...]:
    """The largest size along each axis; beyond the budget that of nearly all, so that training crops a few cases."""
    roi = shapes.max(axis=0)
    reasons["roi_size"] = f"holds every case whole; the median is {_show(np.median(shapes, axis=0).tolist())}"
    if roi.prod() > budget:
        roi = np.ceil(np.percentile(shapes, 95, axis=0))
        reasons["roi_size"] = f"holds 95 % of the cases along each axis; limit {budget} voxels"
    return tuple(int(n) for n in roi)


def _roi(
    median_shape: Sequence[int],
    spacing: Sequence[float] | None,
    budget: int,
    gpu: bool,
    step: int,
    reasons: dict[str, str],
) -> tuple[int, ...]:
    """Multiples of ``step`` near the median shape; too large a window shrinks along the axis that is longest in mm."""
    # Rounded down where the axis has two steps or more: windows that reach into padding teach the norms its statistics.
    roi = np.array([int(n // step if n >= 2 * step else np.ceil(n / step)) * step for n in median_shape])
    size_mm = np.array(spacing if spacing is not None else [1.0] * len(roi))
    while np.prod(roi) > budget and roi.max() > step:
        axis = int(np.argmax(np.where(roi > step, roi * size_mm, 0)))
        roi[axis] -= step
    whole = "covers" if all(r >= n for r, n in zip(roi, median_shape, strict=True)) else "part of"
    reasons["roi_size"] = (
        f"{whole} the median shape {_show(list(median_shape))}; limit {budget} voxels {'on GPU' if gpu else 'on CPU'}"
    )
    return tuple(int(n) for n in roi)


def _rotation(spacing: Sequence[float] | None, spatial_dims: int) -> list[float]:
    if spatial_dims == 2:
        return [0.3]
    coarse = np.array(spacing) > _ANISOTROPY * min(spacing or [1.0])
    return [0.2, 0.2, 0.2] if not coarse.any() else [0.3 if c else 0.0 for c in coarse]


def _normalization(
    datalist: Datalist, facts: Sequence[CaseFacts], in_channels: int, reasons: dict[str, str]
) -> tuple[list[dict[str, Any]], list[str]]:
    names = list(datalist.channels) or ["MR"]
    if len(names) == 1:
        names = names * in_channels
    kinds = [channel_kind(name) for name in names]
    schemes: list[dict[str, Any]] = []
    for channel, kind in enumerate(kinds):
        values = np.concatenate([case.intensity[channel] for case in facts])
        if kind == "ct":
            low, high = (float(v) for v in np.percentile(values, [0.5, 99.5]))
        elif kind == "pet":
            low, high = 0.0, float(np.percentile(values, 99.5))
        elif kind == "rgb":
            low, high = 0.0, 255.0 if values.max() > 1 else 1.0
        else:
            nonzero = float(np.median([case.zero_share for case in facts])) > 0.25
            schemes.append({"kind": "case", "nonzero": nonzero})
            continue
        inside = np.clip(values, low, high)
        schemes.append(
            {
                "kind": "fixed",
                "lower": _round(low),
                "upper": _round(high),
                "mean": _round(inside.mean()),
                "std": _round(inside.std()),
            }
        )
    said = {
        "ct": "CT: 0.5th to 99.5th percentile of labelled voxels, their mean and deviation",
        "pet": "PET: 0 to the 99.5th percentile of labelled voxels",
        "rgb": "colour: 0 to 255, mean and deviation of the set",
        "mr": "MR: z-score per case",
    }
    reasons["normalization"] = "; ".join(said[kind] for kind in dict.fromkeys(kinds))
    return schemes, kinds


def _round(value: float) -> float:
    return float(f"{float(value):.5g}")


def available_gib() -> float:
    """GiB of memory that the machine has free now."""
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    except (ValueError, OSError):
        return 8.0


def _show(values: Sequence[float]) -> str:
    return "×".join(f"{v:g}" for v in values)
