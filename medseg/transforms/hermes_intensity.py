"""Intensity augmentation of the Hermes recipe (arXiv 2306.02416): six independent changes of a normalised image."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.networks.layers import separable_filtering
from monai.transforms import RandomizableTransform
from torch import Tensor

from medseg.transforms.each_key import EachKey

__all__ = ["RandHermesIntensityd", "adjust_contrast", "adjust_gamma", "blur"]


def adjust_gamma(image: Tensor, gamma: float) -> Tensor:
    """The range [min, max] bent by a power, then shifted and scaled to the old mean and standard deviation.

    A constant image stays as it is.
    """
    low, high = image.min(), image.max()
    if low == high:
        return image
    bent = ((image - low) / (high - low)) ** gamma
    return (bent - bent.mean()) / bent.std() * image.std() + image.mean()


def adjust_contrast(image: Tensor, factor: float) -> Tensor:
    """Distances to the mean times ``factor``, kept within the old minimum and maximum."""
    mean = image.mean()
    return ((image - mean) * factor + mean).clamp(image.min(), image.max())


def blur(image: Tensor, sigma: float) -> Tensor:
    """Gaussian filter of ``(C, *spatial)``, sigma in voxels, cut at 3 sigma, with zeros outside the image."""
    reach = math.ceil(3 * sigma)
    places = torch.arange(-reach, reach + 1, dtype=image.dtype, device=image.device)
    kernel = torch.exp(-places.square() / (2 * sigma**2))
    return separable_filtering(image[None], [kernel / kernel.sum()] * (image.dim() - 1), mode="zeros")[0]


class RandHermesIntensityd(RandomizableTransform, EachKey):
    """In this order, each with its own chance: brightness (times 0.7 to 1.3), shift (normal, deviation 0.1), gamma (0.7
    to 1.5), contrast (0.7 to 1.3), blur (sigma 0.5 to 1 voxel), noise (deviation up to 0.1).

    Args:
        keys: normalised images ``(C, *spatial)``.
        prob: chance of each change (published: 0.1 for CT and PET, 0.2 for most MR).
        prob_of: data set name -> chance, for those that differ.
    """

    def __init__(
        self,
        keys: KeysCollection,
        prob: float = 0.1,
        prob_of: Mapping[str, float] | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        EachKey.__init__(self, keys, allow_missing_keys)
        RandomizableTransform.__init__(self, 1.0)
        self.chance = prob
        self.chances = dict(prob_of or {})

    def change(self, value: Tensor, data: Mapping[Hashable, Any]) -> Tensor:
        image, r = value, self.R
        chance = self.chances.get(str(data.get("dataset", "")), self.chance)
        if r.random() < chance:
            image = image * r.uniform(0.7, 1.3)
        if r.random() < chance:
            image = image + r.normal(0.0, 0.1)
        if r.random() < chance:
            image = adjust_gamma(image, r.uniform(0.7, 1.5))
        if r.random() < chance:
            image = adjust_contrast(image, r.uniform(0.7, 1.3))
        if r.random() < chance:
            image = blur(image, r.uniform(0.5, 1.0))
        if r.random() < chance:
            noise = r.normal(0.0, r.uniform(0.0, 0.1), size=tuple(image.shape))
            image = image + torch.from_numpy(noise).to(image)
        return image
