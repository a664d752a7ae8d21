"""Exact depth-wise convolution with large kernels, in 2D and 3D: direct, or as a product of Fourier transforms.

``y[p] = sum_q w[q] x[p + q - r] + b`` per channel, with an odd kernel of half width ``r`` and zeros outside the image,
as ``torch.nn.ConvNd`` with ``groups=channels`` and "same" padding. Taps that only ever meet padding (an axis shorter
than ``r + 1``) are cropped first, which changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medseg.errors import ConfigError
from medseg.networks.kernels.conv_choice import choose
from medseg.networks.kernels.fft_depthwise import KeptSpectrum, fft_depthwise
from medseg.networks.recording import exporting

__all__ = ["DepthwiseConv"]

METHODS = ("auto", "direct", "fft")


class DepthwiseConv(nn.Module):
    """``x: (B, channels, *spatial) -> (B, channels, *spatial)``, stride 1, zero padding.

    Parameters are those of ``torch.nn.ConvNd(channels, channels, kernel_size, padding=kernel_size // 2,
    groups=channels)``. In evaluation mode without gradients the kernel's spectrum is kept until the weight changes
    (in place or by assignment; not by writing to ``weight.data``), the device changes, or training begins. While a
    graph is scripted, traced or exported it is the direct form, for any size; compiled, whichever is chosen.

    Args:
        spatial_dims: 2 or 3.
        kernel_size: odd, one number or one per axis.
        bias: add a bias per channel.
        method: ``direct``, ``fft`` or ``auto``, the faster of the two by a rule (``conv_choice``).

    Raises:
        ConfigError: an even kernel, other dimensions, or an unknown method.
    """

    def __init__(
        self,
        spatial_dims: int,
        channels: int,
        kernel_size: int | Sequence[int],
        *,
        bias: bool = True,
        method: str = "auto",
    ) -> None:
        super().__init__()
        kernel = (kernel_size,) * spatial_dims if isinstance(kernel_size, int) else tuple(kernel_size)
        if spatial_dims not in (2, 3) or len(kernel) != spatial_dims:
            raise ConfigError(
                f"spatial_dims is {spatial_dims} and kernel_size {list(kernel)}; expected 2 or 3 axes, and as many "
                "kernel sizes."
            )
        if any(k < 1 or k % 2 == 0 for k in kernel):
            raise ConfigError(f"kernel_size is {list(kernel)}; use odd numbers, so that there is a centre.")
        if method not in METHODS:
            raise ConfigError(f"No method '{method}'; use one of {', '.join(METHODS)}.")
        self.groups = channels  # what torch's convolutions call it
        self.method = method
        self.weight = nn.Parameter(torch.empty(channels, 1, *kernel))
        self.bias = nn.Parameter(torch.empty(channels)) if bias else None
        self._kept = KeptSpectrum()
        bound = 1 / math.sqrt(math.prod(kernel))  # torch's default for convolutions
        nn.init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            nn.init.uniform_(self.bias, -bound, bound)

    def extra_repr(self) -> str:
        return f"{self.groups}, kernel_size={tuple(self.weight.shape[2:])}, method={self.method!r}"

    def forward(self, x: Tensor) -> Tensor:
        if torch.jit.is_scripting():
            return _direct(x, self.weight, self.bias)
        weight = self.weight
        if exporting():
            return _direct(x, weight, self.bias)
        cropped = _crop(weight, x.shape[2:])
        if choose(self.method, x, cropped) == "direct":
            return _direct(x, cropped, self.bias)
        keep = not (self.training or torch.is_grad_enabled() or torch.compiler.is_compiling() or weight.is_inference())
        if keep:
            return self._kept(x, weight, cropped, self.bias)
        y = fft_depthwise(x, cropped)
        return y if self.bias is None else y + self.bias.to(y.dtype).view(-1, *[1] * (x.dim() - 2))

    def train(self, mode: bool = True) -> DepthwiseConv:
        if mode:
            self._kept.clear()
        return super().train(mode)

    def _apply(self, fn: Any, recurse: bool = True) -> DepthwiseConv:
        self._kept.clear()
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]  # torch's
        return self


def _direct(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    padding = [k // 2 for k in weight.shape[2:]]
    if x.dim() == 4:
        return F.conv2d(x, weight, bias, padding=padding, groups=x.shape[1])
    return F.conv3d(x, weight, bias, padding=padding, groups=x.shape[1])


def _crop(weight: Tensor, spatial: Sequence[int]) -> Tensor:
    """The taps that can meet the image: offsets of at most ``n - 1`` per axis."""
    for axis, n in enumerate(spatial, 2):
        half = weight.shape[axis] // 2
        if half > n - 1:
            weight = weight.narrow(axis, half - (n - 1), 2 * n - 1)
    return weight
