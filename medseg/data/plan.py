"""The plan: from the fingerprint of a datalist to spacing, patch, normalisation, batch and cache, each with its
reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from medseg.data.case_facts import CaseFacts
from medseg.data.datalist import Datalist
from medseg.data.modality import is_color
from medseg.data.plan_grid import ANISOTROPY, CASCADE, CPU_VOXELS, FULL, GPU_VOXELS, SLICES, PlannedGrid, plan_grid
from medseg.data.plan_nnunet import crops, masks_zeros, nnunet_grid
from medseg.data.plan_normalization import channel_kinds, plan_normalization
from medseg.data.plan_settings import PlanSettings
from medseg.data.run_settings import SET
from medseg.errors import ConfigError, DataError
from medseg.free_memory import available_gib
from medseg.labels.sides import tells_sides

__all__ = ["Plan", "available_gib", "make_plan"]

_MOST_SLICES = 12  # per batch; what nnU-Net's memory budget in 2D is stated for
_CPU_ITERATIONS, _GPU_ITERATIONS = 50, 250  # per epoch; nnU-Net's 250 on a GPU
_LONG = 1000  # nnU-Net's epochs

# Names of the plan that have another id in the config.
_IDS = {
    **{
        name: f"preprocess::{name}"
        for name in ("spacing", "longest", "scale", "normalization", "crop_foreground", "cubic", "color", "slice_axis")
    },
    **{name: f"augment::{name}" for name in ("flip_axes", "rotate", "samples_per_case")},
    "light": "network_def::_target_",
    "long_epochs": "epochs",
}


@dataclass
class Plan:
    """Choices of one training, with the reason for each in ``reasons``.

    Attributes:
        spatial_dims: 2 or 3.
        in_channels, out_channels: numbers of channels of the network.
        spacing: target spacing in mm, RAS order; ``None`` for 2D images without physical size.
        roi_size: patch in voxels.
        median_shape: median of the cases' sizes in voxels on the plan's grid.
        normalization: one scheme per channel (``NormalizeChannelsd``).
        crop_foreground: crop to non-zero voxels first.
        color: grey 2D images become RGB.
        longest: pixels of the longer side that 2D images are resized to; ``None`` leaves them.
        scale: fraction of the voxels per axis that cases are then resized to.
        whole_volume: the patch holds whole cases; inference needs no sliding window.
        flip_axes: axes that augmentation mirrors.
        coarse_axis: axis across coarse slices, out of whose plane nothing is turned.
        rotate: largest rotation in radians per axis.
        batch_size, samples_per_case, repeats: cases per batch, patches per case, passes over the cases per epoch.
        long_epochs: epochs that have as many iterations as 1000 of 250 (GPU) or 50 (CPU).
        cache: ``cache``, ``device`` or ``persistent``.
        cache_gib: estimated size of the cache.
        learning_rate: learning rate of AdamW.
        light: small networks (training on CPU).
        like_nnunet: kernels and strides of U-Nets by nnU-Net's rule.
        slice_axis: axis across the slices that a 2D network sees one by one; ``None``: it sees all axes.
        previous: channels of the network's input that are the labels of an earlier stage.
        low_resolution: mm of the second configuration that nnU-Net would train as well, where patches are small.
        configuration: nnU-Net's name of what is trained, or the name in its plans.
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
    coarse_axis: int | None = None
    color: bool = False
    longest: int | None = None
    scale: float = 1.0
    whole_volume: bool = False
    like_nnunet: bool = False
    slice_axis: int | None = None
    previous: int = 0
    low_resolution: tuple[float, ...] | None = None
    long_epochs: int = 1000
    configuration: str = FULL
    reasons: dict[str, str] = field(default_factory=dict)

    def seen(self) -> Plan:
        """The plan as the network is made for it: in 2D for slices."""
        if self.slice_axis is None:
            return self
        axes = [axis for axis in range(3) if axis != self.slice_axis]
        mm = None if self.spacing is None else tuple(self.spacing[axis] for axis in axes)
        return replace(self, spatial_dims=2, spacing=mm, roi_size=tuple(self.roi_size[axis] for axis in axes))

    def reasons_by_id(self) -> dict[str, str]:
        """Id of the config -> reason, for what is written into it."""
        return {_IDS.get(name, name): reason for name, reason in self.reasons.items()}


