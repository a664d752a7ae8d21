"""Channel maps per frequency: what a neural operator learns between a transform and its inverse.

Shared weights are one (out, in) matrix for all frequencies; individual weights are one matrix per kept mode. Operators
go from sums over products of cas to coefficients of such (see ``hartley``), most of them by way of the spectrum.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from medseg.errors import ConfigError, nearest
from medseg.networks.kernels.fourier_products import fourier_of_products
from medseg.networks.kernels.mix_channels import mix_channels
from medseg.networks.layers.conv_units import activation_layer
from medseg.networks.layers.hartley import kept, mirror_sum, mirrored, padded

__all__ = ["FourierMix", "HartleyMix", "HartleyOperator"]

_KINDS = ("shared", "individual")


class HartleyMix(nn.Module):
    """Hartley modes (B, in_channels, *2m) -> (B, out_channels, *2m).

    Individual weights W follow the Hartley convolution theorem:
    ``Y_o(k) = 1/2 sum_i W_oi(k) (X_i(k) + X_i(-k)) + W_oi(-k) (X_i(k) - X_i(-k))``. An image with fewer modes than
    weights uses those of the lowest frequencies.

    Raises:
        ConfigError: ``weights`` is neither ``shared`` nor ``individual``.
    """

    def __init__(self, in_channels: int, out_channels: int, num_modes: Sequence[int], weights: str = "shared") -> None:
        super().__init__()
        self.weight = _parameter(out_channels, in_channels, _individual(weights) * [2 * m for m in num_modes])

    def forward(self, x: Tensor, opposite: Tensor | None = None) -> Tensor:
        return self.mix(x, opposite)

    def mix(self, x: Tensor, opposite: Tensor | None) -> Tensor:
        """``opposite``: X(-k), where it is known; else the mirror image of the kept grid, on which the most negative
        frequency is its own [parity]. Only individual weights read it.
        """
        if self.weight.dim() == 2:
            return _apply(self.weight, x)
        opposite = _reversed(x) if opposite is None else opposite
        weight, weight_opposite = [
            _lowest(w, list(x.shape[2:]), half=False) for w in [self.weight, _reversed(self.weight)]
        ]
        return _apply(weight, (x + opposite) / 2) + _apply(weight_opposite, (x - opposite) / 2)


class HartleyOperator(HartleyMix):
    """``HartleyMix`` and an activation; sums (B, in_channels, *2m + 1) to coefficients (B, out_channels, *2m + 1)."""

    def __init__(self, *arguments: Any, activation: str = "selu", **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.act = activation_layer(activation)

    def forward(self, products: Tensor) -> Tensor:  # type: ignore[override]
        spectrum = mirror_sum(products)
        opposite = kept(mirrored(spectrum), half=False) if self.weight.dim() > 2 else None
        modes = self.act(self.mix(kept(spectrum, half=False), opposite))
        return mirror_sum(padded(modes, list(spectrum.shape[2:]), half=False))


class FourierMix(nn.Module):
    """Complex weights on Fourier modes, of sums (B, in_channels, *2m + 1) -> (B, out_channels, *2m + 1).

    Kept are the modes -m ... m-1 of all axes but the last, and 0 ... m-1 of the last. The inverse transform is the real
    part of their sum, with the modes of the last axis from 1 on counted twice, for their conjugates; in its plane 0
    modes need not be conjugate in pairs, and the imaginary part that this leaves is dropped [parity]. With the Hartley
    transform H, the Fourier transform is F(k) = (H(k) + H(-k)) / 2 - i (H(k) - H(-k)) / 2, from which follows that a
    mode k of weight R + i I adds (half of it in plane 0)

        R H(k) - I H(-k)   at k,        R H(-k) + I H(k)   at -k.

    Raises:
        ConfigError: ``weights`` is neither ``shared`` nor ``individual``.
    """

    def __init__(self, in_channels: int, out_channels: int, num_modes: Sequence[int], weights: str = "shared") -> None:
        super().__init__()
        sizes = _individual(weights) * [*(2 * m for m in num_modes[:-1]), num_modes[-1]]
        self.weight_real = _parameter(out_channels, in_channels, sizes)
        self.weight_imag = _parameter(out_channels, in_channels, sizes)

    def forward(self, products: Tensor) -> Tensor:
        if self.weight_real.dim() > 2:
            return mirror_sum(self._of_spectrum(mirror_sum(products)))
        return fourier_of_products(products, self.weight_real, self.weight_imag)

    def _of_spectrum(self, spectrum: Tensor) -> Tensor:
        size = list(spectrum.shape[2:])
        share = spectrum.new_ones(max(1, size[-1] // 2))
        share[0] = 0.5
        x, opposite = [kept(value, half=True) * share for value in [spectrum, mirrored(spectrum)]]
        real, imag = [_lowest(w, list(x.shape[2:]), half=True) for w in [self.weight_real, self.weight_imag]]
        ahead = padded(_apply(real, x) - _apply(imag, opposite), size, half=True)
        return ahead + mirrored(padded(_apply(real, opposite) + _apply(imag, x), size, half=True))


def _individual(weights: str) -> bool:
    if weights not in _KINDS:
        raise ConfigError(f"No weights '{weights}'.{nearest(str(weights), _KINDS)} Known: {', '.join(_KINDS)}.")
    return weights == "individual"


def _parameter(out_channels: int, in_channels: int, modes: Sequence[int]) -> nn.Parameter:
    weight = nn.Parameter(torch.empty(out_channels, in_channels, *modes))
    nn.init.kaiming_uniform_(weight, a=math.sqrt(5))
    return weight


def _reversed(modes: Tensor) -> Tensor:
    """Modes (., ., *2m) at -k on their own grid."""
    axes = list(range(2, modes.dim()))
    return modes.flip(axes).roll([1] * len(axes), axes)


def _lowest(weight: Tensor, sizes: list[int], *, half: bool) -> Tensor:
    """Individual weights (out, in, *modes) of the modes that an image has; shared weights as they are."""
    if weight.dim() == 2:
        return weight
    for axis, n in enumerate(sizes, start=2):
        total = weight.shape[axis]
        if n < total:
            low = n if half and axis == weight.dim() - 1 else (n + 1) // 2
            weight = torch.cat((weight.narrow(axis, 0, low), weight.narrow(axis, total - (n - low), n - low)), axis)
    return weight


def _apply(weight: Tensor, x: Tensor) -> Tensor:
    """A matrix (out, in) for all modes, or one per mode (out, in, *modes), times ``x: (B, in, *modes)``."""
    weight = weight.to(x.dtype)
    if weight.dim() == 2:
        return mix_channels(weight, None, [x])
    return torch.einsum("oi...,bi...->bo...", [weight, x])
