"""Read one image file as training does, and say in a sentence why a file cannot be read."""

from __future__ import annotations

import gzip
import math
import os
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import SimpleITK
from PIL import Image

from medseg.data.findings import Finding
from medseg.errors import DataError
from medseg.transforms.nifti import Placement
from medseg.transforms.nifti_scale import ignored_scale, image_class, open_nifti
from medseg.transforms.picture import has_deep_colours, orientation_of, shown_size
from medseg.transforms.reader import IMAGE_SUFFIXES, VolumeReader, as_numbers, is_2d_file, itk_affine

__all__ = ["Unreadable", "Volume", "is_there", "read_grid", "read_volume"]

_MAGIC: dict[str, tuple[bytes, ...]] = {
    ".gz": (b"\x1f\x8b",),
    ".nii": (
        b"\x5c\x01\x00\x00",
        b"\x00\x00\x01\x5c",
        b"\x1c\x02\x00\x00",
        b"\x00\x00\x02\x1c",
    ),  # header size 348, 540
    ".nrrd": (b"NRRD",),
    ".png": (b"\x89PNG",),
    ".bmp": (b"BM",),
    ".jpg": (b"\xff\xd8",),
    ".jpeg": (b"\xff\xd8",),
    ".tif": (b"II", b"MM"),
    ".tiff": (b"II", b"MM"),
}
_BLOCK = 1 << 20
_NIFTI = (".nii", ".nii.gz")
_INFLATION = 1032  # the most that deflate makes of a byte


class Unreadable(Exception):
    """A file that cannot be used: ``args`` are the message and the remedy."""


@dataclass
class Volume:
    """One image file.

    Attributes:
        channels: arrays ``(*spatial)`` in the file's own voxel type, in memory order where possible (no copies).
        affine: index -> RAS mm, 4 x 4, as training sees it; the identity for photographs.
        header_spacing: what the file says, in its own unit, before nibabel corrects it.
        photo: a format without physical size (PNG, JPEG, TIFF, BMP), where colours come as channels.
        placement: NIfTI: what the affine is from.
        orientation: EXIF orientation of a 2D image, 1 to 8, which is applied already.
        stored_type: of a voxel in the file, before its scale factor.
        findings: what the file says that is not used.
        notes: what is done with its values.
    """

    channels: list[np.ndarray]
    affine: np.ndarray
    header_spacing: tuple[float, ...]
    photo: bool
    placement: Placement | None = None
    orientation: int = 1
    stored_type: np.dtype = field(default_factory=lambda: np.dtype(np.uint8))
    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def shape(self) -> tuple[int, ...]:
        """Spatial shape in voxels."""
        return self.channels[0].shape


def read_volume(path: str | Path, shown: str | None = None, *, mask: bool = False) -> Volume:
    """Read a file; compressed files are verified to the end.

    Args:
        path: the file.
        shown: what a sentence calls it.
        mask: the file is a label map, whose values come as whole numbers (``whole_values``).

    Raises:
        Unreadable: missing, empty, cut short, damaged, of another format, not readable, or without plain voxels.
    """
    path, shown = Path(path), shown or str(path)
    _check_file(path, shown)
    try:
        _check_promise(path, shown)
        volume = (
            _read_nifti(path, shown) if path.name.lower().endswith((".nii", ".nii.gz")) else _read_other(path, mask)
        )
        stored = volume.channels
        volume.channels = [as_numbers(channel, mask=mask) for channel in stored]
    except Unreadable:
        raise
    except Exception as error:  # readers raise anything; the sentence names the file
        raise _unreadable(path, shown, error) from error
    kind = stored[0].dtype
    if kind.names or kind.kind not in "biuf":
        what = "RGB (several components per voxel)" if kind.names else f"of voxel type {kind}"
        raise Unreadable(f"{shown} is {what}; plain numbers are expected", "Export it with one number per voxel.")
    if 0 in volume.shape:
        raise Unreadable(f"{shown} has shape {_by(volume.shape)}: no voxels", "Export the file again.")
    volume.notes += _notes(stored, volume, mask)
    return volume


def _notes(stored: Sequence[np.ndarray], volume: Volume, mask: bool) -> Iterator[str]:
    if mask and stored[0].dtype.kind == "f" and not all(map(np.array_equal, stored, volume.channels)):
        yield "label values within 0.01 of a whole number are rounded to it (scale factor or floating point)"
    elif not mask and volume.stored_type.itemsize > 4:
        yield f"voxels of type {volume.stored_type} are taken as float32"


