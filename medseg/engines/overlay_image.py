"""One slice of a validation case with its labels in colour, for trackers: reference on the left, prediction right."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from PIL import Image

from medseg.data.case_view import view_of
from medseg.labels.colors import label_colors, rgb_of
from medseg.transforms.reader import is_2d_file

__all__ = ["overlay_image"]

_LEAST = 384  # pixels of the longer side of one panel
_OPACITY = 0.45


def overlay_image(output: Mapping[str, Any]) -> np.ndarray | None:
    """``(row, column, 3)`` uint8 of a decollated output; ``None`` where its maps do not lie on one grid.

    The slice is the axial one with most reference, turned as in reports (``medseg.data.case_view``).

    Args:
        output: ``image (C, *spatial)``; ``label`` and ``pred (1, *spatial)`` of label indices, or ``(R, *spatial)`` of
            regions.
    """
    image = MetaTensor(torch.as_tensor(output["image"]).float().cpu())
    label, pred = (torch.as_tensor(output[key]).cpu().numpy() for key in ("label", "pred"))
    if not image.shape[1:] == label.shape[1:] == pred.shape[1:] or len(label) != len(pred):
        return None
    picture = image.ndim == 3 and is_2d_file(image.meta.get("filename_or_obj", ".png"))
    view = view_of(image, _flat(pred), _flat(label), picture=picture)
    assert view.reference is not None
    shown, maps, spacing = view.image, [view.reference, view.prediction], view.spacing or (1.0, 1.0)
    if view.prediction.ndim == 3:
        counts = np.count_nonzero(maps[0] > 0, axis=(0, 1))
        level = int(np.argmax(counts)) if counts.any() else len(counts) // 2
        shown, maps = shown[:, :, level], [one[:, :, level] for one in maps]
    low, high = view.window
    gray = ((shown - low) / (high - low)).clip(0, 1) * 255
    gray = np.swapaxes(gray if gray.ndim == 3 else np.repeat(gray[..., None], 3, axis=-1), 0, 1)  # rows, columns
    extent = [number * mm for number, mm in zip(maps[0].shape, spacing, strict=False)]  # across, down
    width, height = (max(1, round(one * _LEAST / max(extent))) for one in extent)
    return np.concatenate([_panel(gray, one.T, (width, height)) for one in maps], axis=1)


def _flat(maps: np.ndarray) -> np.ndarray:
    """Label indices ``(*spatial)`` of ``(1, *spatial)``, or numbers of regions, of which a smaller one covers."""
    result: np.ndarray = maps[0].astype(int).clip(0)
    if len(maps) == 1:
        return result
    result[:] = 0
    for region in np.argsort([-np.count_nonzero(one > 0) for one in maps], kind="stable"):
        result[maps[region] > 0] = region + 1
    return result


def _panel(gray: np.ndarray, labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    colors = label_colors([str(number) for number in range(1, int(labels.max()) + 1)])
    table = np.array([(0, 0, 0), *map(rgb_of, colors.values())], dtype=float)
    base = np.asarray(Image.fromarray(gray.astype(np.uint8)).resize(size, Image.Resampling.BILINEAR), dtype=float)
    large = np.asarray(Image.fromarray(labels.astype(np.int32)).resize(size, Image.Resampling.NEAREST))
    fill = np.where(large[..., None] > 0, _OPACITY, 0.0)
    blended: np.ndarray = (base * (1 - fill) + table[large] * fill).astype(np.uint8)
    return blended
