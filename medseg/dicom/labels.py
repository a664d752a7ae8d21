"""RTSTRUCT and DICOM-SEG as label maps on the volume of the series that they are drawn on."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pydicom

from medseg.dicom.contours import fill
from medseg.dicom.frames import Frame, frames_of, read_header
from medseg.dicom.paths import Source
from medseg.dicom.series import LabelObject, Series
from medseg.dicom.stack import SAME_ORIENTATION, Stack
from medseg.errors import DataError

__all__ = ["label_names", "read_label_map"]

_NEAR = 0.1  # pixels by which a segment's frame may lie beside its slice
_CLOSED = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")


def label_names(item: LabelObject) -> list[str]:
    """Names of the structures or segments, in the file's order.

    Raises:
        DataError: the file is damaged.
    """
    with _sound(item):
        header = read_header(item.source)
        return list(_numbers(header).values()) if header is not None else []


def _numbers(header: pydicom.Dataset) -> dict[int, str]:
    """Number -> name."""
    if header.Modality == "SEG":
        return {int(item.SegmentNumber): str(item.SegmentLabel) for item in header.SegmentSequence}
    return {int(item.ROINumber): str(item.get("ROIName", "")) for item in header.StructureSetROISequence}


def read_label_map(item: LabelObject, series: Series, values: Mapping[str, int]) -> tuple[np.ndarray, int]:
    """The structures of ``values`` (name -> label value) on the series' volume (columns, rows, slices), uint8 or int32;
    later ones overwrite earlier ones.

    Returns:
        The label map, and the number of voxels that several structures claim.

    Raises:
        DataError: a contour or frame that does not lie on a slice.
    """
    stack = series.stack
    with _sound(item):
        return _label_map(item, stack, values)


@contextlib.contextmanager
def _sound(item: LabelObject) -> Iterator[None]:
    """What readers raise of a damaged file as one sentence, since their texts can hold tags."""
    try:
        yield
    except DataError:
        raise
    except Exception:
        raise DataError(
            f"{item.source.name} is not a valid {item.modality}; expected the objects of the standard. Export it again."
        ) from None


def _label_map(item: LabelObject, stack: Stack, values: Mapping[str, int]) -> tuple[np.ndarray, int]:
    with item.source.open() as stream:
        header = pydicom.dcmread(stream)
    size, kind = stack.frames[0].size, np.uint8 if max(values.values(), default=0) < 256 else np.int32
    slices = np.zeros((len(stack.frames), size[1], size[0]), kind)
    masks = _segments(header, item.source, stack) if item.modality == "SEG" else _structures(header, stack)
    names = _numbers(header)
    parts: dict[str, list[tuple[int, np.ndarray]]] = {}
    for number, index, mask in masks:
        parts.setdefault(names[number], []).append((index, mask))
    shared = 0
    for name, value in values.items():
        for index, mask in parts.get(name, ()):
            shared += int(((slices[index] != 0) & (slices[index] != value) & mask).sum())
            slices[index][mask] = value
    return stack.label_map(slices), shared


def _nearest(stack: Stack, place: float, what: str) -> int:
    """The slice at a place along the normal."""
    distances = np.abs(np.array([frame.place for frame in stack.frames]) - place)
    index = int(np.argmin(distances))
    if distances[index] > stack.gap / 2:
        raise DataError(
            f"{what} lies {distances[index]:.2f} mm from the nearest slice of the series; expected one on a slice. "
            "Export the labels again with their own series."
        )
    return index


def _segments(header: pydicom.Dataset, source: Source, stack: Stack) -> Iterator[tuple[int, int, np.ndarray]]:
    """Segment number, slice and mask of each frame."""
    pixels = header.pixel_array
    pixels = pixels if pixels.ndim == 3 else pixels[None]
    kind, limit = str(header.SegmentationType), int(header.get("MaximumFractionalValue", 2)) / 2
    for frame in frames_of(header, source):
        index = _nearest(stack, float(stack.frames[0].axes[:, 2] @ frame.origin), f"frame {frame.number}")
        _refuse_other_grid(frame, stack.frames[index])
        labels = pixels[frame.index]
        if kind == "LABELMAP":
            yield from ((int(value), index, labels == value) for value in np.unique(labels) if value)
            continue
        yield _segment_number(header, frame.index), index, labels >= (limit if kind == "FRACTIONAL" else 1)


def _segment_number(header: pydicom.Dataset, index: int) -> int:
    for name, place in (("PerFrameFunctionalGroupsSequence", index), ("SharedFunctionalGroupsSequence", 0)):
        group = header[name].value[place]
        if "SegmentIdentificationSequence" in group:
            return int(group.SegmentIdentificationSequence[0].ReferencedSegmentNumber)
    raise DataError(f"frame {index + 1} names no segment; expected its number. Export the labels again.")


def _refuse_other_grid(frame: Frame, own: Frame) -> None:
    aside = np.abs((frame.origin - own.origin) @ own.axes[:, :2] / own.spacing).max()
    same = frame.size == own.size and np.allclose(frame.spacing, own.spacing, rtol=1e-3)
    if not same or aside > _NEAR or np.abs(frame.axes - own.axes).max() > SAME_ORIENTATION:
        raise DataError(
            f"frame {frame.number} of the DICOM-SEG has {frame.size[0]}×{frame.size[1]} pixels of "
            f"{frame.spacing[0]:g}×{frame.spacing[1]:g} mm, {aside:.2f} pixels beside its slice of {own.size[0]}×"
            f"{own.size[1]} pixels; expected the slices' own grid. Export the labels on it."
        )


def _structures(header: pydicom.Dataset, stack: Stack) -> Iterator[tuple[int, int, np.ndarray]]:
    """ROI number, slice and mask of each structure on each slice."""
    first = stack.frames[0]
    for structure in header.get("ROIContourSequence", ()):
        number = int(structure.ReferencedROINumber)
        polygons: dict[int, list[np.ndarray]] = {}
        for contour in structure.get("ContourSequence", ()):
            if contour.ContourGeometricType not in _CLOSED:
                continue
            points = _points(contour)
            places = points @ first.axes[:, 2]
            if np.ptp(places) > stack.gap / 2:
                raise DataError(
                    f"a contour of structure {number} spans {np.ptp(places):.2f} mm across the slices; expected one "
                    "in the plane of a slice. Export the structures with their own series."
                )
            index = _nearest(stack, float(places.mean()), f"a contour of structure {number}")
            frame = stack.frames[index]
            polygons.setdefault(index, []).append((points - frame.origin) @ frame.axes[:, :2] / frame.spacing)
        for index, own in polygons.items():
            yield number, index, fill(own, (first.size[1], first.size[0]))


def _points(contour: Any) -> np.ndarray:
    return np.array([float(mm) for mm in contour.ContourData]).reshape(-1, 3)
