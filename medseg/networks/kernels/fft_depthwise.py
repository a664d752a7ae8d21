"""Depth-wise convolution with large kernels, in 2D and 3D, as a product of Fourier transforms.

``y[p] = sum_q w[q] x[p + q - r]`` per channel, with an odd kernel of half width ``r`` and zeros outside the image.
The transform is circular. Per axis, ``r`` zeros before the image's ``n`` voxels are enough for the part of the result
that is kept: ``x[p + q]`` beyond the end comes around to the zeros. The same zeros part the rows of an image that are
laid end to end, so that one transform of a long row takes the place of two or three along axes (``TransformPlan``).
The cost hardly depends on the kernel size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["KeptSpectrum", "TransformPlan", "fast_length", "fft_depthwise"]

_CHUNK = {"cpu": 2**18, "cuda": 2**26}  # numbers that are transformed at once; on a CPU they stay in cache
_LONGEST = 2**14  # of joined rows: 64 kB, beyond which a transform is no longer as fast as two shorter ones


class TransformPlan(NamedTuple):
    """How images and kernels lie in the transform: leading axes one by one, the last ones joined to long rows.

    Attributes:
        halves: half width ``r`` of the kernel per axis.
        padded: ``n + r`` per axis, the least length of a circular transform, and the pitch of joined rows.
        lengths: lengths of the transforms: one for each leading axis, one for the joined ones.
    """

    halves: tuple[int, ...]
    padded: tuple[int, ...]
    lengths: tuple[int, ...]

    @classmethod
    def of(cls, spatial: tuple[int, ...], kernel: tuple[int, ...]) -> TransformPlan:
        """For an image and a cropped kernel, both in voxels per axis."""
        halves = tuple(k // 2 for k in kernel)
        padded = tuple(n + r for n, r in zip(spatial, halves, strict=True))
        leading = len(padded) - 1
        while leading and math.prod(padded[leading - 1 :]) <= _LONGEST:
            leading -= 1
        return cls(halves, padded, tuple(map(fast_length, (*padded[:leading], math.prod(padded[leading:])))))


def fast_length(n: int) -> int:
    """A length from ``n`` on whose transform is fast: even, from 64 on a multiple of 8, without prime factors above 5;
    or the next power of two if that is hardly larger.

    A transform of length 64 takes 65 % (real) to 75 % (complex) of the time of one of length 60 (MKL), one of 3456
    two thirds of the time of one of 3402.
    """
    power = 1 << max(1, (n - 1).bit_length())
    step = 8 if n > 64 else 2
    n = -(-n // step) * step
    while True:
        rest = n
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return power if 10 * power <= 11 * n else n
        n += step


def fft_depthwise(x: Tensor, weight: Tensor) -> Tensor:
    """The convolution without bias by real Fourier transforms, differentiable in both.

    Args:
        x: (B, C, *spatial) with 2 or 3 spatial axes.
        weight: (C, 1, *kernel), odd; per axis its half width is smaller than the image.

    Computed in float32 (float64 for float64 input) also under autocast, whose type the result has.
    """
    dtype = _real(x)
    y: Tensor = _convolve(x.to(dtype), weight.to(dtype))
    return y.to(_result_dtype(x))


class KeptSpectrum:
    """The convolution with a kernel whose spectrum is kept while weight, image size and type stay.

    A weight that is changed in place or by assignment is noticed, not one that is written to by ``weight.data``.
    """

    def __init__(self) -> None:
        self._state: tuple[Any, ...] | None = None
        self._spectrum: Tensor | None = None

    def clear(self) -> None:
        """Forget the spectrum."""
        self._state = self._spectrum = None

    def __call__(self, x: Tensor, weight: Tensor, cropped: Tensor, bias: Tensor | None) -> Tensor:
        """As ``fft_depthwise`` with ``cropped``, which is of ``weight``, plus the bias; without gradients."""
        plan, dtype = _plan(x, cropped), _real(x)
        state = (weight, weight._version, plan, dtype)  # the tensor itself: its address may be used again
        if self._state is None or self._state[0] is not weight or self._state[1:] != state[1:]:
            self._state, self._spectrum = state, _kernel_spectrum(cropped[:, 0].to(dtype), plan)
        spectrum = self._spectrum
        assert spectrum is not None
        offset = None if bias is None else bias.to(dtype)
        return _apply(x.to(dtype), lambda part: spectrum[part], plan, offset).to(_result_dtype(x))

    def __deepcopy__(self, memo: Any) -> KeptSpectrum:
        return KeptSpectrum()

    def __reduce__(self) -> tuple[type[KeptSpectrum], tuple[()]]:
        return KeptSpectrum, ()


def _real(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _result_dtype(x: Tensor) -> torch.dtype:
    autocast = torch.is_autocast_enabled(x.device.type) and x.dtype != torch.float64
    return torch.get_autocast_dtype(x.device.type) if autocast else x.dtype


def _plan(x: Tensor, weight: Tensor) -> TransformPlan:
    return TransformPlan.of(tuple(x.shape[2:]), tuple(weight.shape[2:]))


def _spectrum(x: Tensor, plan: TransformPlan, *, behind_zeros: bool = False) -> Tensor:
    """Real transform of the spatial axes (..., *spatial), with the joined axes as one; axes come out in reverse order.

    Axis by axis, so that rows of zeros are never transformed; each is moved to the end first, because transforms of
    contiguous rows are the fastest and the padding copies the rows anyway.

    Args:
        behind_zeros: ``x`` begins after ``r`` zeros per axis, as images do, not at the origin, as kernels do.
    """
    starts = plan.halves if behind_zeros else (0,) * len(plan.halves)
    leading = len(plan.lengths) - 1
    joined = plan.padded[leading:]
    rows = x.new_zeros(*x.shape[: x.dim() - len(joined)], plan.lengths[-1])
    place = (slice(start, start + n) for start, n in zip(starts[leading:], x.shape[-len(joined) :], strict=True))
    rows[..., : math.prod(joined)].unflatten(-1, joined)[(..., *place)] = x
    spectrum: Tensor = torch.fft.rfft(rows)
    for axis in reversed(range(leading)):
        spectrum = spectrum.movedim(axis - leading - 1, -1)
        after = plan.lengths[axis] - starts[axis] - spectrum.shape[-1]
        spectrum = torch.fft.fft(F.pad(spectrum, (starts[axis], after)))
    return spectrum


def _inverse(spectrum: Tensor, plan: TransformPlan, size: Sequence[int]) -> Tensor:
    """Back to real numbers; of each axis the first ``size`` are kept, before the next axis is transformed."""
    leading = len(plan.lengths) - 1
    joined = plan.padded[leading:]
    for axis in range(leading):
        spectrum = torch.fft.ifft(spectrum)[..., : size[axis]].movedim(-1, axis - leading - 1).contiguous()
    rows = torch.fft.irfft(spectrum, n=plan.lengths[-1])[..., : math.prod(joined)]
    x: Tensor = rows.unflatten(-1, joined)[(..., *map(slice, size[leading:]))]
    return x


def _kernel_spectrum(kernel: Tensor, plan: TransformPlan) -> Tensor:
    """``(C, *kernel)`` -> its conjugate spectrum, for a correlation."""
    return _spectrum(kernel, plan).conj().resolve_conj()


def _chunks(x: Tensor, plan: TransformPlan) -> list[slice]:
    """Channels that are transformed together."""
    step = max(1, _CHUNK.get(x.device.type, 2**26) // (x.shape[0] * math.prod(plan.lengths)))
    return [slice(start, start + step) for start in range(0, x.shape[1], step)]


def _apply(
    x: Tensor, kernel_spectrum: Callable[[slice], Tensor], plan: TransformPlan, bias: Tensor | None = None
) -> Tensor:
    """The convolution with kernels whose spectra are given for a slice of channels."""
    y = torch.empty_like(x, memory_format=torch.contiguous_format)
    size = x.shape[2:]
    for part in _chunks(x, plan):
        product = _spectrum(x[:, part], plan, behind_zeros=True).mul_(kernel_spectrum(part))
        offset = 0 if bias is None else bias[part].view(-1, *[1] * len(size))
        torch.add(_inverse(product, plan, size), offset, out=y[:, part])
    return y


# ---------------------------------------------------------------------- operators that compilers leave whole
@torch.library.custom_op("medseg::fft_depthwise", mutates_args=())
def _convolve(x: Tensor, weight: Tensor) -> Tensor:
    plan = _plan(x, weight)
    return _apply(x, lambda part: _kernel_spectrum(weight[part, 0], plan), plan)


@_convolve.register_fake
def _(x: Tensor, weight: Tensor) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


@torch.library.custom_op("medseg::fft_depthwise_weight_gradient", mutates_args=())
def _weight_gradient(x: Tensor, gradient: Tensor, kernel_size: Sequence[int]) -> Tensor:
    """``dL/dw[q] = sum over batch and p of gradient[p] x[p + q - r]``."""
    result = x.new_empty(x.shape[1], 1, *kernel_size)
    plan = _plan(x, result)
    for part in _chunks(x, plan):
        image, weights = _spectrum(x[:, part], plan, behind_zeros=True), _spectrum(gradient[:, part], plan)
        result[part, 0] = _inverse(image.mul_(weights.conj()).sum(dim=0), plan, kernel_size)
    return result


@_weight_gradient.register_fake
def _(x: Tensor, gradient: Tensor, kernel_size: Sequence[int]) -> Tensor:
    return x.new_empty(x.shape[1], 1, *kernel_size)


def _keep_inputs(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _gradients(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
    x, weight = ctx.saved_tensors
    axes = list(range(2, weight.dim()))
    to_x = _convolve(gradient, weight.flip(axes)) if ctx.needs_input_grad[0] else None
    to_weight = _weight_gradient(x, gradient, list(weight.shape[2:])) if ctx.needs_input_grad[1] else None
    return to_x, to_weight


_convolve.register_autograd(_gradients, setup_context=_keep_inputs)
