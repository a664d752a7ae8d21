"""``viewer.html``: the cases of a report in three planes and 3D, in one page with NiiVue that needs no network."""

from __future__ import annotations

import base64
import gzip
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path

import nibabel
import numpy as np

from medseg.data.case_view import CaseView
from medseg.labels.colors import rgb_of
from medseg.reports.page import render
from medseg.storage import write_text

__all__ = ["Viewer"]

_MOST_VOXELS = 2**23  # of a case; a page of six then has at most some 50 MB


@dataclass(frozen=True)
class _Volumes:
    """A case as gzipped NIfTI in base64.

    Attributes:
        middle: where the planes cross at first, as shares of the axes to the right, front and top.
    """

    title: str
    note: str
    middle: Sequence[float]
    image: str
    reference: str
    prediction: str


@dataclass
class Viewer:
    """Collects cases and writes the page.

    Attributes:
        title: heading.
        colors: label -> its colour, in the order of the indices.
    """

    title: str
    colors: Mapping[str, str]
    cases: list[_Volumes] = field(default_factory=list)

    def add(self, title: str, view: CaseView) -> None:
        """A volume with its reference; of a large one every second, third, … voxel along each axis."""
        assert view.reference is not None and view.spacing is not None
        step = int(np.ceil((view.image.size / _MOST_VOXELS) ** (1 / 3)))
        low, high = view.window
        shown = np.clip((view.image - low) / (high - low), 0, 1) * 255  # a window from high to low is PET's
        coarse = f", every {step}. voxel along each axis" if step > 1 else ""
        maps = [
            _nifti(values, view.spacing, step)
            for values in (np.nan_to_num(shown), view.reference.clip(0), view.prediction)
        ]
        foreground = view.foreground
        most = [int(foreground.sum(axis=tuple({0, 1, 2} - {axis})).argmax()) for axis in range(3)]
        middle = [1 - (index + 0.5) / length for index, length in zip(most, foreground.shape, strict=True)]
        self.cases.append(_Volumes(title, view.note + coarse, middle, *maps))

    @property
    def colormap(self) -> Mapping[str, Sequence[int | str]]:
        """The labels for NiiVue."""
        red, green, blue = zip((0, 0, 0), *map(rgb_of, self.colors.values()), strict=True)
        values, names = list(range(len(red))), ["background", *self.colors]
        return {"R": red, "G": green, "B": blue, "A": [0] + [255] * (len(red) - 1), "I": values, "labels": names}

    @property
    def library(self) -> str:
        """NiiVue's source."""
        return (resources.files("medseg.reports") / "niivue" / "niivue.umd.js").read_text(encoding="utf-8")

    def write(self, folder: Path) -> Path:
        """Write the page."""
        path = folder / "viewer.html"
        write_text(path, render("viewer.html", self))
        return path


def _nifti(values: np.ndarray, spacing: Sequence[float], step: int) -> str:
    """``(*spatial)`` of a ``CaseView``, whose axes run to the patient's left, back and feet."""
    thinned = np.ascontiguousarray(values[::step, ::step, ::step]).astype(np.uint8 if values.max() < 256 else np.int16)
    image = nibabel.Nifti1Image(thinned, np.diag([*(-step * mm for mm in spacing), 1.0]))
    return base64.b64encode(gzip.compress(image.to_bytes(), 6, mtime=0)).decode()
