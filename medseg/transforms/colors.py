"""Colour spaces of photographs in OpenCV's integer arithmetic, and class masks that are painted in colours."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.utils import convert_to_tensor

from medseg.errors import DataError
from medseg.transforms.each_key import EachKey

__all__ = ["GREEN", "RED", "RGBToYCrCbd", "colors_to_labels", "rgb_to_hsv", "rgb_to_ycrcb"]

HSVBox = tuple[tuple[int, int, int], tuple[int, int, int]]  # lowest and highest (hue 0..179, saturation, value)

# The boxes with which the NeoPolyp masks, JPEG files, were turned into classes (QTSeg, arXiv 2412.17241).
RED: tuple[HSVBox, ...] = (((0, 100, 20), (10, 255, 255)), ((160, 100, 20), (179, 255, 255)))
GREEN: tuple[HSVBox, ...] = (((36, 25, 25), (70, 255, 255)),)


def rgb_to_hsv(rgb: np.ndarray) -> np.ndarray:
    """``(..., 3)`` uint8 -> hue 0..179 (two degrees each), saturation and value 0..255, uint8."""
    red, green, blue = np.moveaxis(rgb.astype(np.int64), -1, 0)
    value = np.maximum(np.maximum(red, green), blue)
    spread = value - np.minimum(np.minimum(red, green), blue)
    # OpenCV divides by tables of 12 binary digits.
    saturation_table = np.rint((255 << 12) / np.maximum(np.arange(256), 1)).astype(np.int64)
    hue_table = np.rint((180 << 12) / (6 * np.maximum(np.arange(256), 1))).astype(np.int64)
    sixth = np.where(
        value == red,
        green - blue,
        np.where(value == green, blue - red + 2 * spread, red - green + 4 * spread),
    )
    hue = (sixth * np.where(spread > 0, hue_table[spread], 0) + (1 << 11)) >> 12
    saturation = (spread * np.where(value > 0, saturation_table[value], 0) + (1 << 11)) >> 12
    return np.stack((np.where(hue < 0, hue + 180, hue), saturation, value), axis=-1).astype(np.uint8)


def rgb_to_ycrcb(rgb: torch.Tensor) -> torch.Tensor:
    """``(3, H, W)`` of 0..255 -> luma, red and blue difference, 0..255, in the same type (14 binary digits)."""
    red, green, blue = rgb.long()
    half = 1 << 13
    luma = (4899 * red + 9617 * green + 1868 * blue + half) >> 14
    differences = [
        ((channel - luma) * factor + (128 << 14) + half) >> 14 for channel, factor in ((red, 11682), (blue, 9241))
    ]
    return torch.stack((luma, *differences)).clamp_(0, 255).to(rgb.dtype)


def colors_to_labels(rgb: np.ndarray, colors: Mapping[int, Sequence[HSVBox]]) -> np.ndarray:
    """Painted mask ``(H, W, 3)`` uint8 -> label map ``(H, W)`` uint8, 0 where no colour fits.

    Args:
        rgb: the mask; compression may have blurred its colours.
        colors: label -> boxes in HSV, such as ``{1: GREEN, 2: RED}``; later labels win.

    Raises:
        DataError: not an RGB image of bytes.
    """
    if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8:
        raise DataError(
            f"A painted mask is {rgb.shape} {rgb.dtype}; expected (rows, columns, 3) uint8. Read it as RGB."
        )
    hsv = rgb_to_hsv(rgb)
    labels = np.zeros(rgb.shape[:2], dtype=np.uint8)
    for label, boxes in colors.items():
        for low, high in boxes:
            labels[((hsv >= low) & (hsv <= high)).all(axis=2)] = label
    return labels


class RGBToYCrCbd(EachKey):
    """``rgb_to_ycrcb`` of ``(3, H, W)`` images."""

    def change(self, value: Any, data: Mapping[Hashable, Any]) -> Any:
        image = convert_to_tensor(value, track_meta=True)
        if image.shape[0] != 3:
            raise DataError(f"An image has {image.shape[0]} channels, expected 3 (RGB) to change the colour space.")
        return rgb_to_ycrcb(image)
