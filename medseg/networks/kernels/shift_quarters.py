"""The temporal shift of two groups of channels in place, without copies of the channels that stay."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["shift_quarters_"]


def shift_quarters_(x: Tensor, fold: int) -> Tensor:
    """In place, differentiable: of ``x: (B, C, S, H, W)`` the first ``fold`` channels up one slice, the last down."""
    if torch.is_grad_enabled() and x.requires_grad:
        return _ShiftQuarters.apply(x, fold)
    return _shift_quarters_(x, fold)


def _shift_quarters_(x: Tensor, fold: int, reverse: bool = False) -> Tensor:
    """In place: the first ``fold`` channels up, the last ``fold`` down (``reverse``: the other way round)."""
    first, last = x[:, :fold], x[:, -fold:]
    if reverse:
        first, last = last, first
    first[:, :, 1:] = first[:, :, :-1].clone()
    first[:, :, 0] = 0
    last[:, :, :-1] = last[:, :, 1:].clone()
    last[:, :, -1] = 0
    return x


class _ShiftQuarters(torch.autograd.Function):
    """The in-place shift; its backward pass is the opposite shift of the gradient."""

    @staticmethod
    def forward(ctx, x: Tensor, fold: int) -> Tensor:
        ctx.mark_dirty(x)
        ctx.fold = fold
        return _shift_quarters_(x, fold)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        return _shift_quarters_(grad.clone(), ctx.fold, reverse=True), None
