"""Copies of images and label maps at another number of voxels and the same field of view."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import nibabel
import numpy as np
import torch
from monai.data import MetaTensor

from medseg.errors import ConfigError
from medseg.transforms.nifti import Placement, new_image
from medseg.transforms.nifti_scale import open_nifti
from medseg.transforms.reader import as_numbers
from medseg.transforms.scale import ScaleSized

__all__ = ["parse_size", "write_resized"]


def parse_size(text: str) -> tuple[int, ...]:
    """``120x120x78`` -> ``(120, 120, 78)``, in the files' order of axes.

    Raises:
        ConfigError: no three positive whole numbers.
    """
    parts = text.lower().replace("×", "x").split("x")
    if len(parts) != 3 or not all(part.isdigit() and int(part) > 0 for part in parts):
        raise ConfigError(f"size '{text}': expected three positive whole numbers, such as 120x120x78.")
    return tuple(map(int, parts))


def write_resized(source: Path, target: Path, size: Sequence[int], mode: str, *, label: bool = False) -> None:
    """Write a NIfTI file ``source`` with ``size`` voxels to ``target``.

    Args:
        size: in the file's order of axes.
        mode: ``linear`` or ``nearest`` (``ScaleSized``).
        label: the file holds label values, which stay as they are.
    """
    image = open_nifti(source)
    values = as_numbers(np.asarray(image.dataobj), mask=label)
    values = values if label else values.astype(np.float32)
    key = "label" if label else "image"
    affine = torch.as_tensor(Placement.of(image.header).affine)
    volume = MetaTensor(torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))[None], affine=affine)
    resized = ScaleSized(key, size=size, mode=mode)({key: volume})[key]
    made = resized[0].numpy().astype(values.dtype)
    nibabel.save(new_image(made, resized.affine.numpy()), target)