def make_plan(datalist: Datalist, facts: Sequence[CaseFacts], asked: PlanSettings | None = None) -> Plan:
    """Plan from the facts of (sound) cases; what is ``asked`` is taken, the rest decided by rules.

    Raises:
        DataError: no usable case, or cases of different dimensions or channels.
        ConfigError: nnU-Net's plans, or the configuration, do not fit the images.
    """
    facts = [case for case in facts if not case.broken]
    dims, in_channels = _one_kind(datalist, facts)
    reasons: dict[str, str] = {}
    kinds = channel_kinds(datalist.channels, in_channels)
    asked = asked or PlanSettings()
    if dims == 2 and asked.configuration not in (None, SLICES):
        raise ConfigError(f"--configuration {asked.configuration} is for volumes; leave it out for 2D images.")
    zeros = masks_zeros(facts) if asked.like_nnunet else None
    normalization = plan_normalization(facts, kinds, reasons, skips_zeros=zeros)
    if asked.nnunet is not None:
        theirs = asked.nnunet.choices(facts)
        normalization, reasons["normalization"] = theirs.normalization, theirs.source
        if asked.spacing is None and theirs.spacing is not None:
            asked, reasons["spacing"] = replace(asked, spacing=theirs.spacing), theirs.source
        if asked.roi_size is None and not asked.whole_volume:
            asked, reasons["roi_size"] = replace(asked, roi_size=theirs.patch_size), theirs.source
    if asked.like_nnunet and not asked.whole_volume:
        grid = nnunet_grid(facts, asked, len(datalist.label_space.labels) + 1, reasons)
    else:
        grid = plan_grid(facts, asked, reasons)
    previous = len(datalist.label_space.labels) if asked.configuration == CASCADE else 0
    batch_size = grid.batch_size or _batch_size(dims, asked, grid, reasons)
    bytes_per_case = float(np.prod(np.maximum(grid.shapes, grid.roi_size), axis=1).mean()) * (4 * in_channels + 2)
    cache_gib = bytes_per_case * len(facts) / 2**30
    count = asked.num_training or len(facts)
    repeats = _repeats(count, batch_size, asked, reasons)
    coarse_axis = _coarse_axis(grid, dims, asked, reasons)
    return Plan(
        spatial_dims=dims,
        in_channels=in_channels + previous,
        out_channels=datalist.label_space.num_channels,
        spacing=grid.spacing,
        roi_size=grid.roi_size,
        median_shape=grid.median_shape,
        normalization=normalization,
        crop_foreground=_crops(facts, dims, kinds, asked, reasons),
        flip_axes=_flip_axes(datalist, dims, grid.slice_axis, reasons),
        rotate=_rotate(coarse_axis, dims, reasons),
        coarse_axis=coarse_axis,
        batch_size=batch_size,
        samples_per_case=1,
        repeats=repeats,
        long_epochs=_long_epochs(max(1, count * repeats // batch_size), asked, reasons),
        cache=_cache(cache_gib, len(facts), asked, reasons),
        cache_gib=cache_gib,
        learning_rate=_learning_rate(dims, asked, reasons),
        light=_light(asked, reasons),
        color=is_color(datalist.channels) and in_channels == 3,
        longest=grid.longest,
        scale=grid.scale,
        whole_volume=asked.whole_volume,
        like_nnunet=asked.like_nnunet,
        slice_axis=grid.slice_axis,
        previous=previous,
        low_resolution=grid.low_resolution,
        configuration=_configuration(dims, asked),
        reasons=reasons,
    )


def _one_kind(datalist: Datalist, facts: Sequence[CaseFacts]) -> tuple[int, int]:
    """The spatial axes and the channels that all cases have."""
    if not facts:
        raise DataError(f"{datalist.path} has no usable case; see `medseg check`.")
    dims = {len(case.shape) for case in facts}
    channels = {case.channels for case in facts}
    if len(dims) > 1 or len(channels) > 1:
        raise DataError(
            f"{datalist.path} mixes {sorted(dims)} spatial axes and {sorted(channels)} channels; expected one of each."
        )
    return dims.pop(), channels.pop()


def _configuration(dims: int, asked: PlanSettings) -> str:
    theirs = None if asked.nnunet is None else asked.nnunet.configuration
    return theirs or asked.configuration or (SLICES if dims == 2 else FULL)


# ---------------------------------------------------------------------- rules; each notes its reason
def _crops(
    facts: Sequence[CaseFacts], dims: int, kinds: Sequence[str], asked: PlanSettings, reasons: dict[str, str]
) -> bool:
    if asked.like_nnunet and not asked.whole_volume:
        return crops(facts, reasons)
    zero_share = float(np.median([case.zero_share for case in facts]))
    reasons["crop_foreground"] = f"{zero_share:.0%} of the voxels are 0 in every channel (median case)" + (
        "; the whole field of view is kept" if asked.whole_volume else ""
    )
    return zero_share > 0.25 and dims == 3 and "ct" not in kinds and not asked.whole_volume


def _flip_axes(datalist: Datalist, dims: int, slice_axis: int | None, reasons: dict[str, str]) -> list[int]:
    sided = tells_sides(datalist.label_space.labels)
    plausible = [0, 1] if dims == 2 else [0]  # of 2D images no axis is known to be the sides'
    axes = [] if sided else [axis for axis in plausible if axis != slice_axis]
    reasons["flip_axes"] = (
        "label names tell left from right"
        if sided
        else "mirror images are plausible along these axes"
        if axes
        else "mirror images are plausible from left to right, across the slices"
    )
    return axes


def _coarse_axis(grid: PlannedGrid, dims: int, asked: PlanSettings, reasons: dict[str, str]) -> int | None:
    """The axis of the coarsest spacing, of equal ones the last, where it is coarse."""
    if dims == 2 or grid.slice_axis is not None:
        return grid.slice_axis
    mm = grid.spacing or [1.0] * dims
    axis = max(range(dims), key=lambda axis: (mm[axis], axis))
    if asked.like_nnunet:
        reasons["coarse_axis"] = "nnU-Net's: the coarsest axis, if it has less than a third of a patch's longest side"
        return axis if max(grid.roi_size) > ANISOTROPY * grid.roi_size[axis] else None
    reasons["coarse_axis"] = "the axis that is more than three times as coarse as the finest, if one is"
    return axis if mm[axis] > ANISOTROPY * min(mm) else None


def _rotate(coarse_axis: int | None, dims: int, reasons: dict[str, str]) -> list[float]:
    reasons["rotate"] = "radians per axis; in plane only where slices are coarse"
    if dims == 2:
        return [0.3]
    return [0.2] * 3 if coarse_axis is None else [0.3 if axis == coarse_axis else 0.0 for axis in range(dims)]


def _batch_size(dims: int, asked: PlanSettings, grid: PlannedGrid, reasons: dict[str, str]) -> int:
    if asked.batch_size is not None:
        size, reason = asked.batch_size, SET
    elif asked.whole_volume:
        size, reason = 1, "whole volumes one by one, as published"
    elif grid.slice_axis is not None:
        held = 2 * (GPU_VOXELS if asked.gpu else CPU_VOXELS)[3] // int(np.prod(grid.roi_size))
        size, reason = (
            min(max(held, 8), _MOST_SLICES),
            f"slices, as many as two patches in 3D hold; {_MOST_SLICES} at most",
        )
    elif dims == 2:
        size, reason = 8, "2D images differ more than patches of a volume, and batch norm needs some"
    else:
        size, reason = 2, "nnU-Net's smallest batch; the patch takes the memory"
    reasons["batch_size"] = reason
    return size


def _repeats(count: int, batch_size: int, asked: PlanSettings, reasons: dict[str, str]) -> int:
    if asked.repeats is not None:
        reasons["repeats"] = SET
        return asked.repeats
    per_epoch = (_GPU_ITERATIONS if asked.gpu else _CPU_ITERATIONS) * batch_size
    repeats = max(1, round(per_epoch / count)) if count < per_epoch else 1
    reasons["repeats"] = f"{count} training cases make epochs of {count * repeats // batch_size} iterations"
    return repeats


def _long_epochs(per_epoch: int, asked: PlanSettings, reasons: dict[str, str]) -> int:
    usual = _GPU_ITERATIONS if asked.gpu else _CPU_ITERATIONS
    reasons["long_epochs"] = f"as many iterations as {_LONG} epochs of {usual}"
    return max(1, round(_LONG * usual / per_epoch))


def _cache(cache_gib: float, count: int, asked: PlanSettings, reasons: dict[str, str]) -> str:
    free = available_gib() if asked.free_memory_gib is None else asked.free_memory_gib
    each = f" in each of {asked.processes} processes" * (asked.processes > 1)
    needed = f"{count} cases need about {cache_gib:.2g} GiB after preprocessing{each}"
    reasons["cache"] = f"{needed}, {free:.1f} GiB are free"
    return "cache" if asked.processes * cache_gib < 0.6 * free else "persistent"


def _learning_rate(dims: int, asked: PlanSettings, reasons: dict[str, str]) -> float:
    sizes = "usual for published sizes" if asked.gpu else "small networks learn by large steps"
    reasons["learning_rate"] = f"AdamW; {sizes}"
    return 0.001 if asked.gpu else 0.002 if dims == 2 else 0.005


def _light(asked: PlanSettings, reasons: dict[str, str]) -> bool:
    small = "no GPU: small networks, so that steps take well under a second"
    reasons["light"] = "GPU: published network sizes" if asked.gpu else small
    return not asked.gpu
