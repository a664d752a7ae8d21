"""Random intensity changes with new values for each channel, where MONAI's draw once or from another distribution.

Source: the augmentation of nnU-Net (Isensee et al. 2021).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import (
    AdjustContrast,
    MapTransform,
    RandGaussianNoised,
    RandomizableTransform,
    ScaleIntensityFixedMean,
)
from torch.nn.functional import interpolate

from medseg.transforms.batch_changes import blurred
from medseg.transforms.limits import least_and_largest, probability

__all__ = [
    "RandBlurd",
    "RandChannelsd",
    "RandCommonNoised",
    "RandContrastd",
    "RandGammad",
    "RandLowResolutiond",
]


class RandCommonNoised(RandGaussianNoised):
    """Gaussian noise as MONAI draws it, but the same in all channels of an image; arguments as there."""

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result: dict[Hashable, Any] = dict(data)
        self.randomize(None)
        if self._do_transform:
            noise = self.rand_gaussian_noise
            noise.randomize(result[self.first_key(result)][:1])
            for key in self.key_iterator(result):
                result[key] = noise(result[key], randomize=False)
        return result


class RandChannelsd(RandomizableTransform, MapTransform):
    """Base: with ``prob`` an image is changed, and of it each channel with ``channel_prob``, by values of its own.

    Args:
        keys: images, (C, *spatial).
        prob: probability per image.
        channel_prob: probability of each channel of a changed image.
    """

    def __init__(self, keys: KeysCollection, prob: float, channel_prob: float = 1.0) -> None:
        MapTransform.__init__(self, keys)
        RandomizableTransform.__init__(self, probability("prob", prob))
        self.channel_prob = probability("channel_prob", channel_prob)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        self.randomize(None)
        if self._do_transform:
            for key in self.key_iterator(result):
                image = result[key]
                plain = image.as_tensor() if isinstance(image, MetaTensor) else torch.as_tensor(image)
                drawn = self.draw(len(plain), plain.dim() - 1)
                changed = [
                    c if values is None else self.change(c[None], values)[0]
                    for c, values in zip(plain.float(), drawn, strict=True)
                ]
                result[key] = torch.stack(changed)
        return result

    def draw(self, channels: int, dims: int) -> list[list[float] | None]:
        """New values for each channel of an image that is changed; ``None`` for channels that stay."""
        return [self.values(dims) if self.R.rand() < self.channel_prob else None for _ in range(channels)]

    @abstractmethod
    def values(self, dims: int) -> list[float]:
        """New values for one channel of an image with so many spatial axes."""

    @abstractmethod
    def change(self, channel: torch.Tensor, values: Sequence[float]) -> torch.Tensor:
        """One channel, (1, *spatial), changed by its values."""

    def _around_one(self, bounds: Sequence[float]) -> float:
        """Below 1 as often as above: uniform in each half of the range, if it has both."""
        low, high = bounds
        below = (self.R.rand() < 0.5 and low < 1) or high <= 1
        return float(self.R.uniform(low, min(1.0, high)) if below else self.R.uniform(max(1.0, low), high))


class RandBlurd(RandChannelsd):
    """Gaussian blur whose sigma, in voxels, is uniform in a range and drawn for each axis; not across a slice. Beyond
    the border lies the image's mirror image.

    Args:
        sigma: least and largest.
        keys, prob, channel_prob: as ``RandChannelsd``.
    """

    def __init__(self, keys: KeysCollection, prob: float, sigma: Sequence[float], channel_prob: float = 1.0) -> None:
        super().__init__(keys, prob, channel_prob)
        self.sigma = least_and_largest("sigma", sigma)

    def values(self, dims: int) -> list[float]:
        return [float(self.R.uniform(self.sigma[0], self.sigma[1])) for _ in range(dims)]

    def change(self, channel: torch.Tensor, values: Sequence[float]) -> torch.Tensor:
        return blurred(channel[None], torch.tensor(values)[None, None], max(values))[0]


class RandContrastd(RandChannelsd):
    """Distance from the channel's mean times a factor, cut at the channel's range.

    Args:
        factors: least and largest; below 1 as often as above.
        keys, prob, channel_prob: as ``RandChannelsd``.
    """

    def __init__(self, keys: KeysCollection, prob: float, factors: Sequence[float], channel_prob: float = 1.0) -> None:
        super().__init__(keys, prob, channel_prob)
        self.factors = least_and_largest("factors", factors)

    def values(self, dims: int) -> list[float]:
        return [self._around_one(self.factors)]

    def change(self, channel: torch.Tensor, values: Sequence[float]) -> torch.Tensor:
        return torch.as_tensor(ScaleIntensityFixedMean(values[0] - 1, preserve_range=True)(channel))


class RandGammad(RandChannelsd):
    """Gamma over the channel's range; its mean and deviation stay.

    Args:
        gamma: least and largest; below 1 as often as above.
        invert: whether bright and dark are exchanged before, and back after it.
        keys, prob, channel_prob: as ``RandChannelsd``.
    """

    def __init__(
        self,
        keys: KeysCollection,
        prob: float,
        gamma: Sequence[float],
        channel_prob: float = 1.0,
        *,
        invert: bool = False,
    ) -> None:
        super().__init__(keys, prob, channel_prob)
        self.gamma = least_and_largest("gamma", gamma)
        self.invert = invert

    def values(self, dims: int) -> list[float]:
        return [self._around_one(self.gamma)]

    def change(self, channel: torch.Tensor, values: Sequence[float]) -> torch.Tensor:
        return torch.as_tensor(AdjustContrast(values[0], invert_image=self.invert, retain_stats=True)(channel))


class RandLowResolutiond(RandChannelsd):
    """Nearest voxels at a fraction of the resolution, linear on the way back.

    Args:
        zoom: least and largest fraction, uniform in between.
        coarse_axis: axis that keeps its resolution.
        keys, prob, channel_prob: as ``RandChannelsd``.
    """

    def __init__(
        self,
        keys: KeysCollection,
        prob: float,
        zoom: Sequence[float],
        channel_prob: float = 1.0,
        *,
        coarse_axis: int | None = None,
    ) -> None:
        super().__init__(keys, prob, channel_prob)
        self.zoom = least_and_largest("zoom", zoom)
        self.coarse_axis = coarse_axis

    def values(self, dims: int) -> list[float]:
        return [float(self.R.uniform(self.zoom[0], self.zoom[1]))]

    def change(self, channel: torch.Tensor, values: Sequence[float]) -> torch.Tensor:
        full = channel.shape[1:]
        low = [n if axis == self.coarse_axis else max(1, round(n * values[0])) for axis, n in enumerate(full)]
        small = interpolate(channel[None], size=low, mode="nearest-exact")
        return interpolate(small, size=full, mode="trilinear" if len(full) == 3 else "bilinear")[0]
