"""Random changes that are drawn per case and made per batch, on the device where the batch is.

A case comes with the numbers that its transforms drew, each with the transform's own ranges, probability and random
state: they are the very numbers by which it would have changed the case itself. Only noise is drawn on the device,
from a number of the case.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.transforms import Randomizable, Transform
from torch import Tensor

from medseg.transforms.recipes import DRAWN

__all__ = ["Delayed", "change_batch"]


class Delayed(Randomizable, Transform):
    """Draws what a transform would change in a case, and changes batches so.

    Args:
        step: the transform.
    """

    keys: tuple[str, ...] = ("image",)  # those that the transform must have

    def __init__(self, step: Any) -> None:
        self.step = step

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None) -> Delayed:
        self.step.set_random_state(seed, state)
        return self

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        channels, dims = data["image"].shape[0], data["image"].ndim - 1
        self.step.randomize(None)
        drawn = self.draw(channels, dims) if self.step._do_transform else None
        numbers = [0.0] * self.width(channels, dims) if drawn is None else [1.0, *drawn]
        own = torch.tensor(numbers, dtype=torch.float32)
        return {**data, DRAWN: torch.cat([data[DRAWN], own]) if DRAWN in data else own}

    def width(self, channels: int, dims: int) -> int:
        """How many numbers a case has: whether it is changed, and those of ``draw``."""
        return 1 + self.count(channels, dims)

    @abstractmethod
    def count(self, channels: int, dims: int) -> int:
        """How many numbers ``draw`` gives."""

    @abstractmethod
    def draw(self, channels: int, dims: int) -> Sequence[float] | None:
        """The numbers of a case that is changed; ``None`` where it stays after all."""

    def keep(self, image: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """A batch of which no case is changed."""
        return image, label

    @abstractmethod
    def change(self, image: Tensor, label: Tensor, values: Tensor, drawn: Tensor) -> tuple[Tensor, Tensor]:
        """A batch changed by its cases' numbers ``(B, width)``: ``values`` on its device, ``drawn`` on the CPU. The
        numbers of a case that stays are 0.
        """


def change_batch(
    steps: Sequence[Delayed], image: Tensor, label: Tensor, drawn: Tensor, *, non_blocking: bool = False
) -> tuple[Tensor, Tensor]:
    """Make the changes of a batch ``(B, C, *spatial)`` and its labels ``(B, 1, *spatial)`` where they are.

    Args:
        steps: in their order.
        image, label: the batch.
        drawn: the cases' numbers ``(B, N)``, on the CPU: whoever looks at them waits for no device.
        non_blocking: whether to copy them without waiting.
    """
    channels, dims, first = image.shape[1], image.dim() - 2, 0
    there = drawn.to(image.device, non_blocking=non_blocking)
    for step in steps:
        own = slice(first, first + step.width(channels, dims))
        if drawn[:, first].any():
            image, label = step.change(image, label, there[:, own], drawn[:, own])
        else:
            image, label = step.keep(image, label)
        first = own.stop
    return image, label
