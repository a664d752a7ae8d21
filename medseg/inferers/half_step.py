"""Sliding windows as in Hermes's published evaluation (arXiv 2306.02416): half steps, mean of probabilities.

``SlidingWindow`` with ``mode: constant`` and ``even_spacing: false`` visits the same patches; this one also counts the
last of an axis twice where the published program does, and averages probabilities.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from monai.inferers import Inferer
from monai.utils import convert_to_tensor
from torch import Tensor

from medseg.errors import ConfigError

__all__ = ["HalfStepWindow", "half_step_starts"]


def half_step_starts(size: int, roi: int) -> list[int]:
    """Where patches start along an axis: at multiples of half a patch, the last ones moved to the border.

    Where half a patch divides the size, the last start comes twice.
    """
    half = roi // 2
    return [min(i * half, max(0, size - roi)) for i in range(max(1, size // half))]


class HalfStepWindow(Inferer):
    """Mean of the sigmoid probabilities of all patches that see a voxel, as logits ``(B, K, D, H, W)`` of that mean.

    Volumes smaller than the patch are zero-padded at the end of each axis; those longer than ``max_slices`` along
    their first axis are cut into parts that do not overlap.

    Args:
        roi_size: patch size in voxels, at least 2.
        sw_batch_size: patches per forward pass.
        max_slices: 600 as published; ``None`` never cuts.

    Raises:
        ConfigError: a patch of other axes than the image, or too small.
    """

    def __init__(self, roi_size: Sequence[int], sw_batch_size: int = 1, max_slices: int | None = 600) -> None:
        super().__init__()
        if min(roi_size) < 2:
            raise ConfigError(f"roi_size {list(roi_size)} is too small; expected at least 2 voxels in every axis.")
        self.roi_size = tuple(roi_size)
        self.sw_batch_size = sw_batch_size
        self.max_slices = max_slices

    def __call__(self, inputs: Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Tensor:
        if inputs.dim() != len(self.roi_size) + 2:
            raise ConfigError(f"roi_size {list(self.roi_size)} does not fit an image of shape {tuple(inputs.shape)}.")
        count = math.ceil(inputs.shape[2] / self.max_slices) if self.max_slices else 1
        volume = convert_to_tensor(inputs, track_meta=False)
        parts = [self._windows(part, network, *args, **kwargs) for part in volume.tensor_split(count, 2)]
        return torch.logit(torch.cat(parts, 2), eps=1e-7)

    def _windows(self, volume: Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Tensor:
        short = [max(0, r - n) for r, n in zip(self.roi_size, volume.shape[2:], strict=True)]
        padding = [n for pad in reversed(short) for n in (0, pad)]
        volume = F.pad(volume, padding)
        starts = [Counter(half_step_starts(n, r)) for n, r in zip(volume.shape[2:], self.roi_size, strict=True)]
        places = list(itertools.product(*starts))
        weight = volume.new_zeros(volume.shape[2:])
        sums = []
        for image in volume:
            total: Any = 0
            weight.zero_()
            for first in range(0, len(places), self.sw_batch_size):
                batch = places[first : first + self.sw_batch_size]
                boxes = [tuple(slice(s, s + r) for s, r in zip(p, self.roi_size, strict=True)) for p in batch]
                windows = torch.stack([image[(slice(None), *box)] for box in boxes])
                probabilities = network(windows, *args, **kwargs).float().sigmoid()
                if first == 0:
                    total = probabilities.new_zeros(probabilities.shape[1], *volume.shape[2:])
                for place, box, found in zip(batch, boxes, probabilities, strict=True):
                    times = math.prod(counts[start] for counts, start in zip(starts, place, strict=True))
                    total[(slice(None), *box)] += times * found
                    weight[box] += times
            sums.append(total / weight)
        return F.pad(torch.stack(sums), [-n for n in padding])
