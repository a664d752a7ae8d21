"""SELU by powers of two, which cost torch a quarter of the exponential."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medseg.networks.recording import recording

__all__ = ["SELU"]

_ALPHA, _SCALE = 1.6732632423543772, 1.0507009873554805  # as in torch
_LEAST = torch.tensor(-_ALPHA * _SCALE, device="cpu")  # also where this module is imported under another device
_LOG2_E = math.log2(math.e)


class SELU(nn.Module):
    """SELU that overwrites its input: ``scale * (max(x, 0) + alpha * (exp(min(x, 0)) - 1))``.

    Args:
        fast: without gradients on a CPU, in float32, take a power of two for the exponential. The absolute error stays
            at 1e-7, but not the relative error of small values.
    """

    def __init__(self, *, fast: bool = False) -> None:
        super().__init__()
        self.fast = fast

    def forward(self, x: Tensor) -> Tensor:
        if torch.jit.is_scripting():
            return F.selu(x)
        plain = x.device.type != "cpu" or x.dtype != torch.float32 or torch.is_grad_enabled() or recording()
        if plain or not self.fast:
            return F.selu(x, inplace=not recording())
        power = x.clamp(max=0).mul_(_LOG2_E).exp2_()
        negative = torch.add(_LEAST, power, alpha=_ALPHA * _SCALE, out=power)
        return torch.add(negative, x.clamp_(min=0), alpha=_SCALE, out=x)