def read_grid(path: str | Path, shown: str | None = None) -> Volume:
    """Shape and place of a file from its header alone: one channel of zeros that take no memory.

    Raises:
        Unreadable: missing, empty, of another format, or a header that cannot be read.
    """
    path, shown = Path(path), shown or str(path)
    _check_file(path, shown)
    try:
        shape, affine, orientation = _header(path)
    except Exception as error:  # readers raise anything; the sentence names the file
        raise _unreadable(path, shown, error) from error
    spacing = tuple(float(s) for s in np.linalg.norm(affine[:3, :3], axis=0)[: len(shape)])
    empty = np.broadcast_to(np.uint8(0), shape)
    return Volume([empty], affine, spacing, is_2d_file(path), orientation=orientation)


def _header(path: Path) -> tuple[tuple[int, ...], np.ndarray, int]:
    """Spatial shape, affine and the orientation of a 2D image."""
    if is_2d_file(path):
        with Image.open(path) as picture:
            return shown_size(picture)[::-1], np.eye(4), orientation_of(picture)
    if path.name.lower().endswith((".nii", ".nii.gz")):
        image: Any = open_nifti(path)
        return tuple(int(n) for n in image.shape[:3]), Placement.of(image.header).affine, 1
    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    return tuple(reader.GetSize()[:3]), itk_affine(reader), 1


