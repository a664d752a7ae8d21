"""Direct or Fourier: which form of a depth-wise convolution is the cheaper one.

On a CPU a rule decides, so that a repeated or resumed training gives the same bits. It compares the products that
touch data, ``M = prod(n k - r (r + 1))``, with the work of a transform, ``L = S log2 S`` for ``S`` voxels:
measured with torch 2.13 on one thread (oneDNN, MKL; 16-192 channels, 6^3 to 48^3, kernels 3 to 21), the direct
forward costs as much as the Fourier form at M / L of 10 or so, with gradients at less than 1, because oneDNN's
gradient with respect to the weight is slow. On other devices nothing is certain, and both forms are timed
once per shape.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Hashable

import torch
from torch import Tensor

from medseg.networks.kernels.fft_depthwise import TransformPlan

__all__ = ["cheaper_on_cpu", "choose"]

_EQUAL_FORWARD = 10.0
_EQUAL_TRAINING = 0.5
_MEASURED: dict[Hashable, str] = {}

Form = Callable[[Tensor, Tensor], Tensor]


def choose(method: str, x: Tensor, weight: Tensor, forms: tuple[Form, Form]) -> str:
    """``direct`` or ``fft`` for ``x: (B, C, *spatial)`` and a cropped kernel ``(C, 1, *kernel)``.

    Args:
        method: ``direct`` and ``fft`` stay, ``auto`` chooses.
        forms: the direct and the Fourier form, for measuring.
    """
    if method in ("direct", "fft"):
        return method
    if x.device.type == "meta":  # shapes only
        return "direct"
    gradients = torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)
    if torch.compiler.is_compiling() or x.device.type == "cpu":  # a graph cannot be timed
        return cheaper_on_cpu(tuple(x.shape[2:]), tuple(weight.shape[2:]), gradients=gradients)
    autocast = torch.is_autocast_enabled(x.device.type)
    key = (x.device, x.dtype, autocast, tuple(x.shape), tuple(weight.shape), gradients)
    if key not in _MEASURED:
        times = [_seconds(form, x, weight, gradients=gradients) for form in forms]
        _MEASURED[key] = "direct" if times[0] <= times[1] else "fft"
    return _MEASURED[key]


def cheaper_on_cpu(spatial: tuple[int, ...], kernel: tuple[int, ...], *, gradients: bool) -> str:
    """The rule for an image and a cropped kernel, both in voxels per axis."""
    plan = TransformPlan.of(spatial, kernel)
    products = math.prod([n * k - r * (r + 1) for n, k, r in zip(spatial, kernel, plan.halves, strict=True)])
    padded = math.prod(plan.lengths)
    ratio = products / (padded * max(1.0, math.log2(padded)))
    return "fft" if ratio > (_EQUAL_TRAINING if gradients else _EQUAL_FORWARD) else "direct"


def _seconds(form: Form, x: Tensor, weight: Tensor, *, gradients: bool) -> float:
    """The better of two runs after a first one."""
    best = math.inf
    x, weight = x.detach().requires_grad_(gradients), weight.detach().requires_grad_(gradients)
    with torch.set_grad_enabled(gradients):
        for run in range(3):
            _finish(x)
            start = time.perf_counter()
            y = form(x, weight)
            if gradients:
                torch.autograd.grad(y, (x, weight), torch.ones_like(y))
            _finish(x)
            if run:
                best = min(best, time.perf_counter() - start)
    return best


def _finish(x: Tensor) -> None:
    """Wait until the device has done what it was given."""
    if x.device.type != "cpu":
        torch.accelerator.synchronize(x.device)
