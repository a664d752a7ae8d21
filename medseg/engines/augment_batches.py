"""Augmentation of whole batches on the training's device: ``prepare_batch`` of MONAI's trainer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from monai.engines import PrepareBatch, default_prepare_batch
from torch import Tensor

from medseg.data.dataset import SeededDataset
from medseg.transforms.delayed import Delayed, change_batch
from medseg.transforms.placed import Placed
from medseg.transforms.recipes import DRAWN

__all__ = ["PrepareAugmented"]


class PrepareAugmented(PrepareBatch):
    """Moves a batch to the device, and makes the random changes there that its cases only drew. Where its patches are
    only placed, the data set's prepared cases are kept on the device, and the patches are cut there.

    Args:
        dataset: the data set that the cases come from; without ``Delayed`` or ``Placed`` steps a batch stays as it is.
    """

    def __init__(self, dataset: SeededDataset) -> None:
        self.dataset = dataset
        transform = getattr(getattr(dataset, "dataset", dataset), "transform", None)  # MONAI's own data sets too
        steps = getattr(transform, "transforms", ())
        self.steps = [step for step in steps if isinstance(step, Delayed)]
        self.crop = next((step for step in steps if isinstance(step, Placed)), None)
        self.kept: dict[str, tuple[Tensor, Tensor]] = {}

    def __call__(
        self,
        batchdata: dict[str, Any],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor]:
        image, label = cast("tuple[Tensor, Tensor]", default_prepare_batch(batchdata, device, non_blocking, **kwargs))
        if not self.steps and self.crop is None:
            return image, label
        drawn = batchdata[DRAWN]
        if self.crop is not None:
            if not self.kept:
                self.kept = {case: _moved(item, image, label) for case, item in self.dataset.prepared().items()}
            volumes = [self.kept[case] for case in batchdata["case_id"]]
            dims = image.dim() - 2
            image, label = (self.crop.cut(of_key, drawn[:, :dims]) for of_key in zip(*volumes, strict=True))
            drawn = drawn[:, dims:]
        return change_batch(self.steps, image, label, drawn, non_blocking=non_blocking)


def _moved(item: Mapping[str, Any], image: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """A prepared case, plain and as batches are."""
    return item["image"].as_subclass(Tensor).to(image), item["label"].as_subclass(Tensor).to(label)
