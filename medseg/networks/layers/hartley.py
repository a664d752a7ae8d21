"""The discrete Hartley transform of a few low frequencies, as one real matrix product per axis.

With cas t = cos t + sin t, sizes N_j and N their product, over all spatial axes (HNOSeg-XS, arXiv 2507.08205):

    X(k) = 1/N sum_n x(n) cas(2 pi sum_j k_j n_j / N_j)        x(n) = sum_k X(k) cas(2 pi sum_j k_j n_j / N_j)

The 1/N of the forward direction keeps coefficients comparable between image sizes. cas of a sum is not a product, but a
sum of products of cas with mirrored frequencies:

    2 cas(a+b)   = cas(a) cas(b)         + cas(-a) cas(b)        + cas(a) cas(-b)        - cas(-a) cas(-b)
    2 cas(a+b+c) = cas(-a) cas(b) cas(c) + cas(a) cas(-b) cas(c) + cas(a) cas(b) cas(-c) - cas(-a) cas(-b) cas(-c)

So both directions are products with a matrix cas(2 pi k n / N) per axis, which lead to *sums over products* of cas or
come from coefficients of such, and a sum of mirrored ones (``mirror_sum``), which makes a spectrum of them or the other
way round. There are no complex numbers, nothing is computed that is not kept, and prime sizes cost no more than others.

A *spectrum* holds the frequencies -m ... m of every axis, in this order: mirroring is a flip. Networks keep *modes*,
-m ... m-1 without +m [parity], in the order 0 ... m-1, -m ... -1 (``kept``, ``padded``).
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from medseg.networks.recording import recording

__all__ = ["HartleyGrid", "clipped", "kept", "mirror_sum", "mirrored", "padded"]

_COLUMNS = 8  # the last axis of products is a multiple of it, by zeros: its matrix products take a third less time


def clipped(size: list[int], num_modes: list[int]) -> list[int]:
    """Modes per axis that an image of ``size`` has: at most half its voxels; none (but the mean) for one voxel."""
    return [min(m, int(n) // 2) for n, m in zip(size, num_modes)]


class HartleyGrid:
    """The transform between images of one size and spectra of ``modes``.

    All axes but the first are transformed plane by plane, so that an image can come and go in slabs of planes.

    An image in half precision is read and written as it is: products along its last axis, the only ones that touch
    all voxels, are in its type. What is between, 4 to 14 times smaller, is in float32, since bases in half precision
    along all axes would double the error of a network.

    Args:
        size: size of the images, two or three axes.
        modes: per axis.
        like: gives the device and the type of images; spectra are in float64 for float64, else in float32.
    """

    def __init__(self, size: list[int], modes: list[int], like: Tensor) -> None:
        self.size: list[int] = [int(n) for n in size]
        self.frequencies = [2 * m + 1 for m in modes]
        self.image_dtype = like.dtype
        self.dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
        if torch.jit.is_scripting():
            bases = _scripted_bases(self.size, modes, self.dtype, like.device)
        else:
            bases = _bases(self.size, modes, self.dtype, like.device)
        self.middle, self.last = bases[1:-1], bases[-1]
        self.synthesis = bases[0] / 2  # the factor of the sum of mirrored spectra
        voxels = 1
        for n in self.size:
            voxels *= n
        self.analysis = self.synthesis.t() / voxels

    def analyze(self, x: Tensor) -> Tensor:
        """``x: (B, C, *size)`` -> its spectrum (B, C, *2m + 1)."""
        return mirror_sum(self.products(self.planes(x)))

    def synthesize(self, spectrum: Tensor) -> Tensor:
        """The inverse: (B, C, *2m + 1) -> (B, C, *size)."""
        return self.image(self.coefficients(mirror_sum(spectrum)))

    def planes(self, x: Tensor) -> Tensor:
        """Planes of an image, (B, C, n, *size[1:]), to their sums over products of cas, (B, C, n, *2m + 1)."""
        x = (x @ self.last.to(x.dtype)).to(self.dtype)
        for matrix in self.middle:
            x = matrix.t() @ x
        return x.narrow(-1, 0, self.frequencies[-1])

    def products(self, planes: Tensor) -> Tensor:
        """All planes, (B, C, N, *2m + 1), to the sums of the image, (B, C, *2m + 1)."""
        sums: Tensor = (self.analysis @ planes.flatten(3)).unflatten(3, planes.shape[3:])
        return sums

    def coefficients(self, products: Tensor) -> Tensor:
        """Coefficients of products of cas, (B, C, *2m + 1), to those of all planes, for ``image``."""
        products = F.pad(products, [0, self.last.shape[1] - self.frequencies[-1]])
        planes: Tensor = (self.synthesis @ products.flatten(3)).unflatten(3, products.shape[3:])
        return planes

    def image(self, coefficients: Tensor) -> Tensor:
        """Coefficients of some planes to the image's planes, (B, C, n, *size[1:])."""
        for matrix in self.middle:
            coefficients = matrix @ coefficients
        image: Tensor = coefficients.to(self.image_dtype) @ self.last.to(self.image_dtype).t()
        return image


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]  # torch's
def _bases(size: list[int], modes: list[int], dtype: torch.dtype, device: torch.device) -> list[Tensor]:
    """Per axis cas(2 pi k n / N), (N, 2m + 1), computed in float64; kept, since a GPU waits for their copy."""
    make = _made_bases if recording() else _kept_bases
    return list(make(tuple(size), tuple(modes), dtype, device))


