"""2D images (PNG, JPEG, TIFF, BMP) read with Pillow: what their pixels mean as an image, and what as label values.

An image is grey or RGB: transparency is dropped, palettes and other colour models become RGB, bit maps 0 and 1, and 16
bits stay 16 bits. A mask holds one value per pixel: the grey level, also where it is stored as three equal channels, in
a palette of greys (in whatever order) or as the transparency of a single colour; the index in a palette of colours.

Rows stay rows. A camera's EXIF orientation is applied to image and mask alike, as viewers and annotation programs do,
so that a mask without the tag lies on the image as people see it. A predicted PNG has the rows of the image file *and*
its tag (``as_stored``): it lies on the image for programs that apply the tag to both files and for those that apply it
to neither, and read back here it lies on the image as well.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor, PILReader
from monai.utils import MetaKeys, convert_to_tensor
from PIL import ExifTags, Image, ImageOps

from medseg.errors import DataError
from medseg.transforms.each_key import EachKey

__all__ = [
    "PictureReader",
    "ToGreyd",
    "ToRGBd",
    "as_image",
    "as_mask",
    "as_stored",
    "has_deep_colours",
    "is_grey",
    "looks_grey",
    "orientation_of",
    "shown_size",
]

_PLAIN = ("L", "RGB", "F", "I", "I;16", "I;16B", "I;16L")
_ALPHA = ("LA", "La", "RGBA", "RGBa")
_SHOWN = 4  # colours that a sentence names
_TAIL = 1 << 16  # bytes
_ROTATED = (5, 6, 7, 8)  # EXIF orientations that exchange rows and columns
_STORED: dict[
    int, Callable[[np.ndarray], np.ndarray]
] = {  # EXIF orientation -> the rows as stored of the image as shown
    2: np.fliplr,
    3: lambda values: np.rot90(values, 2),
    4: np.flipud,
    5: np.transpose,
    6: lambda values: np.rot90(values, 1),
    7: lambda values: np.rot90(values, 2).T,
    8: lambda values: np.rot90(values, -1),
}


def is_grey(path: str | Path) -> bool:
    """Whether a file holds an image without colours; only its header is read."""
    with Image.open(path) as picture:
        return picture.mode not in ("RGB", "RGBA", "RGBX", "RGBa", "P", "PA", "CMYK", "YCbCr", "LAB", "HSV")


def looks_grey(path: str | Path) -> bool:
    """Whether an image has no colours, also where it is stored as three equal channels; then its pixels are read.

    Raises:
        OSError: Pillow cannot read the file.
    """
    if is_grey(path):
        return True
    with Image.open(path) as picture:
        red, green, blue = (channel.tobytes() for channel in picture.convert("RGB").split())
    return red == green == blue


def orientation_of(picture: Image.Image) -> int:
    """The EXIF orientation, 1 (as stored) to 8; of a TIFF it has to be asked before the pixels are read.

    A PNG is read to its end only where the tag may be there.
    """
    tagged = {"exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp"} & picture.info.keys()
    if picture.format == "PNG" and not tagged and not _ends_with_exif(picture):
        return 1
    try:
        value = picture.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # a damaged block of tags, of which Pillow raises anything: viewers show such a file as stored
        return 1
    return int(value) if value in _STORED else 1


def _ends_with_exif(picture: Image.Image) -> bool:
    file = getattr(picture, "fp", None)
    if file is None:  # not of a file, or read to its end, where Pillow takes the tag itself
        return False
    place = file.tell()
    file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL))
    found = b"eXIf" in file.read()
    file.seek(place)
    return found


def shown_size(picture: Image.Image) -> tuple[int, int]:
    """Width and height with the orientation applied, from the header."""
    tags = getattr(picture, "tag_v2", {})  # of a TIFF, whose size versions of Pillow give before or after the rotation
    width, height = (int(tags.get(tag, size)) for tag, size in zip((256, 257), picture.size, strict=True))
    return (height, width) if orientation_of(picture) in _ROTATED else (width, height)


def as_stored(values: np.ndarray, orientation: int) -> tuple[np.ndarray, dict[str, Any]]:
    """Pixels as shown ``(rows, columns)`` as a file of this orientation has them, and Pillow's options to save it."""
    if orientation not in _STORED:
        return values, {}
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    return np.ascontiguousarray(_STORED[orientation](values)), {"exif": exif}


