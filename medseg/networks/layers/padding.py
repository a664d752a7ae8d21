"""Sizes that a network cannot take: zeros at the end of each axis, and the logits cropped back."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor

__all__ = ["crop_to", "pad_to_multiples"]


def pad_to_multiples(x: Tensor, multiples: list[int], *, normalizes: bool) -> Tensor:
    """``x: (B, C, *spatial)`` with zeros at the end of each axis, so that ``multiples`` divide its sizes.

    Args:
        x: the image.
        multiples: what the network divides each axis by.
        normalizes: a volume that would keep one voxel at the bottleneck, where nothing could be normalised, is padded
            further along its last axis.
    """
    size = [int(n) for n in x.shape[2:]]
    padded = [math.ceil(n / m) * m for n, m in zip(size, multiples)]
    if normalizes and padded == multiples:
        padded[-1] = 2 * padded[-1]
    if padded == size:
        return x
    pads: list[int] = []
    for old, new in zip(size, padded):
        pads = [0, new - old] + pads
    return F.pad(x, pads)


def crop_to(x: Tensor, size: list[int], scales: list[int] | None = None) -> Tensor:
    """The first ``size`` voxels of ``x: (B, C, *spatial)``, divided by ``scales`` per axis and rounded up."""
    for axis, n in enumerate(size):
        x = x.narrow(axis + 2, 0, math.ceil(int(n) / (1 if scales is None else scales[axis])))
    return x
