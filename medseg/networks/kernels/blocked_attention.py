"""Attention without softmax whose scores never exist all at once."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from medseg.networks.recording import recording

__all__ = ["attend"]

_BLOCK = {"cpu": 2**18}  # scores at once: they fit a core's second-level cache
_BLOCK_ELSEWHERE = 2**26


def attend(query: Tensor, key: Tensor, value: Tensor, act: Callable[[Tensor], Tensor]) -> Tensor:
    """``act(query key^T) value`` for (B, heads, tokens, channels), in blocks of queries.

    The scores of all pairs of tokens never exist at once; where gradients are needed, they are computed again.
    ``act`` may overwrite its input.
    """

    def scored(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return act(query @ key.transpose(-2, -1)) @ value

    tokens = key.shape[-2]
    length = max(1, _BLOCK.get(query.device.type, _BLOCK_ELSEWHERE) // tokens)
    if recording() or query.shape[-2] <= length:
        return scored(query, key, value)
    if torch.is_grad_enabled():
        parts = [checkpoint(scored, part, key, value, use_reentrant=False) for part in query.split(length, -2)]
        return torch.cat(parts, -2)
    out = query.new_empty(*query.shape[:-1], value.shape[-1])
    for result, q, k, v in zip(*(x.flatten(0, 1) for x in (out, query, key, value)), strict=True):
        for part, block in zip(result.split(length), q.split(length), strict=True):
            torch.mm(act(block @ k.t()), v, out=part)
    return out
