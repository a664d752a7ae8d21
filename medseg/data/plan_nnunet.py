"""The grid, the patch and the batch of a plan by nnU-Net's rules (Isensee et al. 2021, supplement; nnU-Net 2.8).

They are for ``--recipe nnunet``. On a CPU the memory budget is the share of nnU-Net's that half a second per step
allows, as for other plans.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from medseg.data.case_facts import CaseFacts
from medseg.data.plan_grid import ANISOTROPY, CPU_VOXELS, GPU_VOXELS, PlannedGrid
from medseg.data.plan_settings import PlanSettings
from medseg.data.run_settings import SET, by
from medseg.networks.nnunet_patch import NnunetPatch, nnunet_patch

__all__ = ["crops", "masks_zeros", "nnunet_grid"]

_LOW_RESOLUTION = 0.25  # share of the median case below which nnU-Net plans a lower resolution and a cascade as well
_COARSER = 1.03
_MASKED = 0.75  # volume of the box of the content over that of the image, below which zeros are not normalised


def nnunet_grid(
    facts: Sequence[CaseFacts], asked: PlanSettings, out_channels: int, reasons: dict[str, str]
) -> PlannedGrid:
    """The grid for sound cases of equal dimensions; ``reasons`` gets the reason of each choice, if it has none yet."""
    dims = len(facts[0].shape)
    for name in ("spacing", "longest", "roi_size", "batch_size"):
        if getattr(asked, name) is not None:
            reasons.setdefault(name, SET)
    spacing = tuple(asked.spacing) if asked.spacing is not None else _spacing(facts, dims, reasons)
    sizes = np.array([_content(case) for case in facts], dtype=float)
    if asked.longest is not None:
        sizes *= asked.longest / sizes.max(axis=1, keepdims=True)
    elif spacing is not None:
        sizes *= np.array([case.ras_spacing for case in facts]) / np.array(spacing)
    shapes = np.maximum(np.round(sizes), 1)
    median = np.median(shapes, axis=0)
    share = 1.0 if asked.gpu else CPU_VOXELS[dims] / GPU_VOXELS[dims]
    if spacing is not None:
        reasons["cubic"] = "nnU-Net's: splines for images, masks of labels; coarse slices by themselves"
    order = _order(spacing, dims)

    def planned(mm: Sequence[float], shape: Sequence[float]) -> NnunetPatch:
        return nnunet_patch(
            mm,
            shape,
            out_channels=out_channels,
            num_cases=len(facts),
            memory_gb=asked.memory_gb * share,
            residual=asked.residual,
        )

    mm, shape = [spacing[axis] if spacing is not None else 1.0 for axis in order], median[order].tolist()
    found = planned(mm, shape)
    roi_size, batch_size, low_resolution = asked.roi_size, asked.batch_size, None
    if roi_size is None:
        roi_size = [found.roi_size[order.index(axis)] for axis in range(dims)]
        if asked.roi_step > 8:  # for a network that does not take the patch
            roi_size = [max(asked.roi_step, n // asked.roi_step * asked.roi_step) for n in roi_size]
        covered = math.prod(roi_size) / math.prod(shape)
        on_cpu = "" if asked.gpu else f", at {share:.2g} of its feature maps on a CPU"
        held = f"{min(covered, 1.0):.0%} of the median shape {by([round(n) for n in median], '×')}"
        reasons["roi_size"] = f"nnU-Net's for {asked.memory_gb:g} GB{on_cpu}; {held}"
        if batch_size is None:
            batch_size = found.batch_size
            reasons["batch_size"] = "nnU-Net's: what the same memory holds, at most a share of the training voxels"
        low = _low_resolution(mm, shape, found, planned) if dims == 3 and asked.spacing is None else None
        if low is not None:
            low_resolution = tuple(float(f"{low[order.index(axis)]:.4g}") for axis in range(dims))
            reasons["spacing"] += f"; nnU-Net also trains at {by(low_resolution, '×')} mm (--set preprocess::spacing)"
    return PlannedGrid(
        spacing,
        asked.longest,
        1.0,
        shapes,
        tuple(int(n) for n in median),
        tuple(int(n) for n in roi_size),
        batch_size,
        low_resolution,
    )


def _low_resolution(
    spacing: Sequence[float],
    shape: Sequence[float],
    full: NnunetPatch,
    planned: Callable[[Sequence[float], Sequence[float]], NnunetPatch],
) -> list[float] | None:
    """The finest spacing, in steps of 3 %, at which the patch holds a quarter of the median case; axes that are twice
    as fine as the coarsest are made coarser first. ``None`` where the patch at full resolution does, or where cases
    would not have half as many voxels.
    """
    low, patch, voxels = list(spacing), full, math.prod(shape)
    while math.prod(patch.roi_size) < _LOW_RESOLUTION * voxels:
        fine = [max(low) / mm > 2 for mm in low]
        low = [mm * _COARSER if f or not any(fine) else mm for mm, f in zip(low, fine, strict=True)]
        sizes = [n * mm / to for n, mm, to in zip(shape, spacing, low, strict=True)]
        patch, voxels = planned(low, [round(n) for n in sizes]), math.prod(sizes)
    return low if math.prod(shape) >= 2 * voxels else None


def _content(case: CaseFacts) -> Sequence[int]:
    return case.content_shape or case.ras_shape


def _order(spacing: Sequence[float] | None, dims: int) -> list[int]:
    """nnU-Net's order of our axes: as its readers give them, the coarsest first. It breaks ties by it."""
    axes = list(range(dims))[::-1] if dims == 3 else list(range(dims))
    if spacing is None or dims == 2:
        return axes
    coarsest = max(axes, key=lambda axis: spacing[axis])
    return [coarsest, *(axis for axis in axes if axis != coarsest)]


def _spacing(facts: Sequence[CaseFacts], dims: int, reasons: dict[str, str]) -> tuple[float, ...] | None:
    """Median; where an axis is coarse by its spacing and short by its voxels, the 10th percentile along it."""
    if dims == 2:
        reasons["spacing"] = "2D images keep their pixels"
        return None
    spacings = np.array([case.ras_spacing for case in facts])
    target, size = np.median(spacings, axis=0), np.median([_content(case) for case in facts], axis=0)
    reasons["spacing"] = f"nnU-Net's: median of {len(facts)} cases, mm (right, anterior, superior)"
    coarse = int(np.argmax(target))
    others, sizes = np.delete(target, coarse), np.delete(size, coarse)
    if target[coarse] > ANISOTROPY * others.max() and ANISOTROPY * size[coarse] < sizes.min():
        target[coarse] = max(np.percentile(spacings[:, coarse], 10), others.max())
        reasons["spacing"] += f"; 10th percentile on the coarse and short axis {coarse}"
    return tuple(float(f"{s:.4g}") for s in target)


def crops(facts: Sequence[CaseFacts], reasons: dict[str, str]) -> bool:
    """Whether cases are cropped to what is not 0: always, where there is something to crop."""
    smaller = sum(tuple(_content(case)) != tuple(case.ras_shape) for case in facts)
    reasons["crop_foreground"] = f"nnU-Net's: {smaller} of {len(facts)} cases have voxels of 0 around their content"
    return len(facts[0].shape) == 3 and smaller > 0


def masks_zeros(facts: Sequence[CaseFacts]) -> bool:
    """Whether a z-score is over the voxels that are not 0: where crops make cases a quarter smaller (median)."""
    return float(np.median([math.prod(_content(case)) / math.prod(case.ras_shape) for case in facts])) < _MASKED