def _check_promise(path: Path, shown: str) -> None:
    """Refuse a header that promises more voxels than the file can hold or the machine has memory for, before anyone
    allocates them.
    """
    if is_2d_file(path):
        return  # Pillow has a limit of its own
    if path.name.lower().endswith(_NIFTI):
        with _open(path) as stream:
            head = stream.read(540)
        cls: Any = nibabel.Nifti2Header if 540 in (int.from_bytes(head[:4], e) for e in ("little", "big")) else None
        cls = cls or nibabel.Nifti1Header
        if len(head) < cls.sizeof_hdr or head[:4] not in _MAGIC[".nii"]:
            return  # the reader says how it is damaged
        header = cls(head[: cls.sizeof_hdr], check=False)
        promised = math.prod(int(n) for n in header.get_data_shape()) * max(1, int(header["bitpix"]) // 8)
    else:
        reader = SimpleITK.ImageFileReader()
        reader.SetFileName(str(path))
        reader.ReadImageInformation()
        promised = math.prod(reader.GetSize()) * max(1, reader.GetNumberOfComponents())  # of a byte or more each
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    held = path.stat().st_size * _INFLATION
    if path.suffix.lower() not in (".mhd", ".nrrd") and promised > held:  # those may have their data in other files
        raise Unreadable(
            f"{shown} is cut short or damaged: the header promises {promised} bytes of voxels, of which a file of "
            f"{path.stat().st_size} bytes cannot hold more than {held}",
            "Copy or export the file again.",
        )
    if promised > memory:
        raise Unreadable(
            f"{shown} promises {promised >> 30} GiB of voxels, this machine has {memory >> 30} GiB of memory",
            "Crop or resample the image, or export it again if that is not its size.",
        )


def is_there(path: str | Path) -> bool:
    """Whether a file or folder exists; of a name that no file can have, no."""
    try:
        return Path(path).exists()
    except (OSError, ValueError):
        return False


def _check_file(path: Path, shown: str) -> None:
    if not path.name.lower().endswith(IMAGE_SUFFIXES):
        suffix = "".join(path.suffixes[-2:]) if path.suffix == ".gz" else path.suffix
        raise Unreadable(
            f"Cannot read '{suffix}' ({shown}). Known: {' '.join(IMAGE_SUFFIXES)}",
            "Convert the file to one of them, for example with SimpleITK.",
        )
    if not is_there(path):
        raise Unreadable(f"{shown} not found", "Fix the path in the datalist, or name the images' folder: --data_dir.")
    if path.is_dir():
        raise Unreadable(f"{shown} is a folder; an image file is expected", "Name the file in the datalist.")
    if not os.access(path, os.R_OK):
        raise _no_permission(shown)
    if path.stat().st_size == 0:
        raise Unreadable(f"{shown} is empty (0 bytes)", "Copy the file again.")
    suffix = path.suffix.lower()
    with path.open("rb") as file:
        head = file.read(256)
    known = _MAGIC.get(suffix)
    sound = head.startswith(known) if known else b"=" in head  # MetaImage begins with "key = value" lines
    if not sound:
        name = {".gz": "gzip", ".nii": "NIfTI"}.get(suffix, suffix[1:])
        hint = "Give it the name of its format, or export it again."
        if suffix == ".gz" and head.startswith(_MAGIC[".nii"]):
            hint = "It is an uncompressed NIfTI file: rename it to .nii."
        raise Unreadable(f"{shown} is not a {name} file (starts with {head[:4]!r})", hint)


def _no_permission(shown: str) -> Unreadable:
    return Unreadable(f"no read permission for {shown}", "Change the file's permissions (chmod +r).")


# ---------------------------------------------------------------------- NIfTI
def _read_nifti(path: Path, shown: str) -> Volume:
    with _open(path) as stream:
        head = stream.read(4)
        if head not in _MAGIC[".nii"]:
            raise Unreadable(
                f"{shown} is not a NIfTI file (its data start with {head!r})", "Export it as .nii.gz again."
            )
        stream.seek(0)
        cls = image_class(head)
        raw = cls.header_class.from_fileobj(stream, check=False)  # the check would correct a spacing of 0
        stream.seek(0)
        placement = Placement.of(cls.header_class.from_fileobj(stream))  # before nibabel fails with less of a sentence
        stream.seek(0)
        image = cls.from_stream(stream)
        array = np.asanyarray(image.dataobj)
        while stream.read(_BLOCK):  # only the end of a gzip file tells whether its data are whole
            pass
    dims = min(array.ndim, 3)
    if array.ndim > 4 or dims < 2:
        raise Unreadable(
            f"{shown} has shape {_by(array.shape)}; 2 or 3 spatial axes and at most one of channels are expected",
            "Split the file into one per channel.",
        )
    channels = [array] if array.ndim < 4 else [array[..., i] for i in range(array.shape[3])]
    spacing = tuple(float(s) for s in raw["pixdim"][1 : dims + 1])
    volume = Volume(channels, placement.affine, spacing, False, placement, stored_type=image.get_data_dtype())
    if ignored := ignored_scale(raw):
        remedy = "The stored values are taken as they are: check that they are the intended ones."
        volume.findings.append(Finding(f"{shown}: {ignored}", remedy, warning=True))
    return volume


def _open(path: Path) -> Any:
    return gzip.open(path, "rb") if path.suffix.lower() == ".gz" else path.open("rb")


# ---------------------------------------------------------------------- everything else
def _read_other(path: Path, mask: bool) -> Volume:
    photo = is_2d_file(path)
    reader = VolumeReader(mask=mask and photo)
    array, meta = reader.get_data(reader.read(str(path)))
    channel_dim = meta.get("original_channel_dim", float("nan"))
    channels = [array] if np.isnan(channel_dim) else list(np.moveaxis(array, int(channel_dim), 0))
    affine = np.eye(4) if photo else np.asarray(meta["affine"], dtype=float)
    spacing = tuple(float(s) for s in np.linalg.norm(affine[:3, :3], axis=0)[: channels[0].ndim])
    orientation = int(meta.get("orientation", 1))
    volume = Volume(channels, affine, spacing, photo, orientation=orientation, stored_type=array.dtype)
    if photo:
        with Image.open(path) as picture:
            if has_deep_colours(picture):
                volume.findings.append(
                    Finding("16 bits per colour, of which the upper 8 are read", "Save it with 8 bits.", warning=True)
                )
    return volume


# ---------------------------------------------------------------------- damage
def _unreadable(path: Path, shown: str, error: Exception) -> Unreadable:
    if isinstance(error, DataError) and isinstance(error.__cause__, Exception):  # of the library that reads the format
        error = error.__cause__
    if isinstance(error, DataError):
        message, _, remedy = str(error).partition(". ")
        return Unreadable(f"{shown}: {message}", remedy)
    if isinstance(error, PermissionError):
        return _no_permission(shown)
    return Unreadable(*_damage(path, shown, error))


def _damage(path: Path, shown: str, error: Exception) -> tuple[str, str]:
    found, expected = _bytes(path)
    if expected is not None and found < expected:
        return (
            f"{shown} is cut short or damaged: the {'compressed ' if path.suffix == '.gz' else ''}data end after "
            f"{found} of {expected} bytes",
            "Copy the file again.",
        )
    if isinstance(error, (EOFError, zlib.error, gzip.BadGzipFile)) or "truncated" in str(error):
        return f"{shown} is cut short or damaged: {_reason(error)}", "Copy the file again."
    return f"{shown} cannot be read: {_reason(error)}", "Copy or export the file again."


def _bytes(path: Path) -> tuple[int, int | None]:
    """Bytes of a NIfTI file that can be had, decompressed, and how many its header promises (``None``: unknown)."""
    if not path.name.lower().endswith((".nii", ".nii.gz")):
        return 0, None
    found, head = 0, b""
    try:
        with _open(path) as stream:
            while block := stream.read1(1 << 13):  # small blocks: what comes before the damage is counted
                found += len(block)
                head = head if len(head) >= 348 else head + block
    except (EOFError, zlib.error, OSError):
        pass
    if len(head) < 348 or head[:4] not in _MAGIC[".nii"][:2]:
        return found, 348 if len(head) < 348 else None
    header = nibabel.Nifti1Header(head[:348], check=False)
    voxels = math.prod(int(n) for n in header.get_data_shape())
    return found, int(header["vox_offset"]) + voxels * int(header["bitpix"]) // 8


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    itk = "ITK" in lines[0] or "ITK" in lines[-1]  # SimpleITK begins with its own source lines
    return lines[-1 if itk else 0].rstrip(".")


def _by(numbers: Any) -> str:
    return "×".join(f"{n:.4g}" for n in numbers)
