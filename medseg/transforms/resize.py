"""Resize photographs as OpenCV does: by area (``INTER_AREA``), labels by the nearest pixel, the longest side or both
sides to one size.

Pillow's box filter and torch's ``mode="area"`` are the same only for whole factors.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import InvertibleTransform, MapTransform
from monai.utils import TraceKeys, convert_to_tensor

from medseg.errors import ConfigError

__all__ = ["AreaResized", "area_weights"]


def area_weights(old: int, new: int) -> torch.Tensor:
    """The matrix ``(new, old)`` that resizes one axis: overlaps of pixels when smaller, OpenCV's blend when larger."""
    step = old / new
    index = torch.arange(new, dtype=torch.float64)
    if step >= 1:
        first = torch.arange(old, dtype=torch.float64)
        overlap = torch.minimum((index[:, None] + 1) * step, first + 1) - torch.maximum(index[:, None] * step, first)
        weights = overlap.clamp_(min=0)
        return weights / weights.sum(1, keepdim=True)
    left = (index * step).floor()
    share = (index + 1) - (left + 1) / step
    share = torch.where(share > 0, share - share.floor(), 0.0)
    left = left.long()
    weights = torch.zeros(new, old, dtype=torch.float64)
    rows = torch.arange(new)
    weights[rows, left] = 1 - share
    weights[rows, (left + 1).clamp(max=old - 1)] += share
    return weights


class AreaResized(MapTransform, InvertibleTransform):
    """Resize ``(C, H, W)`` to ``size``: by area and rounded to whole grey levels, ``label`` by the nearest pixel.

    Args:
        keys: images and labels.
        size: side length in pixels.
        fit: ``longest`` keeps the shape (the longest side becomes ``size``, the other is cut to a whole number),
            ``stretch`` makes both sides ``size``.

    The inverse is bilinear.

    Raises:
        ConfigError: an unknown ``fit``.
    """

    def __init__(
        self,
        keys: KeysCollection,
        size: int,
        fit: str = "longest",
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        if fit not in ("longest", "stretch"):
            raise ConfigError(f"fit is '{fit}'; use 'longest' or 'stretch'.")
        self.size, self.fit = int(size), fit

    def new_size(self, height: int, width: int) -> tuple[int, int]:
        """(rows, columns) after resizing."""
        if self.fit == "stretch":
            return self.size, self.size
        if height > width:
            return self.size, max(1, int(width * self.size / height))
        return max(1, int(height * self.size / width)), self.size

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        for key in self.key_iterator(result):
            image = convert_to_tensor(result[key], track_meta=True)
            old = (int(image.shape[1]), int(image.shape[2]))
            new = self.new_size(*old)
            values = image.as_tensor()
            if key == "label":
                resized = F.interpolate(values[None].float(), new, mode="nearest")[0].to(values.dtype)
            else:
                rows, columns = (area_weights(a, b).float() for a, b in zip(old, new, strict=True))
                resized = (rows @ values.float() @ columns.T).round_().clamp_(0, 255).to(values.dtype)
            output = MetaTensor(resized, meta=image.meta, applied_operations=image.applied_operations)
            extra = {"label": key == "label"}
            self.push_transform(output, orig_size=old, extra_info=extra)  # type: ignore[no-untyped-call]  # MONAI's
            result[key] = output
        return result

    def inverse(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        for key in self.key_iterator(result):
            image = result[key]
            record = self.pop_transform(image)
            mode = "nearest" if record[TraceKeys.EXTRA_INFO]["label"] else "bilinear"
            size = tuple(record[TraceKeys.ORIG_SIZE])
            values = F.interpolate(image.as_tensor()[None].float(), size, mode=mode)[0]
            result[key] = MetaTensor(values, meta=image.meta, applied_operations=image.applied_operations)
        return result
