"""The grid of a plan: spacing, size of 2D images, fraction of the voxels, and the patch.

The rules follow nnU-Net's (Isensee et al. 2021, supplement): median spacing, the 10th percentile on a strongly coarser
axis; the patch as near to the median shape as the memory and, on CPU, the time allow. Networks that want whole volumes
get a patch that holds the cases, and where that is too large, all cases at a fraction of their voxels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from medseg.data.case_facts import CaseFacts
from medseg.data.nnunet_plans import CASCADE
from medseg.data.plan_settings import PlanSettings
from medseg.data.run_settings import SET, by
from medseg.errors import ConfigError, nearest
from medseg.transforms.scale import scaled_size

__all__ = [
    "ANISOTROPY",
    "CASCADE",
    "CONFIGURATIONS",
    "CPU_VOXELS",
    "FULL",
    "GPU_VOXELS",
    "LOW",
    "LOWER",
    "SLICES",
    "PlannedGrid",
    "check_configuration",
    "low_spacing",
    "plan_grid",
    "require_low",
    "slices_across",
    "with_slice",
]

FULL, LOW, SLICES = "3d_fullres", "3d_lowres", "2d"  # nnU-Net's names of configurations
CONFIGURATIONS = (SLICES, FULL, LOW, CASCADE)
LOWER = "; coarser in steps of 3 % until a patch holds a quarter of the median case"

ANISOTROPY = 3.0  # nnU-Net: an axis more than three times coarser than the finest is treated as slices
# Voxels per patch; on CPU about half a second per training step on two cores for light networks.
CPU_VOXELS = {3: 96_000, 2: 160_000}
GPU_VOXELS = {3: 128**3, 2: 768**2}
_WHOLE = 4  # networks of whole volumes work at half resolution: this many times the voxels in the same time
_LOW_RESOLUTION = 0.25  # nnU-Net: share of the median case below which a patch asks for a lower resolution
_COARSER = 1.03
_CPU_LONGEST, _GPU_LONGEST = 512, 1024  # pixels; the usual sizes for dermoscopy and endoscopy, and for fundus


@dataclass(frozen=True)
class PlannedGrid:
    """Sizes of the cases and of the patch.

    Attributes:
        spacing, longest, scale, roi_size: as in ``Plan``.
        shapes: voxels of each case on that grid, ``(cases, axes)``.
        median_shape: their median.
        batch_size: patches per batch, where it is planned together with the patch.
        low_resolution, slice_axis: as in ``Plan``.
    """

    spacing: tuple[float, ...] | None
    longest: int | None
    scale: float
    shapes: np.ndarray
    median_shape: tuple[int, ...]
    roi_size: tuple[int, ...]
    batch_size: int | None = None
    low_resolution: tuple[float, ...] | None = None
    slice_axis: int | None = None


def plan_grid(facts: Sequence[CaseFacts], asked: PlanSettings, reasons: dict[str, str]) -> PlannedGrid:
    """The grid for sound cases of equal dimensions; ``reasons`` gets the reason of each choice, if it has none yet."""
    dims = len(facts[0].shape)
    for name in ("spacing", "longest", "scale", "roi_size"):
        if getattr(asked, name) is not None:
            reasons.setdefault(name, SET)
    spacing = _spacing(facts, dims, reasons) if asked.spacing is None else tuple(asked.spacing)
    longest = asked.longest
    if longest is None and dims == 2 and asked.nnunet is None:  # nnU-Net resizes no 2D images
        longest = _longest(facts, _GPU_LONGEST if asked.gpu else _CPU_LONGEST, reasons)
    shapes = np.array([_resampled(case, spacing, longest) for case in facts])
    across = slices_across(asked, spacing, reasons)
    axes = [axis for axis in range(dims) if axis != across]
    budget = (GPU_VOXELS if asked.gpu else CPU_VOXELS)[len(axes)] * (_WHOLE if asked.whole_volume else 1)
    budget = int(budget * asked.voxel_share)
    if asked.configuration in (LOW, CASCADE) and spacing is not None and asked.nnunet is None:
        coarser = require_low(
            low_spacing(
                spacing,
                np.median(shapes, 0).tolist(),
                lambda mm, n: asked.roi_size or _patch(n, mm, budget, asked.roi_step),
            ),
            asked,
        )
        if asked.configuration == LOW:
            spacing = coarser
            shapes = np.array([_resampled(case, spacing, longest) for case in facts])
            reasons["spacing"] += LOWER
    scale = asked.scale
    if scale is None:
        scale = _scale(shapes[:, axes], budget, reasons) if asked.whole_volume else 1.0
    if scale != 1:
        shapes = np.array([scaled_size(shape, scale, across) for shape in shapes])
    median_shape = tuple(int(n) for n in np.median(shapes, axis=0))
    if asked.roi_size is not None:
        roi_size = tuple(int(n) for n in asked.roi_size)
    elif asked.whole_volume:
        roi_size = with_slice(_whole(shapes[:, axes], budget, reasons), across)
    else:
        mm = None if spacing is None else [spacing[axis] for axis in axes]
        roi_size = with_slice(_patch([median_shape[axis] for axis in axes], mm, budget, asked.roi_step), across)
        whole = "covers" if all(r >= n for r, n in zip(roi_size, median_shape, strict=True)) else "part of"
        where = "on GPU" if asked.gpu else "on CPU"
        reasons["roi_size"] = f"{whole} the median shape {by(median_shape, '×')}; limit {budget} voxels {where}"
    return PlannedGrid(spacing, longest, scale, shapes, median_shape, roi_size, slice_axis=across)


# ---------------------------------------------------------------------- nnU-Net's further configurations of volumes
def check_configuration(name: str | None, *, cascade: bool = False) -> None:
    """Refuse the name of a configuration that nnU-Net does not have.

    Args:
        name: as the user gave it.
        cascade: whether the second stage of a cascade is taken, which needs earlier runs.

    Raises:
        ConfigError: naming the nearest.
    """
    known = [one for one in CONFIGURATIONS if cascade or one != CASCADE]
    if name not in (None, *known):
        raise ConfigError(
            f"--configuration {name}: expected {', '.join(known)}, or a name in --nnunet_plans of `medseg "
            f"train` and `medseg new-bundle`.{nearest(str(name), known)} Name one of them."
        )


def slices_across(asked: PlanSettings, spacing: Sequence[float] | None, reasons: dict[str, str]) -> int | None:
    """The axis across the slices of the 2D configuration: that of the coarsest spacing, of equal ones the last, or the
    one along which a given patch has one voxel; ``None`` in 3D.

    Raises:
        ConfigError: a patch that is asked for is not a slice.
    """
    if spacing is None:
        return None
    across = max(range(len(spacing)), key=lambda axis: (spacing[axis], axis))
    if asked.configuration != SLICES:
        if (asked.configuration, asked.nnunet) == (None, None) and spacing[across] > ANISOTROPY * min(spacing):
            reasons["spacing"] += f"; slices are coarse: try --configuration {SLICES} as well"
        return None
    if asked.roi_size is not None:
        if list(asked.roi_size).count(1) != 1:
            plane = [n for axis, n in enumerate(asked.roi_size) if axis != across]
            raise ConfigError(
                f"roi_size {list(asked.roi_size)}: expected a slice for --configuration {SLICES}, 1 along one axis, as "
                f"in {list(with_slice([max(n, 16) for n in plane], across))}."
            )
        across = list(asked.roi_size).index(1)
    reasons["slice_axis"] = f"across slices of {spacing[across]:g} mm (median), which keep their spacing"
    return across


def with_slice(plane: Sequence[int], across: int | None) -> tuple[int, ...]:
    """The patch of a volume that is a patch of a slice."""
    return tuple(plane) if across is None else (*plane[:across], 1, *plane[across:])


def low_spacing(
    spacing: Sequence[float],
    shape: Sequence[float],
    patch_of: Callable[[Sequence[float], Sequence[int]], Sequence[int]],
) -> list[float] | None:
    """The finest spacing, in steps of 3 %, at which the patch holds a quarter of the median case; axes that are twice
    as fine as the coarsest are made coarser first. ``None`` where the patch at full resolution does, or where cases
    would not have half as many voxels.

    Args:
        spacing: at full resolution.
        shape: median of the cases' sizes there.
        patch_of: spacing and median size -> patch.
    """
    low, sizes = list(spacing), list(shape)
    while math.prod(patch_of(low, [round(n) for n in sizes])) < _LOW_RESOLUTION * math.prod(sizes):
        fine = [max(low) / mm > 2 for mm in low]
        low = [mm * _COARSER if f or not any(fine) else mm for mm, f in zip(low, fine, strict=True)]
        sizes = [n * mm / to for n, mm, to in zip(shape, spacing, low, strict=True)]
    return low if math.prod(shape) >= 2 * math.prod(sizes) else None


def require_low(low: Sequence[float] | None, asked: PlanSettings) -> tuple[float, ...]:
    """The low resolution in mm that is asked for, or that the cascade begins with.

    Raises:
        ConfigError: there is none.
    """
    if asked.spacing is not None and asked.configuration == LOW:
        why = "preprocess::spacing is set, which it plans"
    elif asked.whole_volume:
        why = "the network sees whole volumes"
    elif low is None:
        why = "the patch holds a quarter of the median case at full resolution, or nearly so"
    else:
        return tuple(float(f"{mm:.4g}") for mm in low)
    raise ConfigError(
        f"--configuration {asked.configuration}: {why}; expected cases much larger than the patch, and a spacing that "
        f"is planned. Train {FULL}, or leave the setting out."
    )


def _spacing(facts: Sequence[CaseFacts], dims: int, reasons: dict[str, str]) -> tuple[float, ...] | None:
    if dims == 2:
        reasons["spacing"] = "2D images keep their pixels"
        return None
    spacings = np.array([case.ras_spacing for case in facts])
    target = np.median(spacings, axis=0)
    reasons["spacing"] = f"median of {len(facts)} cases, mm (right, anterior, superior)"
    coarse = int(np.argmax(target))
    if target[coarse] > ANISOTROPY * np.delete(target, coarse).max():
        target[coarse] = max(np.percentile(spacings[:, coarse], 10), np.delete(target, coarse).max())
        reasons["spacing"] += f"; 10th percentile on the coarse axis {coarse}"
    return tuple(float(f"{s:.4g}") for s in target)


def _longest(facts: Sequence[CaseFacts], longest: int, reasons: dict[str, str]) -> int | None:
    """2D images much larger than a patch are made smaller: no patch of theirs would show a whole lesion."""
    sides = [max(case.shape) for case in facts if case.picture]
    if not sides or np.median(sides) <= 1.5 * longest:
        return None
    reasons["longest"] = f"2D images have {np.median(sides):g} pixels along the longer side (median); resized to this"
    return longest


def _resampled(case: CaseFacts, spacing: Sequence[float] | None, longest: int | None) -> np.ndarray:
    shape: np.ndarray = np.array(case.ras_shape, dtype=float)
    if longest is not None:
        shape = np.round(shape * longest / shape.max())
    elif spacing is not None:
        shape = np.round(shape * np.array(case.ras_spacing) / np.array(spacing))
    resampled: np.ndarray = np.maximum(shape, 1)
    return resampled


def _scale(shapes: np.ndarray, budget: int, reasons: dict[str, str]) -> float:
    """1, or where whole volumes would exceed the budget, the fraction at which all but the largest keep within."""
    voxels = float(np.percentile(shapes, 95, axis=0).prod())
    if voxels <= budget:
        return 1.0
    scale: float = math.floor(100 * (budget / voxels) ** (1 / shapes.shape[1])) / 100
    reasons["scale"] = f"whole volumes have up to {voxels:.3g} voxels, the limit is {budget:.3g}; all at this fraction"
    return max(scale, 0.01)


def _whole(shapes: np.ndarray, budget: int, reasons: dict[str, str]) -> tuple[int, ...]:
    """The largest size along each axis; beyond the budget that of nearly all, so that training crops a few cases."""
    roi = shapes.max(axis=0)
    reasons["roi_size"] = f"holds every case whole; the median is {by(np.median(shapes, axis=0).tolist(), '×')}"
    if roi.prod() > budget:
        roi = np.ceil(np.percentile(shapes, 95, axis=0))
        reasons["roi_size"] = f"holds 95 % of the cases along each axis; limit {budget} voxels"
    return tuple(int(n) for n in roi)


def _patch(median_shape: Sequence[int], spacing: Sequence[float] | None, budget: int, step: int) -> tuple[int, ...]:
    """Multiples of ``step`` near the median shape; too large a patch shrinks along the axis that is longest in mm."""
    # Rounded down where the axis has two steps or more: patches that reach into padding teach the norms its statistics.
    roi = np.array([int(n // step if n >= 2 * step else np.ceil(n / step)) * step for n in median_shape])
    size_mm = np.array(spacing if spacing is not None else [1.0] * len(roi))
    while np.prod(roi) > budget and roi.max() > step:
        axis = int(np.argmax(np.where(roi > step, roi * size_mm, 0)))
        roi[axis] -= step
    return tuple(int(n) for n in roi)
