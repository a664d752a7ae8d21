"""Activation checkpointing: less memory in training for a second forward pass."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.utils.checkpoint import checkpoint

from medseg.errors import ConfigError
from medseg.networks.recording import exporting

__all__ = ["checkpointed", "recomputable"]


def checkpointed(network: nn.Module) -> nn.Module:
    """``network`` itself, whose blocks keep only their inputs in training and are computed again for the gradients.

    Blocks are the members of its outermost ``nn.ModuleList``s; its parameters, their names and its numbers stay. Blocks
    with running statistics, which a second pass would update twice, are left as they are.

    Raises:
        ConfigError: it has no such block.
    """
    blocks = list(recomputable(network))
    if not blocks:
        raise ConfigError(
            f"{type(network).__name__} has no block to compute again, expected members of an nn.ModuleList without "
            "running statistics; train it without checkpointing."
        )
    for block in blocks:
        block.__class__ = _recomputing(type(block))
    return network


def recomputable(network: nn.Module) -> Iterator[nn.Module]:
    """The blocks that ``checkpointed`` would compute again; none where it has been at the network already."""
    for child in network.children():
        if not isinstance(child, nn.ModuleList):
            yield from recomputable(child)
            continue
        for block in child:
            running = any(isinstance(m, _BatchNorm) and m.track_running_stats for m in block.modules())
            done = getattr(type(block), "recomputes", False)
            alone = isinstance(block, _ConvNd)  # which keeps nothing but its input anyway
            if not running and not done and not alone and next(block.parameters(), None) is not None:
                yield block


def _recomputing(cls: type[nn.Module]) -> type[nn.Module]:
    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        plain = functools.partial(cls.forward, self)
        if exporting() or not (self.training and torch.is_grad_enabled()):
            return plain(*args, **kwargs)
        return checkpoint(plain, *args, use_reentrant=False, **kwargs)

    return type(cls.__name__, (cls,), {"forward": forward, "recomputes": True, "__module__": cls.__module__})
