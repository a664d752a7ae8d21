"""Patches whose places are drawn per case, and which are cut on the training's device, where the cases are kept."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.transforms import Compose, RandCropByLabelClassesd, Randomizable, Transform
from monai.utils import ensure_tuple
from torch import Tensor

from medseg.transforms.delayed import Delayed
from medseg.transforms.patches import RandForegroundCropd
from medseg.transforms.recipes import DRAWN

__all__ = ["Placed", "placed"]


class Placed(Randomizable, Transform):
    """Draws where a crop would cut its patches; a case then has no voxels, but the first voxel of its patch.

    Args:
        step: the crop.
    """

    def __init__(self, step: RandCropByLabelClassesd | RandForegroundCropd) -> None:
        self.step = step
        self.size = () if isinstance(step, RandForegroundCropd) else ensure_tuple(step.cropper.spatial_size)

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None) -> Placed:
        self.step.set_random_state(seed, state)
        return self

    def __call__(self, data: Mapping[Hashable, Any]) -> list[dict[Hashable, Any]]:
        shape = data["image"].shape[1:]
        none = (slice(None), *[slice(0)] * len(shape))
        empty: dict[Hashable, Any] = {key: data[key].as_subclass(Tensor)[none] for key in ("image", "label")}
        starts = self._starts(shape, data)
        return [{**data, **empty, DRAWN: torch.tensor(start, dtype=torch.float32)} for start in starts]

    def _starts(self, shape: Sequence[int], data: Mapping[Hashable, Any]) -> list[list[int]]:
        if isinstance(self.step, RandForegroundCropd):
            return [self.step.start(shape, data[self.step.indices_key]) for _ in range(self.step.num_samples)]
        self.step.randomize(data["label"], data[self.step.indices_key], data["image"])
        centres = self.step.cropper.centers or ()
        return [[max(0, int(c) - n // 2) for c, n in zip(centre, self.size, strict=True)] for centre in centres]

    def cut(self, volumes: Sequence[Tensor], drawn: Tensor) -> Tensor:
        """The patches ``(B, C, *spatial)`` of volumes ``(C, *spatial)``, at the places that were drawn."""
        dims = volumes[0].dim() - 1
        return torch.stack([self._cut(*pair) for pair in zip(volumes, drawn[:, :dims].int().tolist(), strict=True)])

    def _cut(self, volume: Tensor, start: Sequence[int]) -> Tensor:
        if isinstance(self.step, RandForegroundCropd):
            return self.step.cut(volume, start)
        for axis, (first, n) in enumerate(zip(start, self.size, strict=True), 1):
            volume = volume.narrow(axis, first, n)
        return volume


def placed(chain: Compose) -> Compose:
    """A chain whose patches are only placed; the chain itself where not all its later changes are delayed too."""
    random = [step for step in chain.transforms if isinstance(step, Randomizable)]
    first = random[0] if random else None
    if not isinstance(first, (RandCropByLabelClassesd, RandForegroundCropd)):
        return chain
    if not random[1:] or not all(isinstance(step, Delayed) for step in random[1:]):
        return chain
    return Compose([Placed(first) if step is first else step for step in chain.transforms])
