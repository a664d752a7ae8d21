"""What float32 means on a GPU: all of its digits, in trainings, predictions and benchmarks alike."""

from __future__ import annotations

import torch

__all__ = ["full_float32"]


def full_float32() -> None:
    """Compute convolutions and matrix products of float32 in float32, from here on in this process.

    torch rounds the operands of convolutions to TF32 (10 bits of mantissa) by default, which is several times as fast
    on tensor cores. Layers that stay in float32 under autocast do so for these digits; whoever wants speed takes bf16.
    """
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
