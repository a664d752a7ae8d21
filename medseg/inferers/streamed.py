"""From an image to its label map without the logits of the whole of it."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Any

import torch
from monai.data import MetaTensor, decollate_batch
from monai.data.utils import collate_meta_tensor_fn
from monai.inferers import Inferer
from monai.transforms import Compose
from monai.utils import TraceKeys

from medseg.errors import ResourceError
from medseg.free_memory import GIB, available_gib
from medseg.inferers.ensemble import Ensemble
from medseg.transforms import LogitsToLabelsd, ToSourceGridd
from medseg.transforms.separable import source_grid
from medseg.transforms.slabs import CHUNK_BYTES, Slabs

__all__ = ["EnsembleLabels", "Streamed", "require_memory", "streamed"]


logger = logging.getLogger("medseg")

_CHUNKS = 6  # of logits: as they come, as probabilities, on the source grid


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


def require_memory(slabs: Slabs, image: MetaTensor) -> None:
    """Refuse what the memory of the machine will not hold, as far as it is forecast; activations are not in it.

    Args:
        slabs: of the image, none of which is made yet.
        image: the prepared image ``(C, *spatial)``.

    Raises:
        ResourceError: more is needed than is free.
    """
    if image.device.type != "cpu":
        return  # a GPU without room leaves the blend to the CPU
    free = available_gib()
    streams = source_grid(image) is not None
    source = math.prod(image.applied_operations[0][TraceKeys.ORIG_SIZE] if image.applied_operations else slabs.shape)
    at_once = slabs.bytes_at_once * (slabs.made is None) + slabs.held + 4 * slabs.item * source
    needed = 2 * source + (slabs.held + _CHUNKS * CHUNK_BYTES if streams else at_once)
    work = f"{slabs.channels} classes x {' x '.join(map(str, slabs.shape))} voxels"
    if needed / GIB > free:
        why = "" if streams else ", at once since the image is resampled across its axes"
        raise ResourceError(
            f"inference needs about {needed / GIB:.1f} GiB ({work}{why}), and {free:.1f} GiB are free. Use a smaller "
            "patch size or larger voxels, or free memory."
        )
    if at_once / GIB > free:
        logger.info(
            "Inference needs about %.1f GiB at once (%s); using streaming (%.1f GiB).",
            at_once / GIB,
            work,
            needed / GIB,
        )


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
