"""The transforms that may be delayed, each with its form for batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from monai import transforms as mt
from monai.transforms import RandomizableTransform, Transform
from monai.transforms.spatial.array import AffineGrid
from torch import Tensor

from medseg.transforms import batch_changes as batch
from medseg.transforms.channel_changes import (
    RandBlurd,
    RandChannelsd,
    RandCommonNoised,
    RandContrastd,
    RandGammad,
    RandLowResolutiond,
)
from medseg.transforms.delayed import Delayed
from medseg.transforms.patches import RandRotateScaled

__all__ = ["delayed"]

_BOTH = ("image", "label")
_LEAVES_VOXELS = (mt.SelectItemsd, mt.EnsureTyped)


def delayed(steps: Sequence[Transform]) -> list[Transform]:
    """An augmentation whose last steps, as far as they have a form for batches, only draw their numbers."""
    forms = [_form_of(step) for step in steps]
    fixed = (n for n, step in enumerate(steps) if forms[n] is None and not isinstance(step, _LEAVES_VOXELS))
    first = max(fixed, default=-1) + 1
    now = [step for n, step in enumerate(steps) if n < first or forms[n] is None]
    return now + [form for n, form in enumerate(forms) if n >= first and form is not None]


def _changed(values: Tensor, image: Tensor) -> Tensor:
    """Which cases are changed, such that it applies to a batch."""
    return batch.over(values[:, :1], image) > 0


# ---------------------------------------------------------------------- places
class _Affine(Delayed):
    """Image and label at the places of a matrix."""

    keys = _BOTH
    step: mt.RandAffined

    def count(self, channels: int, dims: int) -> int:
        return dims * (dims + 1)

    def draw(self, channels: int, dims: int) -> Sequence[float] | None:
        self.step.rand_affine.randomize()  # as often as the transform itself
        grid = self.step.rand_affine.rand_affine_grid
        grid((1,) * dims, lazy=True)
        matrix = grid.get_transformation_matrix()
        return None if matrix is None else matrix[:dims].flatten().tolist()

    def change(self, image: Tensor, label: Tensor, values: Tensor, drawn: Tensor) -> tuple[Tensor, Tensor]:
        kept, dims, changed = self.keep(image, label), image.dim() - 2, _changed(values, image)
        matrix = values[:, 1:].view(-1, dims, dims + 1)
        grid = batch.affine_grid(matrix, image.shape[2:], kept[0].shape[2:])
        how = zip((image, label), kept, self.modes(), strict=True)
        image, label = (torch.where(changed, batch.resampled(given, grid, *modes), same) for given, same, modes in how)
        return image, label

    def modes(self) -> list[tuple[str, str]]:
        """Interpolation and padding, of the image and of the label."""
        return list(zip(self.step.mode, self.step.padding_mode, strict=True))


class _RotateScale(_Affine):
    step: RandRotateScaled  # type: ignore[assignment]

    def draw(self, channels: int, dims: int) -> Sequence[float] | None:
        if self.step.drawn is None:
            return None
        angles, factors = self.step.drawn
        _, matrix = AffineGrid(rotate_params=angles if dims == 3 else angles[0], scale_params=factors, lazy=True)(
            (1,) * dims
        )
        return matrix[:dims].flatten().tolist()

    def keep(self, image: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        return self.step.middle(image), self.step.middle(label)

    def modes(self) -> list[tuple[str, str]]:
        return [("bilinear", "zeros"), ("nearest", "zeros")]


class _Flip(Delayed):
    keys = _BOTH
    step: mt.RandFlipd

    def count(self, channels: int, dims: int) -> int:
        return 0

    def draw(self, channels: int, dims: int) -> Sequence[float] | None:
        return ()

    def change(self, image: Tensor, label: Tensor, values: Tensor, drawn: Tensor) -> tuple[Tensor, Tensor]:
        axis = self.step.flipper.spatial_axis
        axes = range(image.dim() - 2) if axis is None else np.atleast_1d(axis).tolist()
        dims = [n + 2 if n >= 0 else n for n in axes]
        image, label = (torch.where(_changed(values, x), x.flip(dims), x) for x in (image, label))
        return image, label


# ---------------------------------------------------------------------- intensities
class _Scale(Delayed):
    step: mt.RandScaleIntensityd

    def count(self, channels: int, dims: int) -> int:
        return channels

    def draw(self, channels: int, dims: int) -> Sequence[float] | None:
        self.step.scaler.randomize(torch.empty(channels))
        return [*np.broadcast_to(self.step.scaler.factor, channels)]

    def change(self, image: Tensor, label: Tensor, values: Tensor, drawn: Tensor) -> tuple[Tensor, Tensor]:
        return image * (1 + batch.over(values[:, 1:], image)), label


class _Shift(_Scale):
    step: mt.RandShiftIntensityd  # type: ignore[assignment]

    def draw(self, channels: int, dims: int) -> Sequence[float] | None:
        self.step.shifter.randomize(torch.empty(channels))
        return [*np.broadcast_to(self.step.shifter._offset, channels)]

    def change(self, image: Tensor, label: Tensor, values: Tensor, drawn: Tensor) -> tuple[Tensor, Tensor]:
        return image + batch.over(values[:, 1:], image), label


class _Noise(Delayed):
    step: mt.RandGaussianNoised

    def count(self, channels: int, dims: int) -> int:
        return 3

    def draw(self, channels: int, dims: int) -> Sequence[float] | None:
        noise = self.step.rand_gaussian_noise
        RandomizableTransform.randomize(noise, None)  # as the transform does: this number is the step's
        deviation = noise.R.uniform(0, noise.std) if noise.sample_std else noise.std
        return [noise.mean, deviation, noise.R.randint(2**24)]  # which float32 holds exactly

    def change(self, image: Tensor, label: Tensor, values: Tensor, drawn: Tensor) -> tuple[Tensor, Tensor]:
        seeds = [int(seed) if changed else None for changed, _, _, seed in drawn.tolist()]
        common = isinstance(self.step, RandCommonNoised)
        return batch.with_noise(image, values[:, 1], values[:, 2], seeds, common=common), label


class _Channels(Delayed):
    """Values of each channel of its own, 0 where it stays."""

    step: RandChannelsd

    def count(self, channels: int, dims: int) -> int:
        return channels * (dims if isinstance(self.step, RandBlurd) else 1)

    def draw(self, channels: int, dims: int) -> Sequence[float] | None:
        stays = [0.0] * self.count(1, dims)
        return [number for values in self.step.draw(channels, dims) for number in values or stays]

    def change(self, image: Tensor, label: Tensor, values: Tensor, drawn: Tensor) -> tuple[Tensor, Tensor]:
        step, own = self.step, values[:, 1:]
        if isinstance(step, RandBlurd):
            return batch.blurred(image, own.reshape(*image.shape[:2], -1), max(step.sigma)), label
        if isinstance(step, RandContrastd):
            return batch.with_contrast(image, own), label
        if isinstance(step, RandGammad):
            return batch.with_gamma(image, own, invert=step.invert), label
        assert isinstance(step, RandLowResolutiond)
        return batch.at_low_resolution(image, own, step.coarse_axis), label


_FORMS: dict[type, type[Delayed]] = {
    mt.RandAffined: _Affine,
    mt.RandFlipd: _Flip,
    mt.RandGaussianNoised: _Noise,
    RandCommonNoised: _Noise,
    mt.RandScaleIntensityd: _Scale,
    mt.RandShiftIntensityd: _Shift,
    RandRotateScaled: _RotateScale,
    **dict.fromkeys((RandBlurd, RandContrastd, RandGammad, RandLowResolutiond), _Channels),
}


def _form_of(step: Any) -> Delayed | None:
    form = _FORMS.get(type(step))
    return form(step) if form is not None and tuple(step.keys) == form.keys else None
