"""Neural operators slab by slab along the first axis.

Everything that they do in space is done voxel by voxel, except the transforms, which are sums over an axis. So while a
slab is in the cache, it ends one block and starts the transform of the next; features that wait for their skip are the
only large memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from medseg.networks.layers.hartley import HartleyGrid
from medseg.networks.recording import full_precision

__all__ = ["forward_in_slabs"]

_SLAB = {"cpu": 2**19}  # numbers of a slab: 2 MiB, which stay in the cache
_SLAB_ELSEWHERE = 2**26


class _Block(Protocol):
    """What is called of an ``OperatorBlock``."""

    def spectral(self, products: Tensor) -> Tensor: ...
    def enter(self, x: Tensor, skip: Tensor) -> Tensor: ...
    def merge(self, y: Tensor, x: Tensor) -> Tensor: ...


class _Network(Protocol):
    """What is read and called of an ``OperatorNetwork``, which itself calls ``forward_in_slabs``."""

    filters: int
    enters: list[int]

    @property
    def conv_in(self) -> nn.Module | None: ...
    @property
    def conv1(self) -> nn.Module: ...
    def modes(self, size: list[int]) -> list[int]: ...
    def blocks(self) -> Sequence[_Block]: ...
    def add_to_head(self, head: Tensor | None, x: Tensor, number: int) -> Tensor | None: ...
    def features(self, x: Tensor) -> Tensor: ...


def forward_in_slabs(network: _Network, x: Tensor) -> Tensor:
    """``network.features(x)`` without gradients; itself, where one slab holds the image and would only be copied.

    A pass over the slabs ends a block (the first: ``conv1``), adds to the head, enters the next block and sums up its
    transform; results take the place of their input, unless that waits.
    """
    size = list(x.shape[2:])
    length = max(1, _SLAB.get(x.device.type, _SLAB_ELSEWHERE) // (network.filters * x[0, 0, :1].numel()))
    if length >= size[0]:
        return network.features(x)
    grid = HartleyGrid(size, network.modes(size), x)
    slabs = [slice(start, start + length) for start in range(0, size[0], length)]
    blocks = network.blocks()
    out = None if network.conv_in is None else x  # the image itself stays
    head: Tensor | None = None
    waiting: dict[int, Tensor] = {}
    planes = torch.empty(0)
    coefficients: Tensor | None = None
    for number in range(len(blocks) + 1):  # of blocks that are done after the pass
        follower = blocks[number] if number < len(blocks) else None
        skip = waiting.pop(number, None)
        base = head
        for slab in slabs:
            y = x[:, :, slab]
            if coefficients is None:
                y = network.conv1(y)
            else:
                with full_precision(x):
                    operated = grid.image(coefficients[:, :, slab])
                y = blocks[number - 1].merge(operated.to(x.dtype), y)
            share = network.add_to_head(None if base is None else base[:, :, slab], y, number)
            if share is not None:
                head = share.new_empty(*share.shape[:2], *size) if head is None else head
                head[:, :, slab] = share
            if follower is None:
                continue
            if skip is not None:
                y = follower.enter(y, skip[:, :, slab])
            out = y.new_empty(*y.shape[:2], *size) if out is None else out
            out[:, :, slab] = y
            with full_precision(y):
                part = grid.planes(y)
            if planes.numel() == 0:
                planes = part.new_empty(*part.shape[:2], *size[:1], *part.shape[3:])
            planes[:, :, slab] = part
        if follower is None:
            break
        assert out is not None
        x = out
        with full_precision(x):
            coefficients = grid.coefficients(follower.spectral(grid.products(planes)))
        if number and network.enters[number - 1] >= 0:
            waiting[network.enters[number - 1]] = x
            out = None  # that result must stay
    assert head is not None
    return head
