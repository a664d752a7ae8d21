"""From an image to its label map without the logits of the whole of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from monai.data import decollate_batch
from monai.data.utils import collate_meta_tensor_fn
from monai.inferers import Inferer
from monai.transforms import Compose

from medseg.inferers.ensemble import Ensemble
from medseg.inferers.forecast import require_memory
from medseg.transforms import LogitsToLabelsd, ToSourceGridd

__all__ = ["EnsembleLabels", "Streamed", "streamed"]


def streamed(network: Any, inferer: Any, postprocessing: Compose) -> tuple[Any, Compose]:
    """Both, with label maps made as the logits come, where label maps are the first thing that is made of them."""
    first = next(iter(postprocessing.transforms), None)
    if isinstance(network, Ensemble):
        if type(first) is not LogitsToLabelsd or first.keys != ("pred",):
            return inferer, postprocessing
        return EnsembleLabels(), Compose(postprocessing.transforms[1:])
    if not hasattr(inferer, "slabs") or type(first) is not ToSourceGridd or first.keys != ("pred",):
        return inferer, postprocessing
    return Streamed(inferer, first), Compose(postprocessing.transforms[1:])


class EnsembleLabels(Inferer):
    """Label indices ``(1, 1, *source)`` of one image ``(1, C, *source)`` by an ``Ensemble``."""

    def __call__(self, inputs: torch.Tensor, network: Any, *args: Any, **kwargs: Any) -> Any:
        return collate_meta_tensor_fn([network.labels(inputs)])


class Streamed(Inferer):
    """Label indices ``(1, 1, *source)`` of one image ``(1, C, *spatial)``, made as its logits come.

    Args:
        inferer: with ``slabs``, as ``SlidingWindow``.
        to_source: makes labels of them.
    """

    def __init__(self, inferer: Any, to_source: ToSourceGridd) -> None:
        super().__init__()
        self.inferer = inferer
        self.to_source = to_source

    @property
    def windows(self) -> int | None:
        """Of the inferer."""
        windows: int | None = getattr(self.inferer, "windows", None)
        return windows

    def __call__(self, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        image = decollate_batch(inputs)[0]
        slabs = self.inferer.slabs(inputs, network, *args, **kwargs)
        require_memory(slabs, image)
        return collate_meta_tensor_fn([self.to_source.labels(slabs, image)])