def _made_bases(
    size: tuple[int, ...], modes: tuple[int, ...], dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, ...]:
    matrices = []  # of numpy, so that they are constants of what is traced or exported
    for n, m in zip(size, modes, strict=True):
        turns = np.outer(np.arange(n), np.arange(-m, m + 1)) % n  # exact; a large angle would round
        angles = 2 * np.pi / n * turns
        matrices.append((np.cos(angles) + np.sin(angles)).astype(np.float64 if dtype == torch.float64 else np.float32))
    matrices[-1] = np.pad(matrices[-1], ((0, 0), (0, -matrices[-1].shape[1] % _COLUMNS)))
    with torch.inference_mode(False):  # else a training could not use what an inference left
        return tuple(torch.from_numpy(matrix).to(device) for matrix in matrices)


_kept_bases = lru_cache(maxsize=64)(_made_bases)  # some hundred kilobytes each at most


def _scripted_bases(size: list[int], modes: list[int], dtype: torch.dtype, device: torch.device) -> list[Tensor]:
    """The same by operators of torch, for TorchScript, which knows no numpy."""
    bases: list[Tensor] = []
    for n, m in zip(size, modes):
        turns = torch.outer(torch.arange(n, device=device), torch.arange(-m, m + 1, device=device)) % n
        angles = 2 * math.pi / n * turns.to(torch.float64)
        bases.append((angles.cos() + angles.sin()).to(dtype))
    bases[-1] = F.pad(bases[-1], [0, -bases[-1].shape[1] % 8])  # 8: _COLUMNS, since a script reads no constants
    return bases


def mirror_sum(products: Tensor) -> Tensor:
    """Twice the sums of cas of the sums, from sums of products of cas, (B, C, *2m + 1); also the transpose of that.

    Twice this is four times the identity.
    """
    if products.dim() == 4:
        mirror = products.flip(2)
        return (products + mirror) + (products - mirror).flip(3)
    mirror = products.flip(2, 3)
    return (products + mirror).flip(2) + (products - mirror).flip(4)


def mirrored(spectrum: Tensor) -> Tensor:
    """The spectrum at -k."""
    return spectrum.flip(list(range(2, spectrum.dim())))


def kept(spectrum: Tensor, *, half: bool) -> Tensor:
    """The modes of a spectrum, (B, C, *2m), in the order 0 ... m-1, -m ... -1; without modes (m = 0) the mean.

    ``half``: of the last axis 0 ... m-1 only.
    """
    axes = list(range(2, spectrum.dim()))
    for axis in axes:
        first = spectrum.shape[axis] // 2 if half and axis == axes[-1] else 0
        spectrum = spectrum.narrow(axis, first, max(1, spectrum.shape[axis] - 1 - first))
    axes = axes[:-1] if half else axes
    return spectrum.roll([-(spectrum.shape[axis] // 2) for axis in axes], axes)


def padded(modes: Tensor, size: list[int], *, half: bool) -> Tensor:
    """The spectrum (B, C, *size) of modes as ``kept`` orders them, zero elsewhere."""
    axes = list(range(2, modes.dim()))
    ordered = axes[:-1] if half else axes
    modes = modes.roll([modes.shape[axis] // 2 for axis in ordered], ordered)
    pads: list[int] = []
    for axis, n in zip(axes, size):
        before = n // 2 if half and axis == axes[-1] else 0
        pads = [before, n - before - modes.shape[axis]] + pads
    return F.pad(modes, pads)
