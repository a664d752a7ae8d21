"""Headers of DICOM images as frames: one of a file of one slice, many of an enhanced CT or MR."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pydicom
from pydicom.errors import InvalidDicomError

from medseg.dicom.paths import Source
from medseg.errors import DataError

__all__ = ["Frame", "damaged", "ends_early", "frames_of", "read_header", "readable"]

# What pydicom warns of quotes values, which may be the patient's; what it then cannot use is refused in our words.
logging.getLogger("pydicom").setLevel(logging.CRITICAL)
logging.getLogger("highdicom").setLevel(logging.ERROR)
warnings.filterwarnings("ignore", module=r"pydicom|highdicom")
pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE

# Where enhanced images keep what others have at the top: keyword -> sequence of a functional group.
_GROUPS = {
    "ImagePositionPatient": "PlanePositionSequence",
    "ImageOrientationPatient": "PlaneOrientationSequence",
    "PixelSpacing": "PixelMeasuresSequence",
    "SliceThickness": "PixelMeasuresSequence",
    "SpacingBetweenSlices": "PixelMeasuresSequence",
    "RescaleSlope": "PixelValueTransformationSequence",
    "RescaleIntercept": "PixelValueTransformationSequence",
    "TemporalPositionIndex": "FrameContentSequence",
    "EffectiveEchoTime": "MREchoSequence",
}
_FRAME_TYPES = ("CTImageFrameTypeSequence", "MRImageFrameTypeSequence", "PETFrameTypeSequence")


@dataclass(frozen=True, eq=False)
class Frame:
    """One slice as its header describes it.

    Attributes:
        source: its file.
        index: place in the file, from 0.
        number: instance number, or the frame's number in its file; 0 where the header does not say.
        size: columns and rows.
        spacing: mm between columns and between rows.
        axes: (3, 3); unit vectors along columns, rows and the normal (LPS).
        origin: (3,) mm, of the first pixel (LPS).
        thickness: mm to the next slice as the header states it, for a slice that has none.
        scale: rescale slope and intercept.
        kind: "localiser", "derived", or "" of an original image.
        state: what images of one place differ by, such as the echo.
    """

    source: Source
    index: int
    number: int
    size: tuple[int, int]
    spacing: tuple[float, float]
    axes: np.ndarray
    origin: np.ndarray
    thickness: float
    scale: tuple[float, float]
    kind: str
    state: tuple[str, ...]

    @property
    def place(self) -> float:
        """mm along the normal."""
        return float(self.axes[:, 2] @ self.origin)


def read_header(source: Source) -> pydicom.Dataset | None:
    """A file's tags without pixels; ``None`` of a file that is not DICOM.

    Raises:
        DataError: damaged.
    """
    with readable(source), source.open() as stream:
        try:
            return pydicom.dcmread(stream, stop_before_pixels=True)
        except InvalidDicomError:
            if source.name.lower().endswith(".dcm"):
                raise
            return None


@contextlib.contextmanager
def readable(source: Source) -> Iterator[None]:
    """Whatever a reader stumbles over as one sentence: its text can hold tags."""
    try:
        yield
    except DataError:
        raise
    except Exception:
        raise damaged(source) from None


def damaged(source: Source) -> DataError:
    """What is said of a file that cannot be used; its folder may be named for the patient."""
    return DataError(
        f"{source.name} is damaged or not an image; expected slices alone. Copy it again, or move it away."
    )


def ends_early(header: pydicom.Dataset) -> bool:
    """Whether the header of an image stops before its pixels are described, which pydicom takes for a whole one."""
    kind = header.file_meta.get("MediaStorageSOPClassUID")
    return kind is not None and "Image Storage" in kind.name and "BitsAllocated" not in header


def frames_of(header: pydicom.Dataset, source: Source) -> list[Frame]:
    """The frames of an image with a place in the patient; none of another.

    Raises:
        DataError: numbers that are none.
    """
    if header.get("SamplesPerPixel", 1) != 1 or "Rows" not in header:
        return []
    with readable(source):
        return list(_frames(header, source))


def _frames(header: pydicom.Dataset, source: Source) -> Iterator[Frame]:
    single = "PerFrameFunctionalGroupsSequence" not in header
    for index in range(1 if single else len(header.PerFrameFunctionalGroupsSequence)):
        position, cosines, spacing = (
            _value(header, index, keyword)
            for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")
        )
        if None in (position, cosines, spacing):
            return
        across, down = np.array(cosines[:3], float), np.array(cosines[3:], float)
        if not np.linalg.norm(np.cross(across, down)) > 0:
            raise DataError(
                f"{source.name} has rows and columns along {_listed(across)} and {_listed(down)}; expected two "
                "directions (ImageOrientationPatient). Export the series again."
            )
        axes = np.stack([v / np.linalg.norm(v) for v in (across, down, np.cross(across, down))], axis=1)
        scale = tuple(
            float(1.0 - n if (value := _value(header, index, keyword)) is None else value)
            for n, keyword in enumerate(("RescaleSlope", "RescaleIntercept"))
        )
        thickness = _value(header, index, "SpacingBetweenSlices") or _value(header, index, "SliceThickness") or 1
        number = header.get("InstanceNumber") if single else index + 1
        kind, state = _kind(header, index)
        frame = Frame(
            source=source,
            index=index,
            number=int(number or 0),
            size=(int(header.Columns), int(header.Rows)),
            spacing=(float(spacing[1]), float(spacing[0])),
            axes=axes,
            origin=np.array(position, float),
            thickness=abs(float(thickness)),
            scale=(scale[0], scale[1]),
            kind=kind,
            state=state,
        )
        known = (*frame.spacing, *axes.ravel(), *frame.origin, *scale, scale[0] and 1 / scale[0])
        if not (np.isfinite(known).all() and min(frame.spacing) > 0 and scale[0]):
            raise DataError(
                f"{source.name} (slice {frame.number}) has rescale slope {scale[0]:g}, intercept {scale[1]:g}, pixel "
                f"spacing {frame.spacing[0]:g}×{frame.spacing[1]:g} mm; expected numbers, a slope other than 0 and a "
                "spacing above 0. Export the series again."
            )
        yield frame


def _listed(direction: np.ndarray) -> str:
    return "(" + ", ".join(f"{value:g}" for value in direction) + ")"


def _groups(header: pydicom.Dataset, index: int) -> Iterator[pydicom.Dataset]:
    for name, place in (("PerFrameFunctionalGroupsSequence", index), ("SharedFunctionalGroupsSequence", 0)):
        if header.get(name):
            yield header[name].value[place]


def _value(header: pydicom.Dataset, index: int, keyword: str) -> Any:
    """Of the frame's own group, else of the shared one, else of the file."""
    for group in _groups(header, index):
        if group.get(_GROUPS[keyword]) and group[_GROUPS[keyword]].value[0].get(keyword) is not None:
            return group[_GROUPS[keyword]].value[0].get(keyword)
    return header.get(keyword)


def _kind(header: pydicom.Dataset, index: int) -> tuple[str, tuple[str, ...]]:
    types = [
        group[name].value[0].get("FrameType")
        for group in _groups(header, index)
        for name in _FRAME_TYPES
        if name in group
    ]
    words = [str(word).upper() for word in (types[0] if types and types[0] else header.get("ImageType") or ())]
    kind = "localiser" if "LOCALIZER" in words else "derived" if words[:1] == ["DERIVED"] else ""
    state = [*words[2:]] if header.get("Modality") == "MR" else []
    state += [str(header.get(name, "")) for name in ("EchoNumbers", "TemporalPositionIdentifier")]
    state += [str(_value(header, index, name) or "") for name in ("EffectiveEchoTime", "TemporalPositionIndex")]
    return kind, tuple(state)
