"""Blending of overlapping patches in a ring of planes, which are handed out as soon as no patch adds to them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

import torch

__all__ = ["blended", "ring_voxels", "slow_first"]

_LARGE = 2**24  # voxels of a ring: 64 MiB per channel


def ring_voxels(size: Sequence[int], roi: Sequence[int]) -> int:
    """Voxels of the ring for an image of ``size``, whose first axis is the slow one."""
    return min(roi[0], size[0]) * math.prod(size[1:])


def slow_first(size: Sequence[int], roi: Sequence[int]) -> tuple[int, ...]:
    """The axes of an image, the one along which patches proceed in front: the first, as with MONAI, but for a large
    image the one whose ring is the smallest.
    """
    axes = range(len(size))
    orders = [(axis, *(a for a in axes if a != axis)) for axis in axes]
    voxels = [ring_voxels([size[a] for a in order], [roi[a] for a in order]) for order in orders]
    return orders[0 if voxels[0] <= _LARGE else voxels.index(min(voxels))]


def blended(
    outputs: Iterable[tuple[Sequence[slice], torch.Tensor]], importance: torch.Tensor, size: Sequence[int], planes: int
) -> Iterator[torch.Tensor]:
    """The weighted mean of patches, in pieces along the first spatial axis.

    Args:
        outputs: place of each patch and the network's output ``(C, *patch)``, which is changed; places ascend along the
            first axis. Where they come as MONAI's do, the sums are equal to its sums, to the bit.
        importance: weights ``(*patch)``.
        size: size of the whole image, in voxels.
        planes: most planes of a piece.

    Yields:
        ``(C, n, *rest)``, a view that is good until the next piece is asked for.
    """
    depth = min(len(importance), size[0])
    ring, count, done = torch.empty(0), torch.empty(0), 0

    def flushed(end: int) -> Iterator[torch.Tensor]:
        nonlocal done
        while done < end:
            first = done % depth
            part = slice(first, min(first + end - done, first + planes, depth))
            ring[:, part] /= count[part]
            yield ring[:, part]
            ring[:, part] = 0
            count[part] = 0
            done += part.stop - part.start

    for place, output in outputs:
        if not len(ring):
            ring = _zeros_where_room((len(output), depth, *size[1:]), output)
            count = importance.new_zeros((depth, *size[1:]), device=ring.device)
        start = place[0].start
        yield from flushed(start)
        output *= importance
        cut = depth - start % depth  # where the patch goes round the end of the ring
        for of_patch, first in ((slice(0, cut), start % depth), (slice(cut, depth), 0)):
            part = output[:, of_patch].to(ring.device)
            where = (slice(first, first + part.shape[1]), *place[1:])
            ring[(slice(None), *where)] += part
            count[where] += importance[of_patch].to(ring.device)
    yield from flushed(size[0])


def _zeros_where_room(shape: Sequence[int], like: torch.Tensor) -> torch.Tensor:
    """Zeros of the type and on the device of ``like``, or on the CPU where that has no room."""
    try:
        return like.new_zeros(shape)
    except torch.OutOfMemoryError:
        return like.new_zeros(shape, device="cpu")