def _upright(picture: Image.Image) -> Image.Image:
    """The image as shown: its orientation applied.

    Raises:
        DataError: several pages, or a rotated TIFF whose rows Pillow would mix up.
    """
    pages = getattr(picture, "n_frames", 1)
    if pages > 1 and picture.format != "MPO":  # a telephone's JPEG: the further pictures are previews
        raise DataError(f"{pages} pages in one file; one image is expected. Save each page as a file of its own.")
    orientation = orientation_of(picture)
    if orientation == 1:
        return picture
    if picture.format == "TIFF" and orientation in _ROTATED and any(tile[0] == "raw" for tile in _tiles(picture)):
        raise DataError(
            f"an uncompressed TIFF with orientation tag {orientation}, which Pillow cannot rotate; a PNG or a TIFF "
            "without the tag is expected. Save it as PNG."
        )
    return ImageOps.exif_transpose(picture)


def _tiles(picture: Image.Image) -> Sequence[Any]:
    """How the pixels of an opened file will be decoded; nothing once they are read."""
    return getattr(picture, "tile", ())


def has_deep_colours(picture: Image.Image) -> bool:
    """Whether an opened file holds 16 bits per colour, of which Pillow reads the upper 8."""
    return picture.mode in ("RGB", *_ALPHA) and any("16" in str(tile[3]) for tile in _tiles(picture))


def as_image(picture: Image.Image) -> Image.Image:
    """The image as shown in grey (``L``, 16 or 32 bits) or RGB.

    Raises:
        DataError: several pages, or a rotated TIFF without compression.
    """
    picture = _upright(picture)
    if picture.mode in _PLAIN:
        return picture
    if picture.mode == "1":
        return Image.fromarray(np.asarray(picture).astype(np.uint8))
    return picture.convert("L" if picture.mode in ("LA", "La") else "RGB")


def as_mask(picture: Image.Image) -> Image.Image:
    """The image as shown with one value per pixel.

    Raises:
        DataError: as ``as_image``, pixels of different red, green and blue, or 16 bits per colour.
    """
    if has_deep_colours(picture):
        raise DataError(
            "a mask of 16 bits per colour, of which 8 can be read; one value per pixel is expected. "
            "Save it as a grey image of 8 or 16 bits with one grey value per label."
        )
    picture = _upright(picture)
    if picture.mode in ("P", "PA"):
        palette = np.reshape(picture.getpalette() or [], (-1, 3))
        if (palette != palette[:, :1]).any():
            return picture if picture.mode == "P" else picture.getchannel(0)
        picture = picture.convert("RGBA" if picture.mode == "PA" or "transparency" in picture.info else "L")
    if picture.mode in _ALPHA:
        *colours, alpha = picture.split()
        extremes = [colour.getextrema() for colour in colours]
        if all(low == high for low, high in extremes) and alpha.getextrema() != (255, 255):
            return alpha  # one colour throughout: what people see is its transparency
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
            "one value per pixel is expected. Save it as a grey image with one grey value per label, or name the "
            "colours with `medseg datalist --palette`."
        )
    return Image.fromarray(red)


class PictureReader(PILReader):
    """MONAI's Pillow reader without transposition: arrays ``(rows, columns)`` or ``(rows, columns, 3)`` as shown.

    The metadata hold the file's EXIF ``orientation``, which is applied, and ``spatial_shape`` as the array has it.
    """

    def __init__(self, *, mask: bool = False) -> None:
        super().__init__(reverse_indexing=False)
        self.mask = mask

    def get_data(self, img: Image.Image) -> tuple[np.ndarray, dict[Any, Any]]:
        # Not as PILReader's converter: what fails in read(), LoadImage tries with another reader, which transposes.
        orientation = orientation_of(img)
        array, meta = super().get_data(as_mask(img) if self.mask else as_image(img))
        return array, meta | {MetaKeys.SPATIAL_SHAPE: np.array(array.shape[:2]), "orientation": orientation}


class ToRGBd(EachKey):
    """Grey images ``(1, rows, columns)`` of 8 bits to three equal channels; RGB stays as it is.

    Raises:
        DataError: another number of channels.
    """

    def change(self, value: Any, data: Mapping[Hashable, Any]) -> Any:
        image = convert_to_tensor(value, track_meta=True)
        if image.shape[0] not in (1, 3):
            raise DataError(f"image of {image.shape[0]} channels; grey or RGB is expected. See `medseg check`.")
        return image if image.shape[0] == 3 else MetaTensor(torch.cat([image.as_tensor()] * 3), meta=image.meta)


class ToGreyd(EachKey):
    """2D images that are stored as three equal channels to the one that they are; others stay as they are."""

    def change(self, value: Any, data: Mapping[Hashable, Any]) -> Any:
        image = convert_to_tensor(value, track_meta=True)
        return image[:1] if len(image) == 3 and bool((image == image[:1]).all()) else image
