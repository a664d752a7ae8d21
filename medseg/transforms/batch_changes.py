"""Changes of the voxels of a batch with values of its own for each patch or channel, without a wait for the device.

The formulas are those of MONAI's transforms of single cases, of which ``medseg.transforms.delayed`` takes the values.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

__all__ = [
    "affine_grid",
    "at_low_resolution",
    "blurred",
    "over",
    "resampled",
    "with_contrast",
    "with_gamma",
    "with_noise",
]


def over(values: Tensor, image: Tensor) -> Tensor:
    """Values ``(B, C)`` such that they apply to ``(B, C, *spatial)``."""
    return values.view(*values.shape, *[1] * (image.dim() - 2))


# ---------------------------------------------------------------------- places
def affine_grid(matrix: Tensor, source: Sequence[int], size: Sequence[int]) -> Tensor:
    """Where each voxel of the result lies in the source, as ``grid_sample`` takes it.

    Args:
        matrix: ``(B, dims, dims + 1)``, from the result to the source, in voxels from the middle of each.
        source, size: sizes in voxels.
    """
    dims = len(size)
    places = [
        (torch.arange(n, device=matrix.device) - (n - 1) / 2).view(-1, *[1] * (dims - 1 - axis))
        for axis, n in enumerate(size)
    ]
    entries = matrix.view(*matrix.shape, *[1] * dims)
    rows = [
        sum((entries[:, row, axis] * places[axis] for axis in range(dims)), entries[:, row, dims]) * (2 / max(2, n))
        for row, n in enumerate(source)
    ]
    return torch.stack(rows[::-1], -1)  # x, the last axis, first


def resampled(image: Tensor, grid: Tensor, mode: str, padding_mode: str) -> Tensor:
    """``(B, C, *spatial)`` at the places of a grid, in its own dtype."""
    found = grid_sample(image.to(grid.dtype), grid, mode=mode, padding_mode=padding_mode, align_corners=False)
    return found.to(image.dtype)


# ---------------------------------------------------------------------- intensities
def with_noise(
    image: Tensor, mean: Tensor, std: Tensor, seeds: Sequence[int | None], *, common: bool = False
) -> Tensor:
    """Gaussian noise of each patch's mean and deviation ``(B,)`` from its seed, of its own or ``common`` to all
    channels; a patch without one stays.
    """
    noise = torch.zeros_like(image[:, :1] if common else image)
    for patch, seed in zip(noise, seeds, strict=True):
        if seed is not None:
            patch.normal_(generator=torch.Generator(image.device).manual_seed(seed))
    return image + over(mean[:, None], image) + over(std[:, None], image) * noise


def blurred(image: Tensor, sigma: Tensor, widest: float) -> Tensor:
    """Gaussian blur; beyond the border lies the image's mirror image.

    Args:
        image: ``(B, C, *spatial)``.
        sigma: ``(B, C or 1, dims)`` in voxels; 0 changes nothing.
        widest: its largest value.
    """
    reach = int(max(4 * widest, 0.5) + 0.5)
    offsets = torch.arange(-reach, reach + 1, device=image.device)
    for axis in (axis for axis in range(sigma.shape[-1]) if image.shape[axis + 2] > 1):  # not across a slice
        own = sigma[..., axis, None]
        edge = 0.70710678 / own
        weights = (0.5 * ((edge * (offsets + 0.5)).erf() - (edge * (offsets - 0.5)).erf())).clamp(min=0)
        weights = weights * (offsets.abs() <= ((4 * own).clamp(min=0.5) + 0.5).floor())
        weights = weights / weights.sum(-1, keepdim=True)
        n = image.shape[axis + 2]
        places = torch.arange(-reach, n + reach, device=image.device) % (2 * n - 2)
        padded = image.index_select(axis + 2, torch.minimum(places, 2 * n - 2 - places))
        parts = (over(weights[..., k], image) * padded.narrow(axis + 2, k, n) for k in range(len(offsets)))
        image = sum(parts, torch.zeros_like(image))
    return image


def with_contrast(image: Tensor, factor: Tensor) -> Tensor:
    """Distance from each channel's mean times a factor ``(B, C)``, cut at the channel's range; 0 changes nothing."""
    spatial = tuple(range(2, image.dim()))
    mean = image.mean(spatial, keepdim=True)
    changed = (image - mean) * over(factor, image) + mean
    changed = changed.clamp(image.amin(spatial, keepdim=True), image.amax(spatial, keepdim=True))
    return torch.where(over(factor, image) > 0, changed, image)


def with_gamma(image: Tensor, gamma: Tensor, *, invert: bool) -> Tensor:
    """Gamma ``(B, C)`` over each channel's range; its mean and deviation stay; 0 changes nothing."""
    spatial = tuple(range(2, image.dim()))
    given = -image if invert else image
    low, high = given.amin(spatial, keepdim=True), given.amax(spatial, keepdim=True)
    deviation, mean = torch.std_mean(given, spatial, keepdim=True)
    changed = ((given - low) / (high - low + 1e-7)) ** over(gamma, image) * (high - low) + low
    changed = changed - changed.mean(spatial, keepdim=True)
    changed = deviation * (changed / (changed.std(spatial, keepdim=True) + 1e-8)) + mean
    return torch.where(over(gamma, image) > 0, -changed if invert else changed, image)


def at_low_resolution(image: Tensor, zoom: Tensor, coarse_axis: int | None) -> Tensor:
    """Nearest voxels at a fraction ``(B, C)`` of the resolution, linear on the way back; 0 changes nothing."""
    for axis, n in enumerate(image.shape[2:]):
        if axis == coarse_axis:
            continue
        low = torch.where(zoom > 0, (zoom * n).round().clamp(min=1), n)[..., None]
        place = ((torch.arange(n, device=image.device) + 0.5) * (low / n) - 0.5).clamp(min=0)
        before = place.floor()
        shape = (*zoom.shape, *[n if other == axis else 1 for other in range(image.dim() - 2)])
        ends = [
            image.take_along_dim((((end + 0.5) * (n / low)).floor().clamp(max=n - 1)).long().view(shape), axis + 2)
            for end in (before, torch.minimum(before + 1, low - 1))
        ]
        image = torch.lerp(ends[0], ends[1], (place - before).view(shape))
    return image
