"""The discrete Hartley transform of a few low frequencies, as one real matrix product per axis.

With cas t = cos t + sin t, sizes N_j and N their product, over all spatial axes (HNOSeg-XS, arXiv 2507.08205):

    X(k) = 1/N sum_n x(n) cas(2 pi sum_j k_j n_j / N_j)        x(n) = sum_k X(k) cas(2 pi sum_j k_j n_j / N_j)

The 1/N of the forward direction keeps coefficients comparable between image sizes. cas of a sum is no product, but a
sum of products of cas with mirrored frequencies:

    2 cas(a+b)   = cas(a) cas(b)         + cas(-a) cas(b)        + cas(a) cas(-b)        - cas(-a) cas(-b)
    2 cas(a+b+c) = cas(-a) cas(b) cas(c) + cas(a) cas(-b) cas(c) + cas(a) cas(b) cas(-c) - cas(-a) cas(-b) cas(-c)

So both directions are products with a matrix cas(2 pi k n / N) per axis and a sum of mirrored spectra. There are no
complex numbers, nothing is computed that is not kept, and prime sizes cost no more than others.

A *spectrum* holds the frequencies -m ... m of every axis, in this order: mirroring is a flip. Networks keep *modes*,
-m ... m-1 without +m [parity], in the order 0 ... m-1, -m ... -1 (``kept``, ``padded``).
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from medseg.networks.layers.channels_last import autocasting, recording

__all__ = [
    *("analyze", "bases", "clipped", "combine", "contract", "expand", "full_precision"),
    *("kept", "mirrored", "normalized", "padded", "synthesize"),
]


def clipped(size: Sequence[int], num_modes: Sequence[int]) -> list[int]:
    """Modes per axis that an image of ``size`` has: at most half its voxels; none (but the mean) for one voxel."""
    return [min(m, int(n) // 2) for n, m in zip(size, num_modes, strict=True)]


def bases(size: Sequence[int], modes: Sequence[int], like: Tensor) -> list[Tensor]:
    """Per axis the matrix cas(2 pi k n / N), (N, 2m + 1), on the device of ``like``; float32 for lower precision."""
    dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
    # A tensor that is made while a graph is recorded may be a stand-in, which must not stay in the cache.
    build = _basis if recording() else _cached_basis
    return [build(int(n), m, dtype, like.device) for n, m in zip(size, modes, strict=True)]


@torch.compiler.assume_constant_result
def _basis(size: int, modes: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    turns = np.outer(np.arange(size), np.arange(-modes, modes + 1)) % size  # exact; a large angle would round
    angles = 2 * np.pi / size * turns
    values = (np.cos(angles) + np.sin(angles)).astype(np.float64 if dtype == torch.float64 else np.float32)
    return torch.from_numpy(values).to(device)


_cached_basis = lru_cache(maxsize=64)(_basis)


def full_precision(x: Tensor) -> contextlib.AbstractContextManager:
    """No autocast: transforms and spectra stay in float32, since bases in half precision would blur the modes."""
    if not autocasting(x):
        return contextlib.nullcontext()
    return torch.autocast(x.device.type, enabled=False)


def contract(x: Tensor, matrices: Sequence[Tensor]) -> Tensor:
    """``x: (B, C, *size)`` times a matrix (size_j, 2m_j + 1) per axis -> (B, C, *2m + 1).

    Of a part of axis 0, with the rows of the first matrix that belong to it, it is that part's share of the sum.
    """
    x = x.to(matrices[0].dtype) @ matrices[-1]
    x = matrices[-2].t() @ x
    if len(matrices) == 3:
        x = (matrices[0].t() @ x.flatten(3)).unflatten(3, x.shape[3:])
    return x


def combine(products: Tensor) -> Tensor:
    """Sums of products of cas, (B, C, *2m + 1), to sums of cas of the sums; also the transpose of that."""
    if products.dim() == 4:
        return (products + products.flip(2) + products.flip(3) - products.flip(2, 3)) / 2
    return (products.flip(2) + products.flip(3) + products.flip(4) - products.flip(2, 3, 4)) / 2


def analyze(x: Tensor, matrices: Sequence[Tensor]) -> Tensor:
    """``x: (B, C, *size)`` -> its spectrum (B, C, *2m + 1), divided by the number of voxels."""
    return normalized(combine(contract(x, matrices)), matrices)


def normalized(sums: Tensor, matrices: Sequence[Tensor]) -> Tensor:
    """Sums over all voxels of an image with these matrices, divided by their number."""
    return sums / math.prod(len(matrix) for matrix in matrices)


def expand(products: Tensor, matrices: Sequence[Tensor]) -> Tensor:
    """The transpose of ``contract``: (B, C, *2m + 1) -> (B, C, *size), or the part of axis 0 whose rows are given."""
    x = products
    if len(matrices) == 3:
        x = (matrices[0] @ x.flatten(3)).unflatten(3, x.shape[3:])
    return (matrices[-2] @ x) @ matrices[-1].t()


def synthesize(spectrum: Tensor, matrices: Sequence[Tensor]) -> Tensor:
    """The inverse: a spectrum (B, C, *2m + 1) -> (B, C, *size)."""
    return expand(combine(spectrum), matrices)


def mirrored(spectrum: Tensor) -> Tensor:
    """The spectrum at -k."""
    return spectrum.flip(tuple(range(2, spectrum.dim())))


def kept(spectrum: Tensor, half: bool = False) -> Tensor:
    """The modes of a spectrum, (B, C, *2m), in the order 0 ... m-1, -m ... -1; without modes (m = 0) the mean.

    ``half``: of the last axis 0 ... m-1 only.
    """
    axes = list(range(2, spectrum.dim()))
    for axis in axes:
        first = spectrum.shape[axis] // 2 if half and axis == axes[-1] else 0
        spectrum = spectrum.narrow(axis, first, max(1, spectrum.shape[axis] - 1 - first))
    axes = axes[:-1] if half else axes
    return spectrum.roll([-(spectrum.shape[axis] // 2) for axis in axes], axes)


def padded(modes: Tensor, size: Sequence[int], half: bool = False) -> Tensor:
    """The spectrum (B, C, *size) of modes as ``kept`` orders them, zero elsewhere."""
    axes = list(range(2, modes.dim()))
    ordered = axes[:-1] if half else axes
    modes = modes.roll([modes.shape[axis] // 2 for axis in ordered], ordered)
    pads: list[int] = []
    for axis, n in zip(axes, size, strict=True):
        before = n // 2 if half and axis == axes[-1] else 0
        pads = [before, n - before - modes.shape[axis], *pads]
    return F.pad(modes, pads)
