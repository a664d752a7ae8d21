"""Inference by patches, blended as by MONAI but handed out in slabs, or on whole volumes; with even spacing, mirror
test-time augmentation, and bf16/fp16.
"""

from __future__ import annotations

import copy
import itertools
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from monai.data import MetaTensor
from monai.data.utils import compute_importance_map, dense_patch_slices
from monai.inferers import Inferer, SlidingWindowInferer
from torch import nn

from medseg.errors import ConfigError, ResourceError
from medseg.faults import lacks_gpu_memory, memory_lacking
from medseg.inferers.blend import Ring, blended, ring_voxels, slow_first
from medseg.inferers.constant_patches import by_content, run_patches
from medseg.inferers.head import split_head, without
from medseg.transforms.slabs import Slabs, planes_of

__all__ = ["SlidingWindow", "WholeVolume", "autocast_dtype", "even_overlap"]

logger = logging.getLogger("medseg")


def even_overlap(size: int, roi: int, overlap: float) -> float:
    """The overlap that makes MONAI start its patches evenly spaced, with no step above ``ceil(roi * (1 - overlap))``.

    MONAI steps by ``int(roi * (1 - overlap))`` and shifts the last patch to the border, which can cost one more
    patch per axis than needed. With n = ceil((size - roi) / (roi * (1 - overlap))) + 1 patches the step is
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


def _quick_batch(network: Any, size: Sequence[int]) -> int:
    """Patches of a forward pass on a CPU: one, for which caches are, or two where one alone is slow. torch 2.13 leaves
    oneDNN for a 3D convolution of one image with at most 20 480 channels x rows x columns, and takes up to eight times
    as long as for two images.

    At half the resolution, where much of a network's time goes, channels are usually twice as many.
    """
    if len(size) != 3 or not isinstance(network, nn.Module):
        return 1
    widths = (module.out_channels for module in network.modules() if isinstance(module, nn.Conv3d))
    return 1 + (next(widths, 10**6) * size[0] * size[1] <= 2 * _ONEDNN_LEAST)


class _Predictor:
    """Calls the network on a batch of patches: autocast, mirror averaging, and never an alias of its input.

    Attributes:
        head: the network's last layer, where its output goes without it (``split_head``).
        windows: patches that the network saw, mirror images included.
    """

    def __init__(self, network: Callable[..., torch.Tensor], mirror_axes: Sequence[int], precision: str) -> None:
        self.network = network
        self.precision = precision
        self.windows = 0
        self.head: Any = None
        self.flips = [
            tuple(axis + 2 for axis in axes)
            for count in range(len(mirror_axes) + 1)
            for axes in itertools.combinations(mirror_axes, count)
        ]

    def __call__(self, window: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        if isinstance(window, MetaTensor):
            window = window.as_tensor()  # compiled networks take plain tensors only
        with without(self.head):
            mean = self._mean(window, *args, **kwargs)
        self.windows += len(window) * len(self.flips)
        return mean

    def split(self, window: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """The first call: what it returns, and the following ones, is features if the network has such a head."""
        if autocast_dtype(self.precision, window.device) is not None:
            return self(window, *args, **kwargs)  # the head would not be in half precision
        head, output = split_head(self.network, lambda: self(window, *args, **kwargs))
        self.head = head
        return output

    def _mean(self, window: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        total = self._forward(window, (), *args, **kwargs)
        if total.untyped_storage().data_ptr() == window.untyped_storage().data_ptr():
            total = total.clone()  # the sum below and the weighting work in place; they would damage the image
        for axes in self.flips[1:]:
            total += self._forward(window, axes, *args, **kwargs)
        return total if len(self.flips) == 1 else total.div_(len(self.flips))

    def _forward(self, window: torch.Tensor, axes: tuple[int, ...], *args: Any, **kwargs: Any) -> torch.Tensor:
        window = torch.flip(window, axes) if axes else window
        alone = window.device.type == "cpu" and len(window) == 1 and not args and not kwargs
        copies = _quick_batch(self.network, window.shape[2:]) if alone else 1
        dtype = autocast_dtype(self.precision, window.device)
        with torch.autocast(window.device.type, dtype=dtype, enabled=dtype is not None):
            logits = self.network(torch.cat([window] * copies) if copies > 1 else window, *args, **kwargs)
        logits = logits[: len(window)]
        logits = logits if logits.dtype == torch.float64 else logits.float()
        return torch.flip(logits, axes) if axes else logits


def _check_options(mirror_axes: Sequence[int], precision: str, dims: int = 3) -> None:
    autocast_dtype(precision, torch.device("cpu"))  # an unknown one is told at once
    if len(set(mirror_axes)) < len(mirror_axes) or not set(mirror_axes) <= set(range(dims)):
        raise ConfigError(f"mirror_axes {list(mirror_axes)} must be different spatial axes between 0 and {dims - 1}.")


class SlidingWindow(SlidingWindowInferer):
    """Sliding windows over ``(B, C, *spatial)``; logits ``(B, K, *spatial)`` on the image's grid.

    Equal to MONAI's, to the bit but for the place of the last layer (``split_head``); patches of constant content are
    run once (``run_patches``).

    Args:
        roi_size: patch size in voxels.
        overlap: share of a patch that neighbours share, 0 <= overlap < 1.
        mode: ``gaussian`` or ``constant`` blending.
        sw_batch_size: most patches per forward pass; on a CPU, one or two at once are quicker.
        even_spacing: space the patches evenly (``even_overlap``); never more patches than MONAI's own rule.
        mirror_axes: spatial axes of mirror test-time augmentation; the mean of logits over all 2^n flips.
        precision: ``fp32``, ``bf16``, ``fp16`` or ``auto`` (``autocast_dtype``) of the network; blending is in float32.
        sigma_scale, padding_mode, cval: arguments of ``SlidingWindowInferer``.

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
        sigma_scale: float = 0.125,
        padding_mode: str = "constant",
        cval: float = 0.0,
    ) -> None:
        if not 0 <= overlap < 1:
            raise ConfigError(f"overlap {overlap} is outside [0, 1); use for example 0.5.")
        if min(roi_size) < 1:
            raise ConfigError(f"roi_size {list(roi_size)} must be positive in every axis.")
        _check_options(mirror_axes, precision, len(roi_size))
        super().__init__(tuple(roi_size), sw_batch_size, overlap, mode, sigma_scale, padding_mode, cval)
        self.even_spacing = even_spacing
        self.mirror_axes = tuple(mirror_axes)
        self.precision = precision
        self._last = _Predictor(torch.clone, (), precision)

    @property
    def windows(self) -> int:
        """Patches that the network saw in the last call, mirror images included."""
        return self._last.windows

    def __call__(self, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        parts = [self.slabs(part, network, *args, **kwargs).whole() for part in inputs.split(1)]
        logits = torch.stack(parts)
        return MetaTensor(logits).copy_meta_from(inputs, copy_attr=False) if isinstance(inputs, MetaTensor) else logits

    def slabs(self, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Slabs:
        """The logits of one image ``(1, C, *spatial)``; the network runs while its pieces are asked for."""
        image = torch.as_tensor(inputs)[0]
        image = image.as_tensor() if isinstance(image, MetaTensor) else image
        shape, roi = tuple(image.shape[1:]), tuple(self.roi_size)  # type: ignore[arg-type]
        if len(shape) != len(roi):
            raise ConfigError(f"roi_size {list(roi)} does not fit an image with {len(shape)} spatial axes.")
        short = [max(0, r - n) for r, n in zip(roi, shape, strict=True)]
        pads = [n for lack in reversed(short) for n in (lack // 2, lack - lack // 2)]
        image = F.pad(image[None], pads, mode=str(self.padding_mode), value=self.cval)[0] if any(short) else image
        order = slow_first(image.shape[1:], roi)
        size, window = [image.shape[a + 1] for a in order], [roi[a] for a in order]
        places = self.places(size, window)
        importance = compute_importance_map(roi, self.mode, self.sigma_scale, image.device, image.dtype)
        predictor = self._last = _Predictor(network, self.mirror_axes, self.precision)

        ring = Ring()

        def run(patches: torch.Tensor) -> torch.Tensor:
            if len(patches) <= self.sw_batch_size:
                call = predictor if predictor.windows else predictor.split
                try:
                    return _front(call(_back(patches, order), *args, **kwargs), order)
                except RuntimeError as error:
                    if not lacks_gpu_memory(error):
                        raise
                    self._step_down(error, len(patches), ring)
                # Beyond the handler: the error's frames hold memory.
                torch.cuda.empty_cache()  # cuDNN and cuFFT have no use of what torch keeps
            return torch.cat([run(patch) for patch in patches.split(1)])

        at_once = self.at_once(network, image.device)
        outputs = run_patches(_front(image, order), places, run, at_once, reuse=by_content(network))
        first = next(outputs)
        head = None if predictor.head is None else copy.deepcopy(predictor.head)  # its weights may become another's
        channels, item = len(first[1]) if head is None else head.out_channels, first[1].element_size()
        planes = planes_of(channels, size[1:], item)
        every = itertools.chain(iter([first]), outputs)  # an iterator at its end drops the list, chain alone would not
        pieces = blended(every, importance.permute(order), size, planes, ring)
        pieces = (
            piece.to(image.device) for piece in pieces
        )  # wherever the ring is, the head and what follows are here
        if any(short):
            pieces = _cropped(pieces, [slice(short[a] // 2, short[a] // 2 + shape[a]) for a in order])
        held = (len(first[1]) + 1) * ring_voxels(size, window) * item
        return Slabs(channels, shape, pieces, head, order, item, held)

    def at_once(self, network: Any, device: torch.device) -> int:
        """Patches per forward pass."""
        most = _quick_batch(network, self.roi_size) if device.type == "cpu" else self.sw_batch_size  # type: ignore[arg-type]
        return min(self.sw_batch_size, most)

    def _step_down(self, error: RuntimeError, patches: int, ring: Ring) -> None:
        """Make room for the network without a change of the result: single patches, then blending on the CPU.

        Raises:
            ResourceError: nothing is left to do.
        """
        if patches > 1:
            self.sw_batch_size, change = 1, "patches go one by one from here on"
        elif ring.to_cpu():
            change = "the rest of the image is blended on the CPU"
        else:
            size = "×".join(map(str, self.roi_size))  # type: ignore[arg-type]
            precise = ", or --set precision=bf16" if self.precision == "fp32" else ""
            raise ResourceError(
                f"The GPU is out of memory{memory_lacking(str(error))} for a single patch of {size}, blended on the "
                f"CPU. Use --device cpu{precise}."
            ) from error
        logger.warning("the GPU is out of memory%s at inference: %s", memory_lacking(str(error)), change)

    def places(self, size: Sequence[int], roi: Sequence[int]) -> list[tuple[slice, ...]]:
        """Where the patches of an image lie, the first axis slowest."""
        steps = [self._step(n, r) for n, r in zip(size, roi, strict=True)]
        found: list[tuple[slice, ...]] = dense_patch_slices(size, roi, steps)
        return found

    def _step(self, size: int, roi: int) -> int:
        """Voxels between patches along an axis, as MONAI rounds them."""
        overlap: float = self.overlap  # type: ignore[assignment]
        overlap = even_overlap(size, roi, overlap) if self.even_spacing else overlap
        return roi if size == roi else max(1, int(roi * (1 - overlap)))


def _front(values: torch.Tensor, order: Sequence[int]) -> torch.Tensor:
    """``(..., *spatial)`` with the spatial axes in another order."""
    before = values.dim() - len(order)
    return values.permute(*range(before), *(before + axis for axis in order))


def _back(patches: torch.Tensor, order: Sequence[int]) -> torch.Tensor:
    """``(B, C, *spatial)`` in their own order again."""
    return patches.permute(0, 1, *(order.index(axis) + 2 for axis in range(len(order)))).contiguous()


def _cropped(pieces: Iterator[torch.Tensor], inside: Sequence[slice]) -> Iterator[torch.Tensor]:
    """Pieces of the part of the image that is ``inside``."""
    start = 0
    for piece in pieces:
        low, high = max(inside[0].start - start, 0), min(inside[0].stop - start, piece.shape[1])
        start += piece.shape[1]
        if low < high:
            yield piece[(slice(None), slice(low, high), *inside[1:])]


class WholeVolume(Inferer):
    """One forward pass over the whole image, with the options of ``SlidingWindow`` that apply."""

    def __init__(self, mirror_axes: Sequence[int] = (), precision: str = "fp32") -> None:
        super().__init__()
        _check_options(mirror_axes, precision)
        self.mirror_axes = tuple(mirror_axes)
        self.precision = precision

    def __call__(self, inputs: torch.Tensor, network: Callable[..., torch.Tensor], *args: Any, **kwargs: Any) -> Any:
        return _Predictor(network, self.mirror_axes, self.precision)(inputs, *args, **kwargs)

    def slabs(self, inputs: torch.Tensor, network: Callable[..., torch.Tensor], *args: Any, **kwargs: Any) -> Slabs:
        """The logits of one image ``(1, C, *spatial)``, all of which the network made."""
        return Slabs.of(torch.as_tensor(self(inputs, network, *args, **kwargs))[0])
