"""Pictures of every kind that Pillow writes come as the image or the label values that a person sees in them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from monai.transforms import Compose
from PIL import Image, ImageOps

from medseg.data.files import read_grid, read_volume
from medseg.errors import DataError
from medseg.faults import unwrapped
from medseg.transforms import load, preprocessing, write_label_map
from medseg.transforms.picture import ToRGBd

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (5, 7), np.uint8)
COLOUR = RNG.integers(0, 256, (5, 7, 3), np.uint8)
VALUES = RNG.integers(0, 3, (5, 7), np.uint8)


def read(path: Path, key: str = "image") -> np.ndarray:
    with unwrapped():
        return Compose(load([key]))({key: str(path)})[key].numpy()


def palette(values: np.ndarray) -> Image.Image:
    picture = Image.fromarray(values).convert("P")
    picture.putdata(values.ravel().tolist())
    picture.putpalette([10, 20, 30, 200, 0, 0, 0, 200, 0])
    return picture


def with_alpha(picture: Image.Image) -> Image.Image:
    picture = picture.copy()
    picture.putalpha(Image.fromarray(GREY))
    return picture


IMAGES = {
    "grey.png": (Image.fromarray(GREY), GREY[None]),
    "grey.tif": (Image.fromarray(GREY), GREY[None]),
    "grey.bmp": (Image.fromarray(GREY), GREY[None]),
    "16 bit.png": (Image.fromarray(GREY.astype(np.uint16) * 257), GREY[None].astype(int) * 257),
    "16 bit.tiff": (Image.fromarray(GREY.astype(np.uint16) * 257), GREY[None].astype(int) * 257),
    "1 bit.png": (Image.fromarray(GREY > 99), GREY[None] > 99),
    "grey alpha.png": (with_alpha(Image.fromarray(GREY)), GREY[None]),
    "colour.png": (Image.fromarray(COLOUR), COLOUR.transpose(2, 0, 1)),
    "COLOUR.PNG": (Image.fromarray(COLOUR), COLOUR.transpose(2, 0, 1)),
    "alpha.png": (with_alpha(Image.fromarray(COLOUR)), COLOUR.transpose(2, 0, 1)),
    "palette.png": (
        palette(VALUES),
        np.array([[10, 20, 30], [200, 0, 0], [0, 200, 0]])[VALUES].transpose(2, 0, 1),
    ),
}


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_is_grey_or_rgb(name: str, tmp_path: Path) -> None:
    picture, expected = IMAGES[name]
    picture.save(tmp_path / name)
    np.testing.assert_array_equal(read(tmp_path / name), expected)


def test_jpeg_keeps_rows_and_columns(tmp_path: Path) -> None:
    smooth = np.add.outer(np.arange(16) * 8, np.arange(24)).astype(np.uint8)
    Image.fromarray(smooth).save(tmp_path / "a.jpg", quality=95)
    image = Compose(load(["image"]))({"image": str(tmp_path / "a.jpg")})["image"]
    np.testing.assert_allclose(image[0], smooth, atol=4)
    assert tuple(image.meta["spatial_shape"]) == smooth.shape  # what MONAI's tools take for the size of the file


MASKS = {
    "grey.png": Image.fromarray(VALUES),
    "palette.png": palette(VALUES),
    "16 bit.png": Image.fromarray(VALUES.astype(np.uint16)),
    "stored as colour.png": Image.fromarray(np.repeat(VALUES[..., None], 3, axis=-1)),
    "alpha.png": with_alpha(Image.fromarray(np.repeat(VALUES[..., None], 3, axis=-1))),
}


@pytest.mark.parametrize("name", MASKS)
def test_a_mask_has_one_value_per_pixel(name: str, tmp_path: Path) -> None:
    MASKS[name].save(tmp_path / name)
    np.testing.assert_array_equal(read(tmp_path / name, "label"), VALUES[None])


def test_a_coloured_mask_is_refused(tmp_path: Path) -> None:
    Image.fromarray(COLOUR).save(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"a mask in 35 colours \(\(.*, …\); one value per pixel is expected"):
        read(tmp_path / "a.png", "label")


def test_several_pages_are_refused(tmp_path: Path) -> None:
    pages = [Image.fromarray(GREY), Image.fromarray(255 - GREY)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(DataError, match="2 pages in one file; one image is expected"):
        read(tmp_path / "a.tif")


def test_grey_pictures_join_colour_ones(tmp_path: Path) -> None:
    Image.fromarray(GREY).save(tmp_path / "a.png")
    scheme = [{"kind": "fixed", "mean": 0, "std": 1}]
    transform = Compose(preprocessing(["image"], normalization=scheme, roi_size=(5, 7), color=True))
    image = transform({"image": str(tmp_path / "a.png")})["image"].as_tensor()
    assert torch.equal(image, torch.from_numpy(GREY).float().expand(3, -1, -1))
    with pytest.raises(DataError, match="image of 2 channels"):
        ToRGBd("image")({"image": torch.zeros(2, 4, 4)})


def test_large_pictures_are_resized_by_their_longer_side(tmp_path: Path) -> None:
    label = np.zeros((60, 100), np.uint8)
    label[12:48, 20:80] = 1
    Image.fromarray(label * 200).save(tmp_path / "a.png")
    Image.fromarray(label).save(tmp_path / "l.png")
    scheme = [{"kind": "fixed", "mean": 0, "std": 1}]
    transform = Compose(preprocessing(["image", "label"], normalization=scheme, roi_size=(8, 8), longest=50))
    data = transform({"image": str(tmp_path / "a.png"), "label": str(tmp_path / "l.png")})
    assert data["image"].shape == data["label"].shape == (1, 30, 50)
    assert data["label"].sum() == pytest.approx(36 * 60 / 4, rel=0.1)
    assert ((data["image"] > 100) == (data["label"] > 0)).float().mean() > 0.95


# ---------------------------------------------------------------------- orientation of cameras
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tif"])
def test_an_orientation_tag_is_applied_and_undone(name: str, orientation: int, tmp_path: Path) -> None:
    path, exif = tmp_path / name, Image.Exif()
    exif[0x0112] = orientation
    options = {"compression": "tiff_lzw"} if name == "a.tif" else {"quality": 100} if name == "a.jpg" else {}
    Image.fromarray(GREY).save(path, exif=exif, **options)
    with Image.open(path) as picture:
        shown = np.asarray(ImageOps.exif_transpose(picture))
    for key in ("image", "label"):
        np.testing.assert_array_equal(read(path, key)[0], shown)
    assert read_grid(path).shape == shown.shape
    assert read_volume(path).orientation == orientation
    for values in (shown, shown.astype(np.int32) * 200):
        write_label_map(values, {"orientation": orientation}, tmp_path / "out.png")
        with Image.open(tmp_path / "out.png") as written:  # the rows of the image's file, and its tag
            assert written.size == GREY.shape[::-1]
            assert written.getexif().get(0x0112, 1) == orientation
        np.testing.assert_array_equal(read(tmp_path / "out.png", "label")[0], values)


def test_a_rotated_tiff_without_compression_is_refused(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(GREY).save(tmp_path / "a.tif", exif=exif)
    with pytest.raises(DataError, match="uncompressed TIFF with orientation tag 6"):
        read(tmp_path / "a.tif")


def test_a_damaged_tag_is_no_tag(tmp_path: Path) -> None:
    Image.fromarray(GREY).save(tmp_path / "a.png", exif=b"Exif\x00\x00nonsense")
    np.testing.assert_array_equal(read(tmp_path / "a.png")[0], GREY)


# ---------------------------------------------------------------------- what people see in a mask
MASK = VALUES > 1


def greys(white: int) -> Image.Image:
    """Black and white in a palette, white at index ``white``."""
    picture = Image.fromarray(np.where(MASK, white, 1 - white).astype(np.uint8)).convert("P")
    picture.putdata(np.where(MASK, white, 1 - white).ravel().tolist())
    picture.putpalette([0, 0, 0, 255, 255, 255] if white else [255, 255, 255, 0, 0, 0])
    return picture


def transparent(mode: str, colour: int, alpha: np.ndarray) -> Image.Image:
    picture = Image.new(mode, alpha.shape[::-1], (colour,) * (len(mode) - 1) + (255,))
    picture.putalpha(Image.fromarray(alpha))
    return picture


SEEN = {
    "black first": (greys(1), MASK * 255),
    "white first": (greys(0), MASK * 255),
    "white first, alpha": (greys(0).convert("PA"), MASK * 255),
    "LA": (transparent("LA", 255, (MASK * 255).astype(np.uint8)), MASK * 255),
    "RGBA": (transparent("RGBA", 0, (MASK * 255).astype(np.uint8)), MASK * 255),
    "empty RGBA": (transparent("RGBA", 255, np.zeros(MASK.shape, np.uint8)), MASK * 0),
    "opaque": (transparent("LA", 7, np.full(MASK.shape, 255, np.uint8)), MASK * 0 + 7),
}


@pytest.mark.parametrize("name", SEEN)
def test_a_mask_is_what_people_see(name: str, tmp_path: Path) -> None:
    picture, expected = SEEN[name]
    path = tmp_path / ("a.tif" if picture.mode == "PA" else "a.png")
    picture.save(path)
    np.testing.assert_array_equal(read(path, "label")[0], expected)


def test_a_mask_of_16_bits_per_colour_is_refused(tmp_path: Path) -> None:
    # Pillow cannot write such a file: one pixel of (1, 1, 1), which it would read as 0.
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(b"\0" + struct.pack(">3H", 1, 1, 1)))
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header + pixels + chunk(b"IEND", b""))
    with pytest.raises(DataError, match="a mask of 16 bits per colour, of which 8 can be read"):
        read(tmp_path / "a.png", "label")
    assert any("16 bits per colour" in finding.message for finding in read_volume(tmp_path / "a.png").findings)
