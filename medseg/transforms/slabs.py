"""A network's output in pieces along one axis of the image, so that the whole of it need not be in memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

__all__ = ["CHUNK_BYTES", "Slabs"]

CHUNK_BYTES = 8 * 2**20  # of logits that are worked on at once; larger ones cost memory, and time for its pages
_LEAST_PLANES, _MOST_BYTES = 4, 128 * 2**20


@dataclass(frozen=True)
class Slabs:
    """Logits of one image.

    Attributes:
        channels: number of logits per voxel.
        shape: spatial shape of the whole.
        pieces: ``(F, n, *rest)`` in order along their first axis; each is good until the next is asked for.
        head: from features ``(F, *spatial)`` to logits ``(C, *spatial)``, voxel by voxel; ``None``: they are logits.
        order: which axes of the image the pieces' axes are.
        item: bytes per number.
        held: bytes that making the pieces holds, activations aside.
        probable: whether they are probabilities already.
        made: all logits ``(C, *spatial)``, where they are in memory.
    """

    channels: int
    shape: tuple[int, ...]
    pieces: Iterator[torch.Tensor]
    head: Callable[[torch.Tensor], torch.Tensor] | None = None
    order: tuple[int, ...] = (0, 1, 2)
    item: int = 4
    held: int = 0
    probable: bool = False
    made: torch.Tensor | None = None

    @property
    def bytes_at_once(self) -> int:
        """What all logits would take."""
        return self.channels * math.prod(self.shape) * self.item

    @classmethod
    def of(cls, logits: torch.Tensor) -> Slabs:
        """Of logits ``(C, *spatial)`` that are in memory."""
        planes = planes_of(logits.shape[0], logits.shape[2:], logits.element_size())
        shape, order = tuple(logits.shape[1:]), tuple(range(logits.dim() - 1))
        return cls(len(logits), shape, iter(logits.split(planes, 1)), None, order, logits.element_size(), made=logits)

    def logits(self, features: torch.Tensor) -> torch.Tensor:
        """``(F, *spatial)`` -> ``(C, *spatial)``."""
        return features if self.head is None else self.head(features)

    def whole(self) -> torch.Tensor:
        """Logits ``(C, *spatial)`` at once; on the CPU where a GPU has no room for them."""
        if self.made is not None:
            return self.made
        result, start = torch.empty(0), 0
        for piece in self.pieces:
            logits = self.logits(piece)
            if start == 0:
                result = empty_where_room((self.channels, *self.shape), logits)
            view = result.permute(0, *(axis + 1 for axis in self.order))
            view[:, start : start + logits.shape[1]] = logits
            start += logits.shape[1]
        return result


def planes_of(channels: int, rest: Sequence[int], item: int) -> int:
    """How many planes of ``rest`` voxels make a chunk; a few at least, since neighbours are read again, but for planes
    that are very large themselves.
    """
    plane = channels * item * max(1, math.prod(rest))
    return max(CHUNK_BYTES // plane, min(_LEAST_PLANES, max(1, _MOST_BYTES // plane)))


def empty_where_room(shape: Sequence[int], like: torch.Tensor) -> torch.Tensor:
    """An empty tensor of the type and on the device of ``like``, or on the CPU where that has no room."""
    try:
        return like.new_empty(shape)
    except torch.OutOfMemoryError:
        return like.new_empty(shape, device="cpu")
