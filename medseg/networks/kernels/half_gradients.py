"""3D convolutions whose gradients are right in half precision on a CPU."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from medseg.networks.recording import autocasting, full_precision

__all__ = ["right_gradients"]


def right_gradients(network: nn.Module) -> nn.Module:
    """``network`` itself; under autocast, 3D convolutions whose kernel is larger than their input run in float32.

    For these, such as a kernel of 3³ on feature maps of 2 x 2 x 4, oneDNN 3.12 (torch 2.13) computes the gradients of
    the weights from memory that it never wrote: wrong numbers, or none, in bf16 on a CPU. Forward passes, 2D and
    float32 are not affected.
    """
    for module in network.modules():
        if type(module) in _RIGHT:
            module.__class__ = _RIGHT[type(module)]
    return network


class _Conv3d(nn.Conv3d):
    def forward(self, input: Tensor) -> Tensor:
        if not _too_small(self, input):
            return super().forward(input)
        with full_precision(input):
            return super().forward(input.float())


class _ConvTranspose3d(nn.ConvTranspose3d):
    def forward(self, input: Tensor, output_size: Any = None) -> Tensor:
        if not _too_small(self, input):
            return super().forward(input, output_size)
        with full_precision(input):
            return super().forward(input.float(), output_size)


def _too_small(module: nn.Conv3d | nn.ConvTranspose3d, x: Tensor) -> bool:
    return autocasting(x) and any(n < k for n, k in zip(x.shape[2:], module.kernel_size, strict=True))


_RIGHT: dict[type[nn.Module], type[nn.Module]] = {nn.Conv3d: _Conv3d, nn.ConvTranspose3d: _ConvTranspose3d}
