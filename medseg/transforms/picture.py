"""Pictures (PNG, JPEG, TIFF, BMP) read with Pillow: what their pixels mean as an image, and what as label values.

An image is grey or RGB: transparency is dropped, palettes and other colour models become RGB, bit maps 0 and 1, and 16
bits stay 16 bits. A mask holds one value per pixel: the index where there is a palette, the grey value where three
equal channels are stored. Rows stay rows: nothing is transposed, and a camera's orientation tag is not applied.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor, PILReader
from monai.transforms import MapTransform
from monai.utils import TransformBackends, convert_to_tensor
from PIL import Image

from medseg.errors import DataError

__all__ = ["PictureReader", "ToRGBd", "as_image", "as_mask", "is_grey"]

_PLAIN = ("L", "RGB", "F", "I", "I;16", "I;16B", "I;16L")
_SHOWN = 4  # colours that a sentence names


def is_grey(path: str | Path) -> bool:
    """Whether a file holds a picture without colours; only its header is read."""
    with Image.open(path) as picture:
        return picture.mode not in ("RGB", "RGBA", "RGBX", "RGBa", "P", "PA", "CMYK", "YCbCr", "LAB", "HSV")


def as_image(picture: Image.Image) -> Image.Image:
    """The picture in grey (``L``, 16 or 32 bits) or RGB.

    Raises:
        DataError: several pages.
    """
    _refuse_pages(picture)
    if picture.mode in _PLAIN:
        return picture
    if picture.mode == "1":
        return Image.fromarray(np.asarray(picture).astype(np.uint8))
    return picture.convert("L" if picture.mode in ("LA", "La") else "RGB")


def as_mask(picture: Image.Image) -> Image.Image:
    """The picture with one value per pixel.

    Raises:
        DataError: several pages, or pixels of different red, green and blue.
    """
    if picture.mode in ("P", "PA"):
        _refuse_pages(picture)
        return picture if picture.mode == "P" else picture.getchannel(0)
    picture = as_image(picture)
    if picture.mode != "RGB":
        return picture
    red, green, blue = (np.asarray(picture.getchannel(i)) for i in range(3))
    if not (np.array_equal(red, green) and np.array_equal(red, blue)):
        colors = picture.getcolors(1 << 16) or []
        named = ", ".join(str(color) for _, color in sorted(colors, reverse=True)[:_SHOWN])
        raise DataError(
            f"a mask in {len(colors) if colors else 'more than 65 536'} colours"
            f"{f' ({named}' + (', …)' if len(colors) > _SHOWN else ')') if colors else ''}; "
            "one value per pixel is expected. Save it as a grey picture with one grey value per label."
        )
    return Image.fromarray(red)


def _refuse_pages(picture: Image.Image) -> None:
    pages = getattr(picture, "n_frames", 1)
    if pages > 1 and picture.format != "MPO":  # a telephone's JPEG: the further pictures are previews
        raise DataError(f"{pages} pages in one file; one picture is expected. Save each page as a file of its own.")


class PictureReader(PILReader):
    """MONAI's Pillow reader without transposition: arrays ``(rows, columns)`` or ``(rows, columns, 3)``."""

    def __init__(self, mask: bool = False) -> None:
        super().__init__(reverse_indexing=False)
        self.mask = mask

    def get_data(self, img: Image.Image) -> tuple[np.ndarray, dict]:
        # Not as PILReader's converter: what fails in read(), LoadImage tries with another reader, which transposes.
        return super().get_data(as_mask(img) if self.mask else as_image(img))


class ToRGBd(MapTransform):
    """Grey images ``(1, rows, columns)`` of 8 bits to three equal channels; RGB stays as it is.

    Raises:
        DataError: another number of channels.
    """

    backend = [TransformBackends.TORCH]

    def __init__(self, keys: KeysCollection, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        for key in self.key_iterator(result):
            image = convert_to_tensor(result[key], track_meta=True)
            if image.shape[0] not in (1, 3):
                raise DataError(f"image of {image.shape[0]} channels; grey or RGB is expected. See `medseg check`.")
            if image.shape[0] == 1:
                image = MetaTensor(torch.cat([image.as_tensor()] * 3), meta=image.meta)
            result[key] = image
        return result
