"""The last layer of a network, where that is a convolution of single voxels.

A blend of patches is a weighted mean, and such a layer affine: it may as well come after the blend, once per voxel,
and memory then follows the network's features, not its classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

__all__ = ["split_head", "without"]


def split_head(network: Any, forward: Callable[[], torch.Tensor]) -> tuple[nn.Module | None, torch.Tensor]:
    """The convolution of single voxels that a network ends in, if it has more outputs than inputs, else ``None``.

    Args:
        network: network of any kind; compiled and scripted ones have no parts to look at.
        forward: calls it on some patches ``(B, ...)``.

    Returns:
        The layer, and the network's output ``(B, C, *spatial)``: without the layer where there is one.
    """
    parts = network.modules() if isinstance(network, nn.Module) else ()
    called: list[tuple[Any, torch.Tensor]] = []

    def note(module: nn.Module, args: Any, output: torch.Tensor) -> None:
        called[:] = [*((other, output.new_empty(0)) for other, _ in called), (module, output)]

    hooks = [part.register_forward_hook(note) for part in parts if _widens_voxels(part)]
    try:
        logits = forward()
    finally:
        for hook in hooks:
            hook.remove()
    if not called:
        return None, logits
    head, output = called[-1]
    once = sum(module is head for module, _ in called) == 1
    if (
        not once
        or output.dim() != logits.dim()
        or output.untyped_storage().data_ptr() != logits.untyped_storage().data_ptr()
    ):
        return None, logits  # something comes after it
    shape, sample = logits.shape, logits[:, :, :1].clone()
    del logits, output
    called.clear()
    with without(head):
        features = forward()
    fits = features.shape[1] == head.in_channels and features.shape[2:] == shape[2:]
    if fits and torch.allclose(head(features[:, :, :1]), sample, rtol=1e-4, atol=1e-4):
        return head, features
    return None, forward()  # the output is changed in place afterwards, say


def _widens_voxels(module: nn.Module) -> bool:
    """Whether it maps each voxel's channels to more channels, and sees no other voxels."""
    return (
        isinstance(module, (nn.Conv2d, nn.Conv3d))
        and set(module.kernel_size) == set(module.stride) == {1}
        and module.groups == 1
        and not any(module.padding)
        and module.in_channels < module.out_channels
    )


@contextmanager
def without(head: nn.Module | None) -> Iterator[None]:
    """The network passes on what the layer would be given."""
    if head is None:
        yield
        return
    head.forward = _same
    try:
        yield
    finally:
        del head.forward


def _same(features: torch.Tensor) -> torch.Tensor:
    return features
