"""What MONAI's metric handlers take: one binary map per evaluation target."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from medseg.labels import IGNORE, LabelSpace

__all__ = ["target_maps"]


def target_maps(label_space: LabelSpace) -> Callable[[Sequence[dict[str, Any]]], tuple[list[torch.Tensor], ...]]:
    """An ``output_transform``: label maps ``pred`` and ``label`` ``(1, *spatial)`` -> ``(T, *spatial)`` of 0 and 1.

    The channels are the label space's evaluation targets; ignored voxels are 0 in both.
    """

    def transform(output: Sequence[dict[str, Any]]) -> tuple[list[torch.Tensor], ...]:
        pairs: tuple[list[torch.Tensor], ...] = ([], [])
        for data in output:
            pred, label = (torch.as_tensor(data[key])[0].cpu().numpy() for key in ("pred", "label"))
            valid = label != IGNORE
            for maps, values in zip(pairs, (pred, label), strict=True):
                maps.append(torch.from_numpy(label_space.binary(values) & valid).float())
        return pairs

    return transform
