"""The grid, the patch and the batch of a plan by nnU-Net's rules (Isensee et al. 2021, supplement; nnU-Net 2.8).

They are for ``--recipe nnunet``. On a CPU the memory budget is the share of nnU-Net's that half a second per step
allows, as for other plans.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from medseg.data.case_facts import CaseFacts
from medseg.data.plan_grid import (
    ANISOTROPY,
    CASCADE,
    CPU_VOXELS,
    GPU_VOXELS,
    LOW,
    LOWER,
    PlannedGrid,
    low_spacing,
    require_low,
    slices_across,
    with_slice,
)
from medseg.data.plan_settings import PlanSettings
from medseg.data.run_settings import SET, by
from medseg.networks.nnunet_patch import NnunetPatch, nnunet_patch

__all__ = ["crops", "masks_zeros", "nnunet_grid"]

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
    across = slices_across(asked, spacing, reasons)
    planes = dims if across is None else 2
    share = 1.0 if asked.gpu else CPU_VOXELS[planes] / GPU_VOXELS[planes]
    if spacing is not None:
        reasons["cubic"] = "nnU-Net's: splines for images, masks of labels; coarse slices by themselves"
    order = _order(spacing, dims)
    number = len(facts)
    if across is not None:
        number *= int(median[across])
        order.remove(across)

    def planned(mm: Sequence[float], shape: Sequence[float]) -> NnunetPatch:
        return nnunet_patch(
            mm,
            shape,
            out_channels=out_channels,
            num_cases=number,
            memory_gb=asked.memory_gb * share,
            residual=asked.residual,
        )

    mm, shape = [spacing[axis] if spacing is not None else 1.0 for axis in order], median[order].tolist()
    given = None if asked.roi_size is None else [asked.roi_size[axis] for axis in order]
    low = low_spacing(mm, shape, lambda mm, shape: given or planned(mm, shape).roi_size) if len(order) == 3 else None
    low_resolution = None if low is None else tuple(float(f"{low[order.index(axis)]:.4g}") for axis in range(dims))
    if asked.configuration in (LOW, CASCADE) and asked.nnunet is None:
        coarser = require_low(low_resolution, asked)
    if asked.configuration == LOW and spacing is not None:
        shape = [round(n * mm / to) for n, mm, to in zip(shape, mm, low or mm, strict=True)]
        sizes *= np.array(spacing) / np.array(coarser)
        shapes, mm, spacing, low_resolution = np.maximum(np.round(sizes), 1), list(low or mm), coarser, None
        reasons["spacing"] += LOWER
    median = np.array([median[axis] if axis == across else shape[order.index(axis)] for axis in range(dims)])
    found = planned(mm, shape)
    roi_size, batch_size = asked.roi_size, asked.batch_size
    if roi_size is None:
        plane = [found.roi_size[order.index(axis)] for axis in range(dims) if axis != across]
        stepped = ""
        if asked.roi_step > 8:  # for a network that does not take the patch
            plane = [max(asked.roi_step, n // asked.roi_step * asked.roi_step) for n in plane]
            stepped = f", in steps of {asked.roi_step} voxels that the network needs"
        covered = math.prod(plane) / math.prod(shape)
        on_cpu = "" if asked.gpu else f", at {share:.2g} of its feature maps on a CPU"
        held = f"{min(covered, 1.0):.0%} of the median shape {by([round(median[axis]) for axis in sorted(order)], '×')}"
        reasons["roi_size"] = f"nnU-Net's for {asked.memory_gb:g} GB{on_cpu}{stepped}; {held}"
        roi_size = with_slice(plane, across)
        if batch_size is None:
            batch_size = found.batch_size
            reasons["batch_size"] = "nnU-Net's: what the same memory holds, at most a share of the training voxels"
        if low_resolution is not None and asked.spacing is None:
            reasons["spacing"] += f"; nnU-Net also trains at {by(low_resolution, '×')} mm (--configuration {LOW})"
    return PlannedGrid(
        spacing,
        asked.longest,
        1.0,
        shapes,
        tuple(int(n) for n in median),
        tuple(int(n) for n in roi_size),
        batch_size,
        low_resolution if asked.spacing is None and asked.roi_size is None else None,
        across,
    )


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
    return smaller > 0


def masks_zeros(facts: Sequence[CaseFacts]) -> bool:
    """Whether a z-score is over the voxels that are not 0: where crops make cases a quarter smaller (median)."""
    return float(np.median([math.prod(_content(case)) / math.prod(case.ras_shape) for case in facts])) < _MASKED
