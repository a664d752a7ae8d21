"""Blending of overlapping patches in a ring of planes, which are handed out as soon as no patch adds to them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import torch

__all__ = ["Ring", "blended", "ring_voxels", "slow_first"]

_LARGE = 2**24  # voxels of a ring: 64 MiB per channel


@dataclass
class Ring:
    """The planes that patches still add to.

    Attributes:
        sums: weighted sums ``(C, depth, *rest)``; empty before the first patch.
        weights: sums of the weights ``(depth, *rest)``.
    """

    sums: torch.Tensor = field(default_factory=lambda: torch.empty(0))
    weights: torch.Tensor = field(default_factory=lambda: torch.empty(0))

    def start(self, shape: Sequence[int], output: torch.Tensor, importance: torch.Tensor) -> None:
        """Zeros ``(C, depth, *rest)`` of the type and on the device of ``output``, or on the CPU for lack of room."""
        try:
            self.sums, self.weights = output.new_zeros(shape), importance.new_zeros(shape[1:])
        except torch.OutOfMemoryError:
            self.sums = output.new_zeros(shape, device="cpu")
            self.weights = importance.new_zeros(shape[1:], device="cpu")

    def to_cpu(self) -> bool:
        """Make room on a GPU; whether there was something to move."""
        moved = self.sums.device.type != "cpu"
        self.sums, self.weights = self.sums.cpu(), self.weights.cpu()
        return moved


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
    outputs: Iterable[tuple[Sequence[slice], torch.Tensor]],
    importance: torch.Tensor,
    size: Sequence[int],
    planes: int,
    ring: Ring | None = None,
) -> Iterator[torch.Tensor]:
    """The weighted mean of patches, in pieces along the first spatial axis.

    Args:
        outputs: place of each patch and the network's output ``(C, *patch)``, which is changed; places ascend along the
            first axis. Where they come as MONAI's do, the sums are equal to its sums, to the bit.
        importance: weights ``(*patch)``.
        size: size of the whole image, in voxels.
        planes: most planes of a piece.
        ring: where the sums are kept; whoever makes the outputs may move it to the CPU.

    Yields:
        ``(C, n, *rest)``, a view that is good until the next piece is asked for.
    """
    depth = min(len(importance), size[0])
    ring, done = ring or Ring(), 0

    def flushed(end: int) -> Iterator[torch.Tensor]:
        nonlocal done
        while done < end:
            first = done % depth
            part = slice(first, min(first + end - done, first + planes, depth))
            ring.sums[:, part] /= ring.weights[part]
            yield ring.sums[:, part]
            ring.sums[:, part] = 0
            ring.weights[part] = 0
            done += part.stop - part.start

    for place, output in outputs:
        if not len(ring.sums):
            ring.start((len(output), depth, *size[1:]), output, importance)
        start = place[0].start
        yield from flushed(start)
        output *= importance
        cut = depth - start % depth  # where the patch goes round the end of the ring
        for of_patch, first in ((slice(0, cut), start % depth), (slice(cut, depth), 0)):
            part = output[:, of_patch].to(ring.sums.device)
            where = (slice(first, first + part.shape[1]), *place[1:])
            ring.sums[(slice(None), *where)] += part
            ring.weights[where] += importance[of_patch].to(ring.weights.device)
        del output, part  # before the network makes the next one
    yield from flushed(size[0])
