"""Sizes that a network cannot take: zeros at the end of each axis, and the logits cropped back."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

__all__ = ["crop_to", "pad_to_multiples"]


def pad_to_multiples(x: Tensor, multiples: Sequence[int], *, normalizes: bool = True) -> Tensor:
    """``x: (B, C, *spatial)`` with zeros at the end of each axis, so that ``multiples`` divide its sizes.

    Args:
        x: the image.
        multiples: what the network divides each axis by.
        normalizes: a volume that would keep one voxel at the bottleneck, where nothing could be normalised, is padded
            further along its last axis.
    """
    size = [int(n) for n in x.shape[2:]]
    padded = [math.ceil(n / m) * m for n, m in zip(size, multiples, strict=True)]
    if normalizes and padded == list(multiples):
        padded[-1] *= 2
    if padded == size:
        return x
    return F.pad(x, [n for old, new in zip(size[::-1], padded[::-1], strict=True) for n in (0, new - old)])


def crop_to(x: Tensor, size: Sequence[int], scales: Sequence[int] | None = None) -> Tensor:
    """The first ``size`` voxels of ``x: (B, C, *spatial)``, divided by ``scales`` per axis and rounded up."""
    wanted = [math.ceil(int(n) / scale) for n, scale in zip(size, scales or [1] * len(size), strict=True)]
    for axis, n in enumerate(wanted, 2):
        x = x.narrow(axis, 0, n)
    return x
