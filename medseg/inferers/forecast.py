"""What the inference of one image will take of the machine's memory, before it is taken."""

from __future__ import annotations

import logging
import math

from monai.data import MetaTensor
from monai.utils import TraceKeys

from medseg.errors import ResourceError
from medseg.free_memory import GIB, available_gib
from medseg.transforms.separable import source_grid
from medseg.transforms.slabs import CHUNK_BYTES, Slabs

__all__ = ["require_memory"]

logger = logging.getLogger("medseg")

_CHUNKS = 6  # of logits: as they come, as probabilities, on the source grid


def require_memory(slabs: Slabs, image: MetaTensor) -> None:
    """Refuse what the memory of the machine will not hold, as far as it is forecast; activations are not in it.

    Args:
        slabs: slabs of the image, none of which is made yet.
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
