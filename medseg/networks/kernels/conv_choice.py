"""Direct or Fourier: which form of a depth-wise convolution is the cheaper one.

A rule decides, so that a repeated or resumed training gives the same bits. It compares the products that
touch data, ``M = prod(n k - r (r + 1))``, with the work of a transform, ``L = S log2 S`` for ``S`` voxels.

On a CPU (torch 2.13 on one thread, oneDNN, MKL; 16-192 channels, 6^3 to 48^3, kernels 3 to 21) the direct forward
costs as much as the Fourier form at M / L of 10 or so, with gradients at less than 1, because oneDNN's gradient with
respect to the weight is slow.

On a GPU (one H100, torch 2.11, float32; 48 channels at 48^3) the direct form with kernel 21 takes 37 times
as long forward (24.1 against 0.66 ms, M / L = 184) and 52 times with gradients (155 against 3.0 ms). If the direct time
is in proportion to M / L, the two are equal at 5 and 3.5. Kernels of 7 lie at 11 to 13 from 24^3 on: Fourier.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from medseg.networks.kernels.fft_depthwise import TransformPlan

__all__ = ["cheaper", "choose"]

_EQUAL = {"cpu": (10.0, 0.5), "cuda": (5.0, 3.5)}  # M / L without and with gradients


def choose(method: str, x: Tensor, weight: Tensor) -> str:
    """``direct`` or ``fft`` for ``x: (B, C, *spatial)`` and a cropped kernel ``(C, 1, *kernel)``.

    ``method``: ``direct`` and ``fft`` stay, ``auto`` chooses.
    """
    if method in ("direct", "fft"):
        return method
    if x.device.type == "meta":  # shapes only
        return "direct"
    gradients = torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)
    return cheaper(tuple(x.shape[2:]), tuple(weight.shape[2:]), gradients=gradients, device_type=x.device.type)


def cheaper(spatial: tuple[int, ...], kernel: tuple[int, ...], *, gradients: bool, device_type: str) -> str:
    """The rule for an image and a cropped kernel, both in voxels per axis; GPUs of other kinds go by that for CUDA."""
    plan = TransformPlan.of(spatial, kernel)
    products = math.prod([n * k - r * (r + 1) for n, k, r in zip(spatial, kernel, plan.halves, strict=True)])
    padded = math.prod(plan.lengths)
    ratio = products / (padded * max(1.0, math.log2(padded)))
    return "fft" if ratio > _EQUAL.get(device_type, _EQUAL["cuda"])[int(gradients)] else "direct"
