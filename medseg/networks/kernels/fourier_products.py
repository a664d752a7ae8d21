"""Shared complex weights on Fourier modes without a spectrum: from sums over products of cas to coefficients of such.

Which modes count is a matter of each axis alone, and for sums P over products of cas the whole is the real part of
(R + i I) T P with one complex factor of T per axis. It mixes a frequency k of the
axis with -k only, by what cas of an angle and of its negative are to cosine and sine:

    (T P)(k) = P(k) + i sign(k) P(-k)  for the last axis and |k| < m, which leaves out k < 0; 0 for k = m and -m
    (T P)(-m) = (P(-m) + i P(m)) / 2,  (T P)(m) = -i (T P)(-m)  for other axes, which leaves out m; else P(k).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from medseg.networks.kernels.mix_channels import mix_channels

__all__ = ["fourier_of_products"]


def fourier_of_products(products: Tensor, weight_real: Tensor, weight_imag: Tensor) -> Tensor:
    """``FourierMix`` with weights (out, in) of ``products: (B, in, *2m + 1)`` -> (B, out, *2m + 1)."""
    weight = torch.cat((weight_real, weight_imag)) * 4  # two sums of mirrored spectra
    z = mix_channels(weight.to(products.dtype), None, [products]).unflatten(1, (2, -1))  # real and imaginary parts
    for axis in range(3, z.dim() - 1):
        if z.shape[axis] > 1:
            _without_highest_(z, axis)
    real: Tensor = z[:, 0]
    imag: Tensor = z[:, 1]
    m = real.shape[-1] // 2
    if m == 0:
        return real
    behind = imag.flip(-1)
    sign = torch.cat((real.new_ones(m - 1), real.new_zeros(1), -real.new_ones(m - 1)))  # made on the device
    inner = torch.addcmul(real[..., 1:-1], behind[..., 1:-1], sign)
    return F.pad(inner, (1, 1))


def _without_highest_(z: Tensor, axis: int) -> None:
    """Of an axis' frequencies m and -m leave -m; in place, ``z: (B, 2, C, *2m + 1)`` are real and imaginary parts."""
    low, high = z.select(axis, 0), z.select(axis, z.shape[axis] - 1)
    real = (low[:, 0] - high[:, 1]) / 2
    imag = (low[:, 1] + high[:, 0]) / 2
    low.copy_(torch.stack((real, imag), 1))
    high.copy_(torch.stack((imag, -real), 1))
