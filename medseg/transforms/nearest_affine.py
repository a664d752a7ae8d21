"""The random affine change of the neural-operator publications, number for number (arXiv 2507.08205 and before).

It does not improve over ``RandAffined``: images are resampled to the nearest voxel as labels are, and
the centre is one voxel off. It is here so that a published training can be repeated.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, Randomizable
from monai.utils import convert_to_tensor

from medseg.errors import ConfigError

__all__ = ["AffineDraw", "RandNearestAffined", "draw_affine", "warp_nearest"]


class AffineDraw(NamedTuple):
    """One change: ``matrix`` (4, 4) maps places of the result to places of the source, in voxels and the order x, y, z
    (the last array axis first); ``flips`` are array axes that are mirrored afterwards.
    """

    matrix: np.ndarray
    flips: tuple[int, ...]


def draw_affine(
    generator: np.random.Generator,
    size: Sequence[int],
    *,
    rotate: Sequence[float],
    shift: Sequence[float],
    zoom: Sequence[float],
    flip: Sequence[bool],
    prob: float,
) -> AffineDraw | None:
    """Draw in the published order: whether, angles (of ranges that are not 0), shifts, zoom, flips; ``None`` is none.

    The matrix is Zoom · Shift · Rz · Ry · Rx about the place size / 2 + 0.5. Arguments as of ``RandNearestAffined``.
    """
    if not generator.binomial(1, prob):
        return None
    angles = [np.deg2rad(generator.uniform(-limit, limit)) if limit else 0.0 for limit in rotate]
    shifts = [generator.uniform(-limit, limit) * n for limit, n in zip(shift, size, strict=True)]
    factor = generator.uniform(zoom[0], zoom[1])
    flips = tuple(axis for axis, wanted in enumerate(flip) if wanted and generator.uniform() < 0.5)
    # Array axes D, H, W are z, y, x.
    turn = _rotation(0, 1, angles[0]) @ _rotation(2, 0, angles[1]) @ _rotation(1, 2, angles[2])
    center = np.array(size[::-1]) / 2 + 0.5
    matrix = np.eye(4)
    matrix[:3, :3] = factor * turn[:3, :3]
    matrix[:3, 3] = center + factor * np.array(shifts[::-1]) - matrix[:3, :3] @ center
    return AffineDraw(matrix, flips)


def _rotation(first: int, second: int, angle: float) -> np.ndarray:
    """In the plane of two axes, by ``angle`` in radians."""
    matrix = np.eye(3)
    matrix[[first, second], [first, second]] = np.cos(angle)
    matrix[first, second], matrix[second, first] = -np.sin(angle), np.sin(angle)
    return matrix


def warp_nearest(volume: torch.Tensor, draw: AffineDraw) -> torch.Tensor:
    """``(C, D, H, W)`` changed by a draw, by the nearest voxel; 0 from outside."""
    import SimpleITK

    transform = SimpleITK.AffineTransform(3)
    transform.SetMatrix(draw.matrix[:3, :3].ravel().tolist())
    transform.SetTranslation(draw.matrix[:3, 3].tolist())
    channels = []
    for channel in volume.numpy():
        image = SimpleITK.GetImageFromArray(channel)
        moved = SimpleITK.Resample(image, image, transform, SimpleITK.sitkNearestNeighbor, 0.0)
        channels.append(SimpleITK.GetArrayFromImage(moved))
    result = torch.from_numpy(np.stack(channels))
    return result.flip([axis + 1 for axis in draw.flips]) if draw.flips else result


class RandNearestAffined(MapTransform, Randomizable):
    """Rotate, shift, zoom and flip volumes ``(C, D, H, W)`` of one size, image and label alike.

    Args:
        keys: what to change.
        rotate: largest angle in degrees about the axes D, H and W.
        shift: largest shift along D, H and W, as a fraction of the size.
        zoom: smallest and largest factor from the result's to the source's places; above 1 objects become smaller.
        flip: for D, H and W, whether to mirror with probability 0.5.
        prob: probability of any change.

    Every item has random numbers of its own: as published, all workers of a loader drew the same ones.

    Raises:
        ConfigError: not three values per axis, or a probability outside [0, 1].
    """

    def __init__(
        self,
        keys: KeysCollection,
        *,
        rotate: Sequence[float] = (30, 0, 0),
        shift: Sequence[float] = (0.2, 0.2, 0.2),
        zoom: Sequence[float] = (0.8, 1.2),
        flip: Sequence[bool] = (False, False, False),
        prob: float = 0.8,
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        for name, values, count in (("rotate", rotate, 3), ("shift", shift, 3), ("zoom", zoom, 2), ("flip", flip, 3)):
            if len(values) != count:
                raise ConfigError(f"{name} is {list(values)}, expected {count} values.")
        if not 0 <= prob <= 1:
            raise ConfigError(f"prob is {prob}, expected a probability between 0 and 1.")
        self.settings: dict[str, Any] = {"rotate": rotate, "shift": shift, "zoom": zoom, "flip": flip, "prob": prob}

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        volumes = {key: convert_to_tensor(result[key], track_meta=False) for key in self.key_iterator(result)}
        size = next(iter(volumes.values())).shape[1:]
        draw = draw_affine(np.random.default_rng(self.R.randint(2**32, dtype=np.uint32)), size, **self.settings)
        if draw is not None:
            result |= {key: warp_nearest(volume, draw) for key, volume in volumes.items()}
        return result
