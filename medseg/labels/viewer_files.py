"""Names and colours of label values for viewers: ITK-SNAP, FSLeyes, 3D Slicer and MITK."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medseg.labels.colors import rgb_of, space_colors
from medseg.labels.space import LabelSpace
from medseg.storage import write_json, write_text

__all__ = ["write_viewer_files"]

_MITK = {"version": 3, "type": "org.mitk.multilabel.segmentation.preset"}


@dataclass(frozen=True)
class _Entry:
    """A label: its value in label maps, its name on one line without quotes, and its colour (0 to 255)."""

    value: int
    name: str
    rgb: tuple[int, int, int]


def write_viewer_files(folder: Path, space: LabelSpace, datasets: Iterable[str | None]) -> list[Path]:
    """Write ``labels.txt`` (ITK-SNAP), ``.lut`` (FSLeyes), ``.ctbl`` (3D Slicer) and ``.mitklabel.json`` (MITK).

    Args:
        folder: made where it is missing.
        space: names.
        datasets: the data sets whose values the label maps have; of several, each has files of its name.
    """
    written = []
    of = sorted(set(datasets), key=str)
    for dataset in of:
        values = space.decode(np.arange(len(space.labels) + 1), dataset)[1:]
        # Label maps hold nothing that their data set does not annotate.
        known = space.annotated(dataset) if dataset or "" in space.fragments else [True] * len(space.labels)
        colors = space_colors(space)
        entries = [
            _Entry(int(value), " ".join(name.replace('"', "'").split()), rgb_of(colors[name]))
            for name, value, there in zip(space.labels, values, known, strict=True)
            if there
        ]
        stem = folder / ("labels" if len(of) == 1 else f"labels_{dataset}")
        for suffix, text in {".txt": _itk_snap(entries), ".lut": _fsleyes(entries), ".ctbl": _slicer(entries)}.items():
            written.append(stem.with_name(stem.name + suffix))
            write_text(written[-1], text)
        labels = [{"name": one.name, "value": one.value, "color": list(one.rgb)} for one in entries]
        written.append(stem.with_name(f"{stem.name}.mitklabel.json"))
        write_json(written[-1], {**_MITK, "groups": [{"labels": labels}]})
    return written


def _itk_snap(entries: Sequence[_Entry]) -> str:
    """Value, red, green, blue, opacity, visible in slices, visible in 3D, name."""
    lines = [f'{one.value} {" ".join(map(str, one.rgb))} 1 1 1 "{one.name}"' for one in entries]
    return "\n".join(['0 0 0 0 0 0 0 "Clear Label"', *lines, ""])


def _fsleyes(entries: Sequence[_Entry]) -> str:
    """Value, red, green and blue from 0 to 1, name."""
    return "".join(f"{one.value} {' '.join(f'{part / 255:.4f}' for part in one.rgb)} {one.name}\n" for one in entries)


def _slicer(entries: Sequence[_Entry]) -> str:
    """Value, name without spaces, red, green, blue, opacity."""
    lines = [f"{one.value} {one.name.replace(' ', '_')} {' '.join(map(str, one.rgb))} 255" for one in entries]
    return "\n".join(["0 background 0 0 0 0", *lines, ""])
