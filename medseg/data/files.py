"""Read one image file as training does, and say in a sentence why a file cannot be read."""

from __future__ import annotations

import gzip
import math
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import nibabel
import numpy as np
from PIL import Image

from medseg.data.content import content_hash
from medseg.data.findings import Finding, by
from medseg.dicom import SERIES, container_of, require_extra
from medseg.errors import DataError
from medseg.transforms.in_memory import InMemory
from medseg.transforms.nifti import NiftiReader, Placement
from medseg.transforms.nifti_scale import ignored_scale, image_class, open_nifti
from medseg.transforms.picture import PictureReader, has_deep_colours, orientation_of, shown_size
from medseg.transforms.reader import (
    IMAGE_SUFFIXES,
    KNOWN,
    VolumeReader,
    as_numbers,
    is_2d_file,
    is_dicom,
    itk_affine,
    simple_itk,
)

__all__ = ["Unreadable", "Volume", "is_there", "read_grid", "read_volume", "shown_name"]

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
    """One image file, or an image in memory.

    Attributes:
        image: as transforms take it in the place of the path, so that a file is read once.
        channels: arrays ``(*spatial)`` in the file's own voxel type, in memory order where possible (no copies).
        affine: index -> RAS mm, 4 x 4, as training sees it; the identity for photographs.
        photo: a format without physical size (PNG, JPEG, TIFF, BMP), where colours come as channels.
        header_spacing: what a NIfTI header says, in its own unit, before nibabel corrects it; else ``spacing``.
        placement: NIfTI: what the affine is from.
        orientation: EXIF orientation of a 2D image, 1 to 8, which is applied already.
        stored_type: type of a voxel in the file, before its scale factor.
        findings: what the file says that is not used.
        notes: what is done with its values.
    """

    image: InMemory
    channels: list[np.ndarray]
    affine: np.ndarray
    photo: bool = False
    header_spacing: tuple[float, ...] = ()
    placement: Placement | None = None
    orientation: int = 1
    stored_type: np.dtype = field(default_factory=lambda: np.dtype(np.uint8))
    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.header_spacing = self.header_spacing or self.spacing

    @property
    def shape(self) -> tuple[int, ...]:
        """Spatial shape in voxels."""
        return self.channels[0].shape

    @property
    def spacing(self) -> tuple[float, ...]:
        """mm per voxel and axis, source orientation."""
        return tuple(float(s) for s in np.linalg.norm(self.affine[:3, :3], axis=0)[: len(self.shape)])


def read_volume(path: str | Path, shown: str | None = None, *, mask: bool = False) -> Volume:
    """Read a file, opening it once where the format allows it; compressed files are verified to the end, and
    ``content_hash`` knows the file afterwards.

    Args:
        path: the file, or an ``InMemory`` image.
        shown: what a sentence calls it.
        mask: the file is a label map, whose values come as whole numbers (``whole_values``).

    Raises:
        Unreadable: missing, empty, cut short, damaged, of another format, not readable, or without plain voxels.
    """
    shown = shown or shown_name(path)
    try:
        volume = _in_memory(path) if isinstance(path, InMemory) else _read(Path(path), shown, mask)
        stored = volume.channels
        volume.channels = [as_numbers(channel, mask=mask) for channel in stored]
    except Unreadable:
        raise
    except Exception as error:  # readers raise anything; the sentence names the file
        raise _unreadable(Path(str(path)), shown, error) from error
    kind = stored[0].dtype
    if kind.names or kind.kind not in "biuf":
        what = "RGB (several components per voxel)" if kind.names else f"of voxel type {kind}"
        raise Unreadable(f"{shown} is {what}; plain numbers are expected", "Export it with one number per voxel.")
    if 0 in volume.shape:
        raise Unreadable(f"{shown} has shape {by(volume.shape)}: no voxels", "Export the file again.")
    volume.notes += _notes(stored, volume, mask)
    return volume


