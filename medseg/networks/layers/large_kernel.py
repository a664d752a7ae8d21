"""Exact depth-wise convolution with large kernels, in 2D and 3D: direct, or as a product of Fourier transforms.

``y[p] = sum_q w[q] x[p + q - r] + b`` per channel, with an odd kernel of half width ``r`` and zeros outside the image,
as ``torch.nn.ConvNd`` with ``groups=channels`` and "same" padding. Taps that only ever meet padding (an axis shorter
than ``r + 1``) are cropped first, which changes nothing.

The transform is circular. Per axis, ``r`` zeros before the image's ``n`` voxels are enough for the part of the result
that is kept: ``x[p + q]`` beyond the end comes around to the zeros. The same zeros part the rows of an image that are
laid end to end, so that one transform of a long row takes the place of two or three along axes (``TransformPlan``).
The cost hardly depends on the kernel size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medseg.errors import ConfigError
from medseg.networks.layers.conv_choice import TransformPlan, choose

__all__ = ["DepthwiseConv", "fft_depthwise"]

_CONV = {2: F.conv2d, 3: F.conv3d}
_CHUNK = {"cpu": 2**18, "cuda": 2**26}  # numbers that are transformed at once; on a CPU they stay in cache
METHODS = ("auto", "measured", "direct", "fft")


class DepthwiseConv(nn.Module):
    """``x: (B, channels, *spatial) -> (B, channels, *spatial)``, stride 1, zero padding.

    Parameters are those of ``torch.nn.ConvNd(channels, channels, kernel_size, padding=kernel_size // 2,
    groups=channels)``. In evaluation mode without gradients the kernel's spectrum is kept until the weight changes
    (in place or by assignment; not by writing to ``weight.data``), the device changes, or training begins. While a
    graph is traced or exported it is the direct form, for any size; compiled, whichever is chosen.

    Args:
        spatial_dims: 2 or 3.
        kernel_size: odd, one number or one per axis.
        bias: add a bias per channel.
        method: ``direct``, ``fft``, ``measured`` (both are run once per shape, the faster one is used from then on) or
            ``auto``: on a CPU the rule of ``conv_choice``, which gives the same numbers in every run, elsewhere
            ``measured``.

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
        if spatial_dims not in _CONV or len(kernel) != spatial_dims:
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
        self._kept: tuple[Any, ...] | None = None
        bound = 1 / math.sqrt(math.prod(kernel))  # torch's default for convolutions
        nn.init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            nn.init.uniform_(self.bias, -bound, bound)

    def extra_repr(self) -> str:
        return f"{self.groups}, kernel_size={tuple(self.weight.shape[2:])}, method={self.method!r}"

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight
        if torch.jit.is_tracing() or torch.compiler.is_exporting():
            return _direct(x, weight, self.bias)
        cropped = _crop(weight, x.shape[2:])
        if choose(self.method, x, cropped, (_direct, fft_depthwise)) == "direct":
            return _direct(x, cropped, self.bias)
        keep = not (self.training or torch.is_grad_enabled() or torch.compiler.is_compiling() or weight.is_inference())
        if keep:
            return self._with_kept_spectrum(x, weight, cropped)
        y = fft_depthwise(x, cropped)
        return y if self.bias is None else y + self.bias.to(y.dtype).view(-1, *[1] * (x.dim() - 2))

    def _with_kept_spectrum(self, x: Tensor, weight: Tensor, cropped: Tensor) -> Tensor:
        plan = _plan(x, cropped)
        dtype = _real(x)
        state = (weight, weight._version, plan, dtype)  # the tensor itself: its address may be used again
        if self._kept is None or self._kept[0] is not weight or self._kept[1:4] != state[1:]:
            self._kept = (*state, _kernel_spectrum(cropped[:, 0].to(dtype), plan))
        spectrum = self._kept[4]
        bias = None if self.bias is None else self.bias.to(dtype)
        return _apply(x.to(dtype), lambda part: spectrum[part], plan, bias).to(_result_dtype(x))

    def train(self, mode: bool = True) -> DepthwiseConv:
        if mode:
            self._kept = None
        return super().train(mode)

    def _apply(self, fn: Any, recurse: bool = True) -> DepthwiseConv:
        self._kept = None
        return super()._apply(fn, recurse)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": None}


def fft_depthwise(x: Tensor, weight: Tensor) -> Tensor:
    """The convolution without bias by real Fourier transforms, differentiable in both.

    Args:
        x: (B, C, *spatial) with 2 or 3 spatial axes.
        weight: (C, 1, *kernel), odd; per axis its half width is smaller than the image.

    Computed in float32 (float64 for float64 input) also under autocast, whose type the result has.
    """
    dtype = _real(x)
    return _convolve(x.to(dtype), weight.to(dtype)).to(_result_dtype(x))


def _direct(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    padding = [k // 2 for k in weight.shape[2:]]
    return _CONV[x.dim() - 2](x, weight, bias, padding=padding, groups=x.shape[1])


def _crop(weight: Tensor, spatial: Sequence[int]) -> Tensor:
    """The taps that can meet the image: offsets of at most ``n - 1`` per axis."""
    for axis, n in enumerate(spatial, 2):
        half = weight.shape[axis] // 2
        if half > n - 1:
            weight = weight.narrow(axis, half - (n - 1), 2 * n - 1)
    return weight


def _real(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _result_dtype(x: Tensor) -> torch.dtype:
    autocast = torch.is_autocast_enabled(x.device.type) and x.dtype != torch.float64
    return torch.get_autocast_dtype(x.device.type) if autocast else x.dtype


# ---------------------------------------------------------------------- transforms
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
    spectrum = torch.fft.rfft(rows)
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
    return rows.unflatten(-1, joined)[(..., *map(slice, size[leading:]))]


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
