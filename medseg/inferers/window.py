"""Sliding-window inference: MONAI's adaptive inferer with even spacing, mirror test-time augmentation, and
bf16/fp16.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from monai.data import MetaTensor
from monai.inferers import Inferer, SlidingWindowInfererAdapt
from torch import nn

from medseg.errors import ConfigError

__all__ = ["SlidingWindow", "WholeVolume", "autocast_dtype", "even_overlap"]


def even_overlap(size: int, roi: int, overlap: float) -> float:
    """The overlap that makes MONAI start its windows evenly spaced, with no step above ``ceil(roi * (1 - overlap))``.

    MONAI steps by ``int(roi * (1 - overlap))`` and shifts the last window to the border, which can cost one more
    window per axis than needed. With n = ceil((size - roi) / (roi * (1 - overlap))) + 1 windows the step is
    ceil((size - roi) / (n - 1)).
    """
    if size <= roi:
        return overlap
    count = math.ceil((size - roi) / (roi * (1 - overlap))) + 1
    step = math.ceil((size - roi) / (count - 1))
    return max(0.0, 1 - (step + 0.5) / roi)  # half a voxel guards MONAI's truncation against rounding


_DTYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


def autocast_dtype(precision: str, device: torch.device) -> torch.dtype | None:
    """What a network computes in on a device; ``None`` is float32. ``auto`` is ``fp16`` on CUDA, else ``fp32``.

    Raises:
        ConfigError: an unknown precision.
    """
    if precision == "auto":
        precision = "fp16" if device.type == "cuda" else "fp32"
    if precision not in _DTYPES:
        raise ConfigError(f"precision '{precision}' is unknown; use {', '.join(_DTYPES)} or auto.")
    return _DTYPES[precision]


_ONEDNN_LEAST = 20_480  # channels x rows x columns


def _slow_alone(network: Any, window: torch.Tensor) -> bool:
    """Whether two copies of a window are cheaper than one: on a CPU, torch 2.13 leaves oneDNN for a 3D convolution of
    one image with at most 20 480 channels x rows x columns, and takes up to eight times as long as for two images.
    """
    if window.device.type != "cpu" or window.dim() != 5 or window.shape[0] > 1 or not isinstance(network, nn.Module):
        return False
    widths = (module.out_channels for module in network.modules() if isinstance(module, nn.Conv3d))
    return next(widths, 10**6) * window.shape[2] * window.shape[3] <= _ONEDNN_LEAST


class _Predictor:
    """Calls the network on a batch of windows: autocast, mirror averaging, and never an alias of its input."""

    def __init__(self, network: Callable[..., torch.Tensor], mirror_axes: Sequence[int], precision: str) -> None:
        self.network = network
        self.precision = precision
        self.windows = 0
        self.flips = [
            tuple(axis + 2 for axis in axes)
            for count in range(len(mirror_axes) + 1)
            for axes in itertools.combinations(mirror_axes, count)
        ]

    def __call__(self, window: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        if isinstance(window, MetaTensor):
            window = window.as_tensor()  # compiled networks take plain tensors only
        self.windows += len(window) * len(self.flips)
        total = self._forward(window, (), *args, **kwargs)
        if total.untyped_storage().data_ptr() == window.untyped_storage().data_ptr():
            # The sum below and MONAI's weighting work in place; they would damage the image.
            total = total.clone()
        for axes in self.flips[1:]:
            total += self._forward(window, axes, *args, **kwargs)
        return total if len(self.flips) == 1 else total.div_(len(self.flips))

    def _forward(self, window: torch.Tensor, axes: tuple[int, ...], *args: Any, **kwargs: Any) -> torch.Tensor:
        window = torch.flip(window, axes) if axes else window
        doubled = not args and not kwargs and _slow_alone(self.network, window)
        dtype = autocast_dtype(self.precision, window.device)
        with torch.autocast(window.device.type, dtype=dtype, enabled=dtype is not None):
            logits = self.network(torch.cat([window, window]) if doubled else window, *args, **kwargs)
        logits = logits[:1] if doubled else logits
        return torch.flip(logits, axes).float() if axes else logits.float()


def _check_options(mirror_axes: Sequence[int], precision: str, dims: int = 3) -> None:
    autocast_dtype(precision, torch.device("cpu"))  # an unknown one is told at once
    if len(set(mirror_axes)) < len(mirror_axes) or not set(mirror_axes) <= set(range(dims)):
        raise ConfigError(f"mirror_axes {list(mirror_axes)} must be different spatial axes between 0 and {dims - 1}.")


class SlidingWindow(SlidingWindowInfererAdapt):
    """Sliding windows over ``(B, C, *spatial)``; logits ``(B, K, *spatial)`` on the image's grid.

    Args:
        roi_size: window size in voxels.
        overlap: share of a window that neighbours share, 0 <= overlap < 1.
        mode: ``gaussian`` or ``constant`` blending.
        sw_batch_size: windows per forward pass.
        even_spacing: space the windows evenly (``even_overlap``); never more windows than MONAI's own rule.
        mirror_axes: spatial axes of mirror test-time augmentation; the mean of logits over all 2^n flips.
        precision: ``fp32``, ``bf16``, ``fp16`` or ``auto`` (``autocast_dtype``) of the network; blending is in float32.

    Attributes:
        windows: windows of the last call, mirror images included.

    Raises:
        ConfigError: an overlap outside [0, 1), a roi_size that is not positive, an unknown precision or mirror axis.
    """

    def __init__(
        self,
        roi_size: Sequence[int],
        overlap: float = 0.5,
        mode: str = "gaussian",
        sw_batch_size: int = 1,
        *,
        even_spacing: bool = True,
        mirror_axes: Sequence[int] = (),
        precision: str = "fp32",
        **kwargs: Any,
    ) -> None:
        if not 0 <= overlap < 1:
            raise ConfigError(f"overlap {overlap} is outside [0, 1); use for example 0.5.")
        if min(roi_size) < 1:
            raise ConfigError(f"roi_size {list(roi_size)} must be positive in every axis.")
        _check_options(mirror_axes, precision, len(roi_size))
        super().__init__(tuple(roi_size), sw_batch_size, overlap, mode, **kwargs)
        self.even_spacing = even_spacing
        self.windows = 0
        self.mirror_axes = tuple(mirror_axes)
        self.precision = precision

    def __call__(self, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        sizes = inputs.shape[2:]
        if len(sizes) != len(self.roi_size):  # type: ignore[arg-type]
            raise ConfigError(f"roi_size {list(self.roi_size)} does not fit an image with {len(sizes)} spatial axes.")  # type: ignore[arg-type]
        plain = self.overlap
        if self.even_spacing:
            self.overlap = [even_overlap(n, r, plain) for n, r in zip(sizes, self.roi_size, strict=True)]  # type: ignore
        predictor = _Predictor(network, self.mirror_axes, self.precision)
        try:
            return super().__call__(inputs, predictor, *args, **kwargs)
        finally:
            self.overlap = plain
            self.windows = predictor.windows


class WholeVolume(Inferer):
    """One forward pass over the whole image, with the options of ``SlidingWindow`` that apply."""

    def __init__(self, mirror_axes: Sequence[int] = (), precision: str = "fp32") -> None:
        super().__init__()
        _check_options(mirror_axes, precision)
        self.mirror_axes = tuple(mirror_axes)
        self.precision = precision

    def __call__(self, inputs: torch.Tensor, network: Callable[..., torch.Tensor], *args: Any, **kwargs: Any) -> Any:
        return _Predictor(network, self.mirror_axes, self.precision)(inputs, *args, **kwargs)
