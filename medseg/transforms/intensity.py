"""Normalisation per channel, so that a PET/CT pair or a colour image needs one transform and one line of config.

A *scheme* is a dictionary with ``kind``:

* ``fixed``: clip to [``lower``, ``upper``], then subtract ``mean`` and divide by ``std``. CT in HU and PET in SUV,
  with figures of the training set; 0..255 images. ``lower`` and ``upper`` may be null.
* ``case``: clip to [``lower``, ``upper``] or to two ``percentiles`` of the case, where they are given; then z-score
  with the case's own mean and standard deviation; with ``nonzero`` over voxels that are not 0, which stay 0. MR.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import NormalizeIntensity
from monai.utils import convert_to_tensor

from medseg.errors import ConfigError
from medseg.transforms.each_key import EachKey

__all__ = ["NormalizeChannelsd"]


class NormalizeChannelsd(EachKey):
    """Normalise each channel of ``(C, *spatial)`` by its scheme; one scheme serves all channels.

    Raises:
        ConfigError: unknown kind, or as many schemes as the image has no channels.
    """

    def __init__(
        self, keys: KeysCollection, schemes: Sequence[Mapping[str, Any]], allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        for scheme in schemes:
            if scheme.get("kind") not in ("fixed", "case"):
                raise ConfigError(f"Normalisation kind {scheme.get('kind')!r} is unknown; use 'fixed' or 'case'.")
        self.schemes = [dict(scheme) for scheme in schemes]

    def change(self, value: Any, data: Mapping[Hashable, Any]) -> Any:
        image = convert_to_tensor(value, track_meta=True)
        schemes = self.schemes * image.shape[0] if len(self.schemes) == 1 else self.schemes
        if len(schemes) != image.shape[0]:
            raise ConfigError(
                f"{len(schemes)} normalisation schemes for an image of {image.shape[0]} channels; give one each."
            )
        image = image.to(torch.float32, copy=True)
        for channel, scheme in zip(image.as_tensor(), schemes, strict=True):
            _apply(channel, scheme)
        return image


def _apply(channel: torch.Tensor, scheme: Mapping[str, Any]) -> None:
    """In place: a volume is large."""
    lower, upper = scheme.get("lower"), scheme.get("upper")
    if scheme.get("percentiles"):
        lower, upper = (float(p) for p in np.percentile(channel.numpy(), scheme["percentiles"]))
    if lower is not None or upper is not None:
        channel.clamp_(lower, upper)
    if scheme["kind"] == "case":
        channel.copy_(torch.as_tensor(NormalizeIntensity(nonzero=bool(scheme.get("nonzero", False)))(channel)))
    else:
        channel.sub_(float(scheme.get("mean", 0.0))).div_(max(float(scheme.get("std", 1.0)), 1e-8))
