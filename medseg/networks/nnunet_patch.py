"""Patch and batch together from a memory budget, as nnU-Net plans them (Isensee et al., Nature Methods 18, 2021,
supplement; its presets ResEnc M, L and XL for ``resenc_unet``: MICCAI 2024, arXiv 2404.09556).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from medseg.networks.layers.nnunet_topology import BLOCKS, features_of, nnunet_topology

__all__ = ["MEMORY_GB", "NnunetPatch", "nnunet_patch"]

MEMORY_GB = 8.0  # of the GPU that nnU-Net plans for by default
# Smallest memory in GB -> voxels of all feature maps of a batch that it holds, in 2D and in 3D.
_PLAIN = {MEMORY_GB: {2: 8.5e7, 3: 5.6e8}}
_RESIDUAL = {MEMORY_GB: {2: 1.35e8, 3: 6.8e8}, 24.0: {2: 3.8e8, 3: 2.1e9}, 40.0: {2: 5.6e8, 3: 3.6e9}}  # M, L, XL
_BATCH = {2: 12, 3: 2}  # patches of a batch that they are divided by
_FEWEST = 2
_LARGEST = {2: 2048**2, 3: 256**3}  # voxels of the first patch that is tried
_SHARE = {False: 0.05, True: 1.0}  # of all voxels of the training cases that a batch may hold


@dataclass(frozen=True)
class NnunetPatch:
    """What nnU-Net chooses for a data set.

    Attributes:
        roi_size: patch in voxels.
        batch_size: patches per batch.
        kernels, strides: kernel sizes and strides per stage (``nnunet_topology``).
    """

    roi_size: tuple[int, ...]
    batch_size: int
    kernels: list[list[int]]
    strides: list[list[int]]


def nnunet_patch(
    spacing: Sequence[float],
    median_shape: Sequence[float],
    *,
    out_channels: int,
    num_cases: int,
    memory_gb: float = MEMORY_GB,
    residual: bool = False,
) -> NnunetPatch:
    """The patch, the batch and the stages for a U-Net of nnU-Net's full width.

    A patch of equal millimetres per axis, within the median shape, loses voxels along the axis that is largest
    relative to that shape until two patches' feature maps fit; where they fit at once, the batch grows.

    Args:
        spacing: mm per axis that cases are resampled to.
        median_shape: median of the cases' sizes in voxels at that spacing.
        out_channels: number of classes, background included.
        num_cases: number of training cases; a batch holds at most 5 % of their voxels, of ``resenc_unet`` all.
        memory_gb: memory of the GPU in GB; 8, 24 and 40 are the presets M, L and XL.
        residual: for ``resenc_unet``, which has more feature maps.
    """
    dims = len(spacing)
    rooms = _RESIDUAL if residual else _PLAIN
    least = max((gb for gb in rooms if gb <= memory_gb), default=MEMORY_GB)
    room = rooms[least][dims] * memory_gb / least
    side = (_LARGEST[dims] * math.prod(spacing)) ** (1 / dims)
    patch = [min(round(side / mm), math.ceil(n)) for mm, n in zip(spacing, median_shape, strict=True)]
    patch, kernels, strides = _rounded(patch, spacing)
    while (needed := _feature_voxels(patch, strides, out_channels, residual=residual)) > room * _BATCH[dims] / _FEWEST:
        shares = [n / whole for n, whole in zip(patch, median_shape, strict=True)]
        steps = _steps(strides)
        reducible = [i for i in range(dims) if patch[i] > steps[i]]
        if not reducible:
            break
        axis = max(reducible, key=lambda i: (shares[i], i))
        smaller = list(patch)
        smaller[axis] -= steps[axis]
        smaller[axis] = patch[axis] - _steps(nnunet_topology(smaller, spacing)[1])[axis]  # its steps may be finer
        patch, kernels, strides = _rounded(smaller, spacing)
    most = round(_SHARE[residual] * num_cases * math.prod(median_shape) / math.prod(patch))
    batch = max(_FEWEST, min(round(_BATCH[dims] * room / needed), most))
    return NnunetPatch(tuple(patch), batch, kernels, strides)


def _rounded(patch: Sequence[int], spacing: Sequence[float]) -> tuple[list[int], list[list[int]], list[list[int]]]:
    """The patch, enlarged to what its strides divide, and kernel sizes and strides."""
    kernels, strides = nnunet_topology(patch, spacing)
    return [math.ceil(n / s) * s for n, s in zip(patch, _steps(strides), strict=True)], kernels, strides


def _steps(strides: Sequence[Sequence[int]]) -> list[int]:
    return [math.prod(axis) for axis in zip(*strides, strict=True)]


def _feature_voxels(
    patch: Sequence[int], strides: Sequence[Sequence[int]], out_channels: int, *, residual: bool
) -> int:
    """Voxels times channels of what the convolutions return for one patch."""
    widths = features_of(len(strides), len(patch))
    size = list(patch)
    total = (widths[0] * residual + out_channels) * math.prod(size)  # stem and head
    for stage, (width, stride) in enumerate(zip(widths, strides, strict=True)):
        size = [n // s for n, s in zip(size, stride, strict=True)]
        last = stage == len(strides) - 1
        if residual:  # blocks of two convolutions, a shortcut where they shrink, one convolution of the decoder
            convolutions = 2 * BLOCKS[min(stage, len(BLOCKS) - 1)] + (max(stride) > 1) + (not last)
        else:
            convolutions = 2 + 2 * (not last)
        total += width * math.prod(size) * (convolutions + (not last))  # with the transposed one
    return total
