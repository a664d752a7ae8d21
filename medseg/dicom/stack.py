"""The slices of a series as a straight volume: what cannot be one is refused, and a tilted gantry is put upright.

The slices of a tilted gantry lie behind each other and a step aside. The volume has straight axes, so each slice is
shifted within its plane, by parts of a pixel for intensities and by whole pixels for labels. The latter can be undone:
a label map on the volume and its copy on the slices are the same labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from medseg.dicom.frames import Frame
from medseg.errors import DataError

__all__ = ["SAME_ORIENTATION", "Stack"]

SAME_ORIENTATION = 5e-3  # of direction cosines
_SAME = 0.01  # mm: positions that count as one
_UNEVEN = 0.1  # share of the slice spacing by which a gap may differ
_ASIDE = 0.1  # pixels by which slices may lie aside of a straight line


@dataclass(frozen=True, eq=False)
class Stack:
    """Geometry of a series.

    Attributes:
        frames: in the order along their normal.
        gap: mm between slices.
        shifts: (slices, 2) pixels (columns, rows) from the volume's first corner to each slice's; all 0 without tilt.
        shape: voxels of the volume (columns, rows, slices).
        affine: index -> RAS mm, 4 x 4.
    """

    frames: tuple[Frame, ...]
    gap: float
    shifts: np.ndarray
    shape: tuple[int, int, int]
    affine: np.ndarray

    @classmethod
    def of(cls, frames: Sequence[Frame]) -> Stack:
        """Of slices in any order.

        Raises:
            DataError: several sizes or spacings; a slice twice or missing; slices that are not on a line.
        """
        ordered = tuple(sorted(frames, key=lambda frame: frame.place))
        _refuse_mixed(ordered)
        _refuse_uneven(ordered)
        first, last = ordered[0], ordered[-1]
        gap = (last.place - first.place) / (len(ordered) - 1) if len(ordered) > 1 else first.thickness
        shifts = _shifts(ordered)
        low, high = np.floor(shifts.min(axis=0)), np.ceil(shifts.max(axis=0))
        columns, rows = (first.size + high - low).astype(int)
        matrix = np.eye(4)  # LPS
        matrix[:3, :3] = first.axes * (*first.spacing, gap)
        matrix[:3, 3] = first.origin + matrix[:3, :2] @ low
        affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ matrix
        return cls(ordered, gap, shifts - low, (int(columns), int(rows), len(ordered)), affine)

    def volume(self, slices: Sequence[np.ndarray]) -> np.ndarray:
        """Intensities of the slices, each (rows, columns), as the volume (columns, rows, slices)."""
        stacked = np.stack(slices, axis=-1).swapaxes(0, 1)
        if not self.shifts.any():
            return stacked
        empty = float(stacked.min())
        made = np.full(self.shape, empty, np.float32)
        columns, rows = stacked.shape[:2]
        for index, shift in enumerate(self.shifts):
            made[:columns, :rows, index] = stacked[..., index]
            made[..., index] = ndimage.shift(made[..., index], shift, order=1, cval=empty)
        return made

    def label_map(self, slices: np.ndarray) -> np.ndarray:
        """Labels of the slices (slices, rows, columns) as a map of the volume (columns, rows, slices)."""
        made = np.zeros(self.shape, slices.dtype)
        for window, labels in zip(self._windows(), slices, strict=True):
            made[window] = labels.T
        return made

    def on_slices(self, label_map: np.ndarray) -> np.ndarray:
        """Labels of the volume (columns, rows, slices) as those of its slices (slices, rows, columns)."""
        return np.stack([label_map[window].T for window in self._windows()])

    def _windows(self) -> list[tuple[slice, slice, int]]:
        columns, rows = self.frames[0].size
        corners = np.rint(self.shifts).astype(int)
        return [(slice(x, x + columns), slice(y, y + rows), index) for index, (x, y) in enumerate(corners)]


def _numbers(frames: Sequence[Frame]) -> str:
    shown = ", ".join(str(frame.number) for frame in frames[:3])
    return f"slice{'s' * (len(frames) > 1)} {shown}" + (f" and {len(frames) - 3} more" if len(frames) > 3 else "")


def _refuse_mixed(frames: Sequence[Frame]) -> None:
    for what, tolerance, values in (
        ("columns×rows", 0.0, [frame.size for frame in frames]),
        ("pixel spacing in mm", 1e-3, [frame.spacing for frame in frames]),
    ):
        usual = np.median(np.array(values, float), axis=0)
        others = [i for i, value in enumerate(values) if np.abs(np.subtract(value, usual)).max() > tolerance]
        if others:
            found, expected = ("×".join(f"{n:g}" for n in pair) for pair in (values[others[0]], usual))
            raise DataError(
                f"{what} {found} in {_numbers([frames[i] for i in others])}, {expected} elsewhere; expected "
                "equal ones in a series. Move the files that do not belong to the volume out of the folder."
            )


def _refuse_uneven(frames: Sequence[Frame]) -> None:
    if len(frames) < 2:
        return
    places = np.array([frame.place for frame in frames])
    gaps = np.diff(places)
    usual = float(np.median(gaps))
    if gaps.min() < _SAME:
        doubled = [k for k, gap in enumerate(gaps) if gap < _SAME]
        pairs = ", ".join(f"{frames[k].number} and {frames[k + 1].number}" for k in doubled[:3])
        raise DataError(
            f"slices {pairs} are at one position ({len(doubled)} positions in all); expected each slice once. "
            "Remove the ones that do not belong to the series."
        )
    worst = int(np.argmax(np.abs(gaps - usual)))
    if abs(gaps[worst] - usual) > _UNEVEN * usual:
        raise DataError(
            f"{gaps[worst]:.2f} mm between slices {frames[worst].number} and {frames[worst + 1].number}, "
            f"{usual:.2f} mm elsewhere; expected even gaps. A slice is missing or does not belong there; copy the "
            "series again."
        )
    even = np.linspace(places[0], places[-1], len(places))
    drift = np.abs(places - even)
    worst = int(np.argmax(drift))
    if drift[worst] > _UNEVEN * usual:
        raise DataError(
            f"slice {frames[worst].number} lies {places[worst] - places[0]:.2f} mm behind slice "
            f"{frames[0].number}; expected {even[worst] - places[0]:.2f} mm, from even gaps. Resample the series to "
            "even gaps, and store it as NIfTI."
        )


def _shifts(frames: Sequence[Frame]) -> np.ndarray:
    """Pixels (columns, rows) by which slices lie aside of the first one; 0 where that is less than a tenth."""
    first = frames[0]
    steps = np.array([frame.origin - first.origin for frame in frames])
    shifts: np.ndarray = steps @ first.axes[:, :2] / first.spacing
    if np.abs(shifts).max() <= _ASIDE:
        return np.zeros_like(shifts)
    ahead = (steps @ first.axes[:, 2])[:, None]
    crooked = np.abs(shifts - ahead * (shifts[-1] / ahead[-1])).max(axis=1)
    worst = int(np.argmax(crooked))
    if crooked[worst] > _ASIDE:
        raise DataError(
            f"slice {frames[worst].number} lies {crooked[worst]:.2f} pixels aside of the line through the "
            "others; expected slices behind each other. Move the files that do not belong to the volume out of the "
            "folder."
        )
    return shifts
