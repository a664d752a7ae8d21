"""Blending of overlapping patches in a ring of planes, which are handed out as soon as no patch adds to them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch

__all__ = ["blended"]


def blended(
    outputs: Iterable[tuple[Sequence[slice], torch.Tensor]], importance: torch.Tensor, size: Sequence[int], planes: int
) -> Iterator[torch.Tensor]:
    """The weighted mean of patches, in pieces along the first spatial axis.

    Args:
        outputs: place of each patch and the network's output ``(C, *patch)``, which is changed; places ascend along the
            first axis, as MONAI's do: the sums are then equal to its sums, to the bit.
        importance: weights ``(*patch)``.
        size: of the whole image, in voxels.
        planes: most planes of a piece.

    Yields:
        ``(C, n, *rest)``, a view that is good until the next piece is asked for.
    """
    depth = min(len(importance), size[0])
    count = importance.new_zeros((depth, *size[1:]))
    ring, done = importance.new_empty(0), 0

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
            ring = zeros_where_room((len(output), *count.shape), output)
            count = count.to(ring.device)
        start = place[0].start
        yield from flushed(start)
        output *= importance
        cut = depth - start % depth  # where the patch goes round the end of the ring
        for of_patch, of_ring in ((slice(0, cut), start % depth), (slice(cut, depth), 0)):
            part = output[:, of_patch].to(ring.device)
            if part.shape[1]:
                where = (slice(of_ring, of_ring + part.shape[1]), *place[1:])
                ring[(slice(None), *where)] += part
                count[where] += importance[of_patch].to(ring.device)
    yield from flushed(size[0])


def zeros_where_room(shape: Sequence[int], like: torch.Tensor) -> torch.Tensor:
    """Zeros of the type and on the device of ``like``, or on the CPU where that has no room."""
    try:
        return like.new_zeros(shape)
    except torch.OutOfMemoryError:
        return like.new_zeros(shape, device="cpu")
