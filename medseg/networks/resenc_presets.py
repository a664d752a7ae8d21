"""nnU-Net's presets ResEnc M, L and XL: ``resenc_unet`` at patches for three sizes of GPU (Isensee et al., MICCAI 2024,
arXiv 2404.09556).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from medseg.errors import ConfigError, nearest
from medseg.networks.layers.nnunet_topology import nnunet_topology
from medseg.networks.resenc_unet import BLOCKS, features_of

__all__ = ["ResEncPreset", "resenc_preset"]

# Voxels of all feature maps of a batch that the GPU of a preset holds (8, 24 and 40 GB), in 2D and in 3D.
_ROOM = {"M": {2: 1.35e8, 3: 6.8e8}, "L": {2: 3.8e8, 3: 2.1e9}, "XL": {2: 5.6e8, 3: 3.6e9}}
_BATCH = {2: 12, 3: 2}  # cases of the batch that they are for
_LARGEST = {2: 2048**2, 3: 256**3}  # voxels of the first patch that is tried


@dataclass(frozen=True)
class ResEncPreset:
    """What nnU-Net chooses for a data set.

    Attributes:
        roi_size: patch in voxels.
        batch_size: patches per batch.
        arguments: ``strides`` and ``kernel_sizes`` of ``resenc_unet``.
    """

    roi_size: tuple[int, ...]
    batch_size: int
    arguments: dict[str, Any]


def resenc_preset(
    name: str,
    spacing: Sequence[float],
    median_shape: Sequence[int],
    *,
    out_channels: int,
    num_cases: int,
) -> ResEncPreset:
    """The patch, batch and stages of a preset.

    A patch of equal millimetres per axis, within the median shape, loses voxels along the axis that is largest
    relative to that shape until its feature maps fit.

    Args:
        name: ``M``, ``L`` or ``XL``.
        spacing: mm per axis that cases are resampled to.
        median_shape: median of the cases' sizes in voxels at that spacing.
        out_channels: number of classes, background included.
        num_cases: number of training cases; a batch holds at most as many voxels as they do.

    Raises:
        ConfigError: an unknown preset.
    """
    if name not in _ROOM:
        raise ConfigError(f"nnU-Net has no preset ResEnc '{name}'.{nearest(name, _ROOM)} Known: {', '.join(_ROOM)}.")
    dims = len(spacing)
    side = (_LARGEST[dims] * math.prod(spacing)) ** (1 / dims)
    patch = [min(round(side / mm), n) for mm, n in zip(spacing, median_shape, strict=True)]
    patch, kernels, strides = _rounded(patch, spacing)
    room = _ROOM[name][dims]
    while (needed := _feature_voxels(patch, strides, out_channels)) > room:
        shares = [n / whole for n, whole in zip(patch, median_shape, strict=True)]
        axis = max(range(dims), key=lambda i: (shares[i], i))
        smaller = list(patch)
        smaller[axis] -= _steps(strides)[axis]
        smaller[axis] = patch[axis] - _steps(nnunet_topology(smaller, spacing)[1])[axis]  # its steps may be finer
        patch, kernels, strides = _rounded(smaller, spacing)
    batch = min(round(_BATCH[dims] * room / needed), round(num_cases * math.prod(median_shape) / math.prod(patch)))
    return ResEncPreset(tuple(patch), max(batch, 2), {"strides": strides, "kernel_sizes": kernels})


def _rounded(patch: Sequence[int], spacing: Sequence[float]) -> tuple[list[int], list[list[int]], list[list[int]]]:
    """The patch, enlarged to what its strides divide, and kernel sizes and strides."""
    kernels, strides = nnunet_topology(patch, spacing)
    return [math.ceil(n / s) * s for n, s in zip(patch, _steps(strides), strict=True)], kernels, strides


def _steps(strides: Sequence[Sequence[int]]) -> list[int]:
    return [math.prod(axis) for axis in zip(*strides, strict=True)]


def _feature_voxels(patch: Sequence[int], strides: Sequence[Sequence[int]], out_channels: int) -> int:
    """Voxels times channels of what the convolutions of ``resenc_unet`` return for one patch."""
    widths = features_of(len(strides), len(patch))
    size = list(patch)
    total = (widths[0] + out_channels) * math.prod(size)  # stem and head
    for stage, (width, stride) in enumerate(zip(widths, strides, strict=True)):
        size = [n // s for n, s in zip(size, stride, strict=True)]
        blocks = BLOCKS[min(stage, len(BLOCKS) - 1)]
        shortcut = max(stride) > 1
        decoder = 2 if stage < len(strides) - 1 else 0
        total += width * math.prod(size) * (2 * blocks + shortcut + decoder)
    return total
