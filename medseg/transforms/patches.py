"""Patches as nnU-Net draws them: a stated share around a voxel of a label, whatever the labels' sizes, rotated and
scaled before they are cut out of a larger one.

Source: Isensee et al. 2021, and the values of nnU-Net v2 in ``bundle/recipes/nnunet.yaml``.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np
import torch
from monai import transforms as mt
from monai.config import KeysCollection
from monai.transforms import MapTransform, Randomizable, RandomizableTransform, Transform
from torch.nn.functional import pad

from medseg.errors import ConfigError
from medseg.labels import LabelSpace
from medseg.transforms.lesion_indices import LesionsToIndicesd
from medseg.transforms.limits import axes_of, count, least_and_largest, probability
from medseg.transforms.recipes import CROP_SAMPLES_PER_CLASS, DRAWN, in_plane

__all__ = ["RandForegroundCropd", "RandRotateScaled", "around_label", "patch_augmentation"]

_Balance = Literal["labels", "lesions"]
_ELONGATED = 1.5  # nnU-Net: a longer 2D patch is turned by little
_SMALLEST = 0.85  # nnU-Net: the larger patch has room for images that are shrunk to this


def around_label(cases: int, share: float) -> int:
    """How many cases of a batch have their patch around a label: a share, rounded as by nnU-Net, which makes one of two
    of a third. 0 where the batch is too small: then every so many batches have one.
    """
    return cases - round(cases * (1 - share))


class RandForegroundCropd(Randomizable, MapTransform):
    """Patches, some of them around a voxel of a label: one of the labels of the case, each as likely as any other, then
    any of its voxels; or of a lesion likewise. The others lie anywhere.

    Args:
        keys: what is cropped, (C, *spatial), at least as large as the patch.
        roi_size: size of the patch in voxels.
        share: probability of a patch around a label, where ``foreground`` does not decide.
        margin: voxels around the patch that are kept on both sides of each axis; beyond the image they are 0.
        num_samples: patches per case.
        indices_key: voxels of each label, background first, of ``ClassesToIndicesd``; or of each lesion, of
            ``LesionsToIndicesd``.

    Attributes:
        foreground: whether the next patches are around a label; a batch that guarantees its share says so
            (``medseg.data.make_loader``). ``None`` draws it.
    """

    foreground: bool | None = None

    def __init__(
        self,
        keys: KeysCollection,
        roi_size: Sequence[int],
        *,
        share: float = 0.33,
        margin: Sequence[int] = (0, 0, 0),
        num_samples: int = 1,
        indices_key: str = "label_cls_indices",
    ) -> None:
        super().__init__(keys)
        if not 0 <= share <= 1:
            raise ConfigError(f"foreground: expected a share from 0 to 1, got {share}.")
        self.roi_size = tuple(roi_size)
        self.share = share
        self.margin = tuple(margin)[: len(self.roi_size)]
        self.num_samples = count("samples_per_case", num_samples)
        self.indices_key = indices_key

    def __call__(self, data: Mapping[Hashable, Any]) -> list[dict[Hashable, Any]]:
        shape = data[self.first_key(dict(data))].shape[1:]
        starts = [self.start(shape, data[self.indices_key]) for _ in range(self.num_samples)]
        return [
            {**data, **{key: self.cut(data[key], start) for key in self.key_iterator(dict(data))}} for start in starts
        ]

    def start(self, shape: Sequence[int], indices: Sequence[Any]) -> list[int]:
        """First voxel of a patch, newly drawn."""
        room = [max(0, n - size) for n, size in zip(shape, self.roi_size, strict=True)]
        around = self.R.rand() < self.share if self.foreground is None else self.foreground
        present = [voxels for voxels in indices[1:] if len(voxels)]
        if not around or not present:
            return [int(self.R.randint(most + 1)) for most in room]
        voxels = present[self.R.randint(len(present))]
        centre = np.unravel_index(int(voxels[self.R.randint(len(voxels))]), tuple(shape))
        return [
            min(max(int(c) - size // 2, 0), most) for c, size, most in zip(centre, self.roi_size, room, strict=True)
        ]

    def cut(self, image: torch.Tensor, start: Sequence[int]) -> torch.Tensor:
        """The patch and its margin."""
        found = [slice(None)]
        missing: list[int] = []
        for first, size, margin, n in zip(start, self.roi_size, self.margin, image.shape[1:], strict=True):
            low, high = first - margin, first + size + margin
            found.append(slice(max(0, low), min(n, high)))
            missing = [max(0, -low), max(0, high - n), *missing]  # torch pads the last axis first
        cut = torch.as_tensor(image).as_subclass(torch.Tensor)[tuple(found)]
        return pad(cut, missing) if any(missing) else cut


class RandRotateScaled(RandomizableTransform, MapTransform):
    """Rotation and scaling, each with its probability, and the middle of the result; linear for the image, nearest for
    label maps, 0 beyond the border. Where neither is drawn the voxels stay as they are.

    Args:
        keys: image and label, (C, *spatial), larger than the patch by ``margin`` on each side.
        roi_size: size of the result in voxels.
        rotation: largest angle about each axis, radians, for volumes.
        rotation_in_plane: the same of 2D images, and of volumes with a ``coarse_axis``, which turn about that only.
        rotation_elongated: the same of 2D patches and slices that are more than 1.5 times as long as wide.
        scaling: least and largest factor of the field of view, one for all axes; that of a ``coarse_axis`` stays.
        rotation_prob, scaling_prob: probabilities.
        coarse_axis: axis across coarse slices.
    """

    def __init__(
        self,
        keys: KeysCollection,
        roi_size: Sequence[int],
        *,
        rotation: float,
        rotation_in_plane: float,
        rotation_elongated: float,
        scaling: Sequence[float],
        rotation_prob: float,
        scaling_prob: float,
        coarse_axis: int | None = None,
    ) -> None:
        MapTransform.__init__(self, keys)
        self.roi_size = tuple(roi_size)
        self.scaling = least_and_largest("scaling", scaling)
        self.rotation_prob = probability("rotation_prob", rotation_prob)
        self.scaling_prob = probability("scaling_prob", scaling_prob)
        RandomizableTransform.__init__(self, 1 - (1 - self.rotation_prob) * (1 - self.scaling_prob))
        dims = len(self.roi_size)
        self.coarse_axis = None if coarse_axis is None else axes_of("coarse_axis", [coarse_axis], dims)[0]
        angles = {
            "rotation": rotation,
            "rotation_in_plane": rotation_in_plane,
            "rotation_elongated": rotation_elongated,
        }
        for name, angle in angles.items():
            if not 0 <= angle < math.inf:
                raise ConfigError(f"{name}: expected an angle from 0 on, in radians, got {angle!r}.")
        plane = [n for n in self.roi_size if n > 1]
        if len(plane) == 2 and max(plane) > _ELONGATED * min(plane):
            rotation_in_plane = rotation_elongated
        if dims == 2:
            self.angles = [rotation_in_plane]
        elif coarse_axis is None:
            self.angles = [rotation] * 3
        else:
            self.angles = [rotation_in_plane if axis == coarse_axis else 0.0 for axis in range(3)]
        self.margin = [
            math.ceil(max(0.0, reach - n) / 2) for reach, n in zip(self._reach(), self.roi_size, strict=True)
        ]
        self.drawn: tuple[list[float], list[float]] | None = None

    def _reach(self) -> list[float]:
        """Size in voxels of what turns by one of the angles, shrunk, show."""
        dims = len(self.roi_size)
        reach = [float(n) for n in self.roi_size]
        for a, b in itertools.permutations(range(dims), 2):
            angle = self.angles[0] if dims == 2 else self.angles[3 - a - b]
            own, other = self.roi_size[a], self.roi_size[b]
            turned = min(angle, math.atan2(other, own))
            reach[a] = max(reach[a], own * math.cos(turned) + other * math.sin(turned))
        return [n if axis == self.coarse_axis else n / _SMALLEST for axis, n in enumerate(reach)]

    def randomize(self, data: Any = None) -> None:
        dims = len(self.roi_size)
        rotates, scales = self.R.rand() < self.rotation_prob, self.R.rand() < self.scaling_prob
        angles = [float(self.R.uniform(-a, a)) if rotates else 0.0 for a in self.angles]
        factor = float(self.R.uniform(self.scaling[0], self.scaling[1])) if scales else 1.0
        factors = [1.0 if axis == self.coarse_axis else factor for axis in range(dims)]
        self.drawn = (angles, factors) if rotates or scales else None

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        self.randomize()
        for key in self.key_iterator(result):
            if self.drawn is None:
                result[key] = self.middle(result[key])
                continue
            angles, factors = self.drawn
            affine = mt.Affine(
                rotate_params=angles if len(self.roi_size) == 3 else angles[0],
                scale_params=factors,
                spatial_size=self.roi_size,
                mode="bilinear" if key == "image" else "nearest",
                padding_mode="zeros",
                image_only=True,
            )
            result[key] = affine(result[key])
        return result

    def middle(self, image: torch.Tensor) -> torch.Tensor:
        """The patch in the middle of ``(..., *spatial)``."""
        for axis, size in enumerate(self.roi_size, image.dim() - len(self.roi_size)):
            image = image.narrow(axis, (image.shape[axis] - size) // 2, size)
        return image


def patch_augmentation(
    *,
    label_space: LabelSpace,
    spatial: RandRotateScaled,
    intensity: Sequence[Transform] = (),
    mirror_axes: Sequence[int] = (),
    foreground: float = 0.33,
    balance: _Balance = "labels",
    samples_per_case: int = 1,
    keys: Sequence[str] = ("image", "label"),
) -> list[Transform]:
    """Patches as nnU-Net draws them, rotated and scaled, changed in intensity, mirrored; plain tensors out.

    Args:
        label_space: labels whose voxels patches are drawn around.
        spatial: rotation and scaling, of the patch's size.
        intensity: random transforms of the image, in their order.
        mirror_axes: spatial axes to mirror with probability 0.5 each.
        foreground: share of the patches around a voxel of a label.
        balance: what of a case these are drawn from, each as likely as any other: its labels, or its lesions.
        samples_per_case: patches per case and iteration.
        keys: image, label, and further label maps on their grid.
    """
    if balance not in get_args(_Balance):
        raise ConfigError(f"balance: expected {' or '.join(get_args(_Balance))}, got {balance!r}. Name one of them.")
    mirrored = axes_of("mirror_axes", mirror_axes, len(spatial.roi_size))
    classes, most = len(label_space.labels) + 1, CROP_SAMPLES_PER_CLASS
    return [
        LesionsToIndicesd("label", most)
        if balance == "lesions"
        else mt.ClassesToIndicesd("label", num_classes=classes, max_samples_per_class=most),
        RandForegroundCropd(
            keys, spatial.roi_size, share=foreground, margin=spatial.margin, num_samples=samples_per_case
        ),
        spatial,
        *in_plane(intensity, spatial.roi_size),
        *(mt.RandFlipd(keys, prob=0.5, spatial_axis=axis) for axis in mirrored),
        mt.SelectItemsd([*keys, "case_id", DRAWN], allow_missing_keys=True),
        mt.EnsureTyped(keys, dtype=[torch.float32, *[torch.int16] * (len(keys) - 1)], track_meta=False),
    ]
