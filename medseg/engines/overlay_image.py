"""One slice of a validation case with its labels in colour, for trackers: reference on the left, prediction right."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import nibabel
import numpy as np
import torch
from PIL import Image, ImageColor

from medseg.labels.colors import label_colors

__all__ = ["overlay_image"]

_LEAST = 384  # pixels of the longer side of one panel
_OPACITY = 0.45


def overlay_image(output: Mapping[str, Any]) -> np.ndarray | None:
    """``(row, column, 3)`` uint8 of a decollated output; ``None`` where its labels are not one map.

    The slice is the axial one with most reference, in radiological convention: the patient's right is on the left.

    Args:
        output: ``image (C, *spatial)``, ``label`` and ``pred (1, *spatial)`` of label indices.
    """
    image, label, pred = (torch.as_tensor(output[key]).float().cpu().numpy() for key in ("image", "label", "pred"))
    if not len(label) == len(pred) == 1 or not image.shape[1:] == label.shape[1:] == pred.shape[1:]:
        return None
    color = image.ndim == 3 and len(image) == 3
    maps = [np.moveaxis(image, 0, -1) if color else image[0], label[0], pred[0]]
    spacing = [1.0, 1.0]
    if image.ndim == 4:
        affine = np.asarray(getattr(output["image"], "affine", np.eye(4)), dtype=float)
        turn = nibabel.orientations.io_orientation(affine)
        maps = [nibabel.orientations.apply_orientation(one, turn)[::-1, ::-1, ::-1] for one in maps]
        counts = np.count_nonzero(maps[1] > 0, axis=(0, 1))
        level = int(np.argmax(counts)) if counts.any() else maps[1].shape[2] // 2
        maps = [one[:, :, level].T for one in maps]  # rows run down, as from the patient's front to the back
        lengths = np.linalg.norm(affine[:3, :3], axis=0)[np.argsort(turn[:, 0])]
        spacing = [float(lengths[1]), float(lengths[0])]
    low, high = np.percentile(maps[0], [0.5, 99.5])
    gray = ((maps[0] - low) / max(float(high - low), 1e-6)).clip(0, 1) * 255
    gray = gray if color else np.repeat(gray[..., None], 3, axis=-1)
    extent = [number * mm for number, mm in zip(maps[1].shape, spacing, strict=True)]
    size = [max(1, round(one * _LEAST / max(extent))) for one in reversed(extent)]  # width, height
    panels = [_panel(gray, one, (size[0], size[1])) for one in maps[1:]]
    return np.concatenate(panels, axis=1)


def _panel(gray: np.ndarray, labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    indices = labels.astype(int).clip(0)
    colors = label_colors([str(number) for number in range(1, int(indices.max()) + 1)])
    table = np.array([(0, 0, 0), *(ImageColor.getrgb(one)[:3] for one in colors.values())], dtype=float)
    base = np.asarray(Image.fromarray(gray.astype(np.uint8)).resize(size, Image.Resampling.BILINEAR), dtype=float)
    large = np.asarray(Image.fromarray(indices.astype(np.int32)).resize(size, Image.Resampling.NEAREST))
    fill = np.where(large[..., None] > 0, _OPACITY, 0.0)
    blended: np.ndarray = (base * (1 - fill) + table[large] * fill).astype(np.uint8)
    return blended