def _read(path: Path, shown: str, mask: bool) -> Volume:
    _check_name(path, shown)
    if is_dicom(path):
        content_hash(path)
        return _read_whole(path)
    with path.open("rb") as file:
        _check_head(path, shown, file.read(256))
        file.seek(0)
        if path.name.lower().endswith(_NIFTI):
            volume = _read_nifti(path, shown, file)
        elif is_2d_file(path):
            volume = _read_picture(path, file, mask)
        else:  # ITK opens its files itself
            _check_itk_promise(path, shown)
            volume = _read_whole(path)
        content_hash(path, None if path.suffix.lower() == ".mhd" else file)
    return volume


def _in_memory(image: InMemory) -> Volume:
    channels = _channels(image.array, image.meta)
    affine = np.asarray(image.meta["affine"], dtype=float)
    return Volume(image, channels, affine, stored_type=image.array.dtype)


def _channels(array: np.ndarray, meta: Mapping[Any, Any]) -> list[np.ndarray]:
    axis = float(meta.get("original_channel_dim", math.nan))
    return [array] if math.isnan(axis) else list(np.moveaxis(array, int(axis), 0))


def _notes(stored: Sequence[np.ndarray], volume: Volume, mask: bool) -> Iterator[str]:
    if mask and stored[0].dtype.kind == "f" and not all(map(np.array_equal, stored, volume.channels)):
        yield "label values within 0.01 of a whole number are rounded to it (scale factor or floating point)"
    elif not mask and volume.stored_type.itemsize > 4:
        yield f"voxels of type {volume.stored_type} are taken as float32"


def read_grid(path: str | Path) -> Volume:
    """Shape and place of a file from its header alone: one channel of zeros that take no memory.

    Raises:
        Unreadable: missing, empty, of another format, or a header that cannot be read.
    """
    path, shown = Path(path), shown_name(path)
    _check_name(path, shown)
    if not is_dicom(path):
        with path.open("rb") as file:
            _check_head(path, shown, file.read(256))
    try:
        shape, affine, orientation = _header(path)
    except Exception as error:  # readers raise anything; the sentence names the file
        raise _unreadable(path, shown, error) from error
    empty = np.broadcast_to(np.uint8(0), shape)
    image = InMemory(str(path), empty, {"affine": affine})
    return Volume(image, [empty], affine, photo=is_2d_file(path), orientation=orientation)


def _header(path: Path) -> tuple[tuple[int, ...], np.ndarray, int]:
    """Spatial shape, affine and the orientation of a 2D image."""
    if is_dicom(path):
        require_extra()
        from medseg.dicom.series import find_series

        stack = find_series(path).stack
        return stack.shape, stack.affine, 1
    if is_2d_file(path):
        with Image.open(path) as picture:
            return shown_size(picture)[::-1], np.eye(4), orientation_of(picture)
    if path.name.lower().endswith(_NIFTI):
        image: Any = open_nifti(path)
        return tuple(int(n) for n in image.shape[:3]), Placement.of(image.header).affine, 1
    reader = simple_itk().ImageFileReader()
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    return tuple(reader.GetSize()[:3]), itk_affine(reader), 1


