"""Operators for 3D feature maps in channels-last memory, where convolutions on a CPU take about half the time.

Tensors keep their logical shape (B, C, D, H, W); only the order in memory differs, so every operator here gives the
same values for either layout. While a graph is recorded (``torch.jit.trace``, ``torch.export``, ``torch.compile``) the
plain torch operator is used, which does not depend on the batch size.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["InstanceNorm", "PointwiseConv", "channels_last", "instance_norm", "recording"]

_BLOCK = 2**17  # numbers whose squares are summed at once: they stay in cache, and the rounding error stays small


def recording() -> bool:
    """Whether the current forward is being traced, exported or compiled."""
    return torch.jit.is_tracing() or torch.compiler.is_compiling()


def channels_last(x: Tensor) -> Tensor:
    """``x: (B, C, D, H, W)`` in channels-last memory on a CPU; elsewhere, and while recording, as it is."""
    if x.device.type != "cpu" or recording():
        return x
    if x.shape[1] == 1:  # both layouts at once; a copy gets the strides that convolutions go by
        return x.clone(memory_format=torch.channels_last_3d)
    return x.contiguous(memory_format=torch.channels_last_3d)


def _fast(x: Tensor) -> bool:
    return (
        x.device.type == "cpu"
        and x.dim() == 5
        and not recording()
        and x.is_contiguous(memory_format=torch.channels_last_3d)
    )


def _rows(x: Tensor) -> Tensor:
    """(B, C, D, H, W) in channels-last memory as a view (B, voxels, C)."""
    return x.permute(0, 2, 3, 4, 1).reshape(x.shape[0], -1, x.shape[1])


def _normalize_(x: Tensor, eps: float) -> Tensor:
    """Subtract the mean over voxels and divide by the deviation, in place; returns 1 / deviation, (B, 1, C)."""
    rows = _rows(x)
    rows.sub_(rows.mean(dim=1, keepdim=True))
    scale = rows.new_zeros(rows.shape[0], 1, rows.shape[2])
    length = max(1, _BLOCK // rows.shape[2])
    buffer = rows.new_empty(min(length, rows.shape[1]), rows.shape[2])
    for sample, sums in zip(rows, scale, strict=True):
        for part in sample.split(length):
            sums += torch.mul(part, part, out=buffer[: len(part)]).sum(dim=0)
    scale.div_(rows.shape[1]).add_(eps).rsqrt_()
    rows.mul_(scale)
    return scale


class _InstanceNorm(torch.autograd.Function):
    """Instance norm in channels-last memory; the backward pass is that of batch norm, sample by sample."""

    @staticmethod
    def forward(ctx, x: Tensor, eps: float) -> Tensor:
        y = x.clone(memory_format=torch.preserve_format)
        scale = _normalize_(y, eps)
        ctx.save_for_backward(x, scale)
        ctx.eps = eps
        return y

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        x, scale = ctx.saved_tensors
        grad = grad.contiguous(memory_format=torch.channels_last_3d)
        mean = _rows(x).mean(dim=1)
        result = torch.empty_like(x)
        for b in range(x.shape[0]):
            result[b : b + 1] = torch.ops.aten.native_batch_norm_backward(
                grad[b : b + 1],
                x[b : b + 1],
                None,
                None,
                None,
                mean[b],
                scale[b, 0],
                True,
                ctx.eps,
                [True, False, False],
            )[0]
        return result, None


def instance_norm(
    x: Tensor, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5, inplace: bool = False
) -> Tensor:
    """``torch.nn.functional.instance_norm`` of ``x: (B, C, D, H, W)``.

    ``inplace`` overwrites ``x`` where gradients are off.
    """
    if not _fast(x) or x.dtype in (torch.bfloat16, torch.float16):
        return F.instance_norm(x, weight=weight, bias=bias, eps=eps)
    if x[0, 0].numel() == 1:
        raise ValueError(f"Instance norm needs more than one voxel per channel, got {tuple(x.shape)}.")
    if torch.is_grad_enabled() and x.requires_grad:
        y = _InstanceNorm.apply(x, eps)
    else:
        y = x if inplace else x.clone(memory_format=torch.preserve_format)
        _normalize_(y, eps)
    if weight is None or bias is None:
        return y
    return torch.addcmul(bias.view(-1, 1, 1, 1), y, weight.view(-1, 1, 1, 1))


class InstanceNorm(nn.InstanceNorm3d):
    """``nn.InstanceNorm3d`` for features that only this layer reads: it may overwrite them where gradients are off."""

    def forward(self, x: Tensor) -> Tensor:
        return instance_norm(x, self.weight, self.bias, self.eps, inplace=True)


class PointwiseConv(nn.Conv3d):
    """A 1x1x1 convolution; a stride picks voxels first, and channels-last features are one matrix product."""

    def __init__(
        self, in_channels: int, out_channels: int, stride: tuple[int, int, int] = (1, 1, 1), bias: bool = True
    ):
        super().__init__(in_channels, out_channels, kernel_size=1, stride=stride, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        if not _fast(x):
            return super().forward(x)
        a, b, c = self.stride
        rows = x[:, :, ::a, ::b, ::c].permute(0, 2, 3, 4, 1)
        return F.linear(rows, self.weight.flatten(1), self.bias).permute(0, 4, 1, 2, 3)
