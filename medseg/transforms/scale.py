"""Resize a whole field of view to a fraction of its voxels, image and label with one rule, and back."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import InvertibleTransform, MapTransform, Resize
from monai.utils import TraceKeys, convert_to_tensor

from medseg.errors import ConfigError

__all__ = ["ScaleSized", "scaled_size"]

_LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}
_MODES = ("linear", "nearest")


def scaled_size(size: Sequence[int], scale: float, kept_axis: int | None = None) -> tuple[int, ...]:
    """Voxels per axis at a fraction of ``size``, rounded up: all sizes of the HNOSeg-XS publication are (155 at 0.5 is
    78, 256 at a third is 86). The voxels along ``kept_axis`` stay as they are.
    """
    scaled = (max(1, math.ceil(n * scale - 1e-4)) for n in size)  # a third may be written 0.3333333
    return tuple(n if axis == kept_axis else new for axis, (n, new) in enumerate(zip(size, scaled, strict=True)))


class ScaleSized(MapTransform, InvertibleTransform):
    """Resize ``(C, *spatial)`` to ``scale`` times its size; corners of the field of view stay where they are.

    Args:
        keys: what to resize.
        scale: fraction of the voxels per axis; above 1 enlarges.
        size: what ``scale`` is a fraction of, in voxels; ``None`` is each image's own size.
        mode: ``linear``, images smoothed before shrinking, and of a label the value with the largest share, which moves
            nothing; or ``nearest``, for both, as published.
        kept_axis: spatial axis along which nothing is resized.

    The inverse is linear, for probabilities, or nearest where ``Invertd`` asks for that.

    Raises:
        ConfigError: a scale that is not positive, or an unknown mode.
    """

    def __init__(
        self,
        keys: KeysCollection,
        scale: float = 1.0,
        size: Sequence[int] | None = None,
        mode: str = "linear",
        kept_axis: int | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if not scale > 0:
            raise ConfigError(f"scale is {scale}, expected a number above 0, such as 0.5 for half the voxels per axis.")
        if mode not in _MODES:
            raise ConfigError(f"mode '{mode}' of a change of size is unknown; use {' or '.join(_MODES)}.")
        self.scale = scale
        self.size = size
        self.mode = mode
        self.kept_axis = kept_axis

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        for key in self.key_iterator(result):
            image = convert_to_tensor(result[key], track_meta=True)
            size = scaled_size(self.size or image.shape[1:], self.scale, self.kept_axis)
            if self.mode == "nearest":
                result[key] = Resize(size, mode="nearest-exact")(image)
            else:
                resize = Resize(size, mode=_LINEAR[len(size)], anti_aliasing=key == "image")
                result[key] = resize(image) if key == "image" else _largest_share(image, resize)
        return result

    def inverse(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        for key in self.key_iterator(result):
            image = result[key]
            record = self.pop_transform(image, check=False)
            # Invertd writes "nearest" into the record; a forward "nearest-exact" is no wish for the way back.
            asked = record[TraceKeys.EXTRA_INFO]["mode"] == "nearest"
            size = tuple(record[TraceKeys.ORIG_SIZE])
            resize = Resize(size, mode="nearest-exact" if asked else _LINEAR[len(size)])
            with resize.trace_transform(False):
                result[key] = resize(image)
        return result


def _largest_share(label: MetaTensor, resize: Resize) -> torch.Tensor:
    """Per new voxel the value that most of it had. Halving makes many ties, which go to either value in turn, as on a
    chessboard: given to one of them, say the background, every object would lose a tenth of its volume.
    """
    best: torch.Tensor | None = None
    winner = torch.empty(0)
    turn = torch.empty(0)
    for value in label.as_tensor().unique().tolist():
        mask = MetaTensor(
            (label.as_tensor() == value).float(), meta=label.meta, applied_operations=list(label.applied_operations)
        )
        share = resize(mask)
        if best is None or winner is None or turn is None:
            best, winner = share, torch.full_like(share, value)
            places = torch.meshgrid(*(torch.arange(n) for n in share.shape[1:]), indexing="ij")
            turn = torch.stack(places).sum(0) % 2 == 0
            continue
        winner[(share > best) | ((share == best) & (share > 0) & turn)] = value
        best = torch.maximum(best, share)
    assert winner is not None
    return winner