def _check_nifti_promise(path: Path, shown: str, head: bytes) -> None:
    cls = image_class(head).header_class
    if len(head) < cls.sizeof_hdr or head[:4] not in _MAGIC[".nii"]:
        return  # the reader says how it is damaged
    header = cls(head[: cls.sizeof_hdr], check=False)
    voxels = math.prod(int(n) for n in header.get_data_shape())
    _check_promise(path, shown, voxels * max(1, int(header["bitpix"]) // 8))


def _check_itk_promise(path: Path, shown: str) -> None:
    reader = simple_itk().ImageFileReader()
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    # components of a byte or more each
    _check_promise(path, shown, math.prod(reader.GetSize()) * max(1, reader.GetNumberOfComponents()))


def _check_promise(path: Path, shown: str, promised: int) -> None:
    """Refuse a header that promises more voxels than the file can hold or the machine has memory for, before anyone
    allocates them; Pillow has a limit of its own.
    """
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


def shown_name(path: str | Path, root: Path | None = None) -> str:
    """What a sentence calls a file: its path, below ``root`` where it lies there; of a DICOM series its name alone,
    since its folders may be named for the patient.
    """
    if str(path).endswith(SERIES):
        return Path(path).stem
    return str(Path(path).relative_to(root)) if root is not None and Path(path).is_relative_to(root) else str(path)


def is_there(path: str | Path) -> bool:
    """Whether a file or folder exists; of a name that no file can have, no."""
    try:
        return container_of(path).exists()
    except (OSError, ValueError):
        return False


def _check_name(path: Path, shown: str) -> None:
    dicom = is_dicom(path)
    if not (dicom or path.name.lower().endswith(IMAGE_SUFFIXES)):
        suffix = "".join(path.suffixes[-2:]) if path.suffix == ".gz" else path.suffix
        raise Unreadable(
            f"Cannot read '{suffix}' ({shown}). Known: {KNOWN}",
            "Convert the file to one of them, for example with SimpleITK.",
        )
    if not is_there(path):
        raise Unreadable(f"{shown} not found", "Fix the path in the datalist, or name the images' folder: --data_dir.")
    if dicom:
        return
    if path.is_dir():
        raise Unreadable(f"{shown} is a folder; an image file is expected", "Name the file in the datalist.")
    if not os.access(path, os.R_OK):
        raise _no_permission(shown)
    if path.stat().st_size == 0:
        raise Unreadable(f"{shown} is empty (0 bytes)", "Copy the file again.")


def _check_head(path: Path, shown: str, head: bytes) -> None:
    suffix = path.suffix.lower()
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
def _read_nifti(path: Path, shown: str, file: BinaryIO) -> Volume:
    stream: Any = gzip.GzipFile(fileobj=file) if path.suffix.lower() == ".gz" else file
    head = stream.read(540)
    _check_nifti_promise(path, shown, head)
    if head[:4] not in _MAGIC[".nii"]:
        raise Unreadable(
            f"{shown} is not a NIfTI file (its data start with {head[:4]!r})", "Export it as .nii.gz again."
        )
    stream.seek(0)
    cls = image_class(head)
    raw = cls.header_class.from_fileobj(stream, check=False)  # the check would correct a spacing of 0
    stream.seek(0)
    placement = Placement.of(cls.header_class.from_fileobj(stream))  # before nibabel fails with less of a sentence
    stream.seek(0)
    image = cls.from_stream(stream)
    array, meta = NiftiReader().get_data(image)
    while stream.read(_BLOCK):  # only the end of a gzip file tells whether its data are whole
        pass
    dims = min(array.ndim, 3)
    if array.ndim > 4 or dims < 2:
        raise Unreadable(
            f"{shown} has shape {by(array.shape)}; 2 or 3 spatial axes and at most one of channels are expected",
            "Split the file into one per channel.",
        )
    channels = [array] if array.ndim < 4 else [array[..., i] for i in range(array.shape[3])]
    spacing = tuple(float(s) for s in raw["pixdim"][1 : dims + 1])
    read = InMemory(str(path), array, meta)
    volume = Volume(
        read,
        channels,
        placement.affine,
        header_spacing=spacing,
        placement=placement,
        stored_type=image.get_data_dtype(),
    )
    if ignored := ignored_scale(raw):
        remedy = "The stored values are taken as they are: check that they are the intended ones."
        volume.findings.append(Finding(f"{shown}: {ignored}", remedy, warning=True))
    return volume


# ---------------------------------------------------------------------- everything else
def _read_whole(path: Path) -> Volume:
    reader = VolumeReader()
    array, meta = reader.get_data(reader.read(str(path)))
    channels, affine = _channels(array, meta), np.asarray(meta["affine"], dtype=float)
    image = InMemory(str(path), array, meta)
    return Volume(image, channels, affine, stored_type=array.dtype)


def _read_picture(path: Path, file: BinaryIO, mask: bool) -> Volume:
    picture = Image.open(file)
    deep = has_deep_colours(picture)
    array, meta = PictureReader(mask=mask).get_data(picture)
    image, orientation = InMemory(str(path), array, meta), int(meta["orientation"])
    volume = Volume(
        image, _channels(array, meta), np.eye(4), photo=True, orientation=orientation, stored_type=array.dtype
    )
    if deep:
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
    if not path.name.lower().endswith(_NIFTI):
        return 0, None
    found, head = 0, b""
    try:
        with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as stream:
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
