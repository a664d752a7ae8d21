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
from monai.utils import TraceKeys

from medseg.errors import ResourceError
from medseg.free_memory import GIB, available_gib
from medseg.transforms import ToSourceGridd
from medseg.transforms.separable import source_grid
from medseg.transforms.slabs import CHUNK_BYTES, Slabs

__all__ = ["Streamed"]


logger = logging.getLogger("medseg")

_CHUNKS = 6  # of logits: as they come, as probabilities, on the source grid


def require_memory(slabs: Slabs, image: MetaTensor, *, streams: bool) -> None:
    """Refuse what the memory of the machine will not hold, as far as it is forecast; activations are not in it.

    Args:
        slabs: of the image, none of which is made yet.
        image: the prepared image ``(C, *spatial)``.
        streams: whether labels follow from pieces; else from all logits at once.

    Raises:
        ResourceError: more is needed than is free.
    """
    free = available_gib()
    source = math.prod(image.applied_operations[0][TraceKeys.ORIG_SIZE] if image.applied_operations else slabs.shape)
    at_once = slabs.bytes_at_once * (slabs.made is None) + slabs.held
    needed = slabs.held + _CHUNKS * CHUNK_BYTES if streams else at_once + 4 * slabs.item * source
    needed += 2 * source
    voxels = " x ".join(map(str, slabs.shape))
    about = f"inference needs about {at_once / GIB:.1f} GiB for all logits ({slabs.channels} classes x {voxels})"
    if needed / GIB > free:
        how = f"streaming needs {needed / GIB:.1f} GiB" if streams else "the image was turned, and is not streamed"
        raise ResourceError(
            f"{about}; {how}; {free:.1f} GiB are free. Use a smaller patch size or larger voxels, or free memory."
        )
    if at_once / GIB > free:
        logger.info("%s; streaming, which needs %.1f GiB.", about, needed / GIB)


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
        if image.device.type == "cpu":  # a GPU without room leaves the blend to the CPU
            require_memory(slabs, image, streams=source_grid(image) is not None)
        return collate_meta_tensor_fn([self.to_source.labels(slabs, image)])
