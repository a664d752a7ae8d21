"""Probabilities of a case as a file beside its label map, in nnU-Net's form: ``<case>.npz`` with ``probabilities``.

``probabilities`` is ``(C, z, y, x)`` for NIfTI, as SimpleITK gives the voxels of the label map, and ``(C, rows,
columns)`` for 2D images as they are shown; float16, float32, or uint8 in steps of 1/255. Further entries: ``channels``
(names), ``temperature`` (that the logits were divided by), ``affine`` (index (x, y, z) -> RAS mm, 4 x 4), and
``space``: ``source`` for the original image space, ``model`` for the grid of the network. Files of nnU-Net have the
first alone.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medseg.errors import DataError
from medseg.storage import whole_file

__all__ = [
    "PROBABILITY_TYPES",
    "Probabilities",
    "files_beside",
    "read_probabilities",
    "stored_as",
    "write_probabilities",
]

PROBABILITY_TYPES = ("float16", "float32", "uint8")
_STEPS = 255  # of uint8


@dataclass(frozen=True)
class Probabilities:
    """Probabilities of a case.

    Attributes:
        values: ``(C, *spatial)`` with the axes of the image as medseg reads it, 0 to 1; stored as a type of
            ``PROBABILITY_TYPES``.
        channels: their names; empty where the file has none.
        affine: index -> RAS mm, 4 x 4.
        temperature: that the logits were divided by.
        space: ``source`` or ``model``.
    """

    values: np.ndarray
    channels: Sequence[str]
    affine: np.ndarray
    temperature: float = 1.0
    space: str = "source"


def files_beside(label_map: Path, case_id: str) -> dict[str, Path]:
    """What a case may have beside its label map: ``probabilities`` and ``uncertainty`` -> the file."""
    folder, suffix = label_map.parent, ".png" if label_map.suffix == ".png" else ".nii.gz"
    return {"probabilities": folder / f"{case_id}.npz", "uncertainty": folder / "uncertainty" / f"{case_id}{suffix}"}


def stored_as(values: np.ndarray, dtype: str) -> np.ndarray:
    """Probabilities as a type of ``PROBABILITY_TYPES``; as uint8 they are rounded."""
    return np.rint(values * _STEPS).astype(np.uint8) if dtype == "uint8" else values.astype(dtype)


def write_probabilities(path: str | Path, found: Probabilities, *, rows: bool) -> None:
    """Write ``<case>.npz``, whole or not at all.

    Args:
        path: the file.
        found: its values are of a type of ``PROBABILITY_TYPES``.
        rows: whether the axes are rows and columns, of a 2D image file.
    """
    with whole_file(path, flush=False) as temporary:
        np.savez_compressed(
            temporary,
            probabilities=_turned(found.values, rows=rows),
            channels=np.array(list(found.channels)),
            affine=found.affine,
            temperature=np.float64(found.temperature),
            space=np.array(found.space),
        )


def read_probabilities(path: str | Path, *, rows: bool) -> Probabilities:
    """Probabilities of a file that medseg or nnU-Net wrote, as float32.

    Args:
        path: the file.
        rows: as of ``write_probabilities``.

    Raises:
        DataError: the file cannot be read, or holds none.
    """
    try:
        with np.load(path, allow_pickle=False) as content:
            entries = {name: content[name] for name in content.files}
        stored = entries["probabilities"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(
            f"{path} holds no probabilities ({error}); expected a file of `--probabilities` or of nnU-Net's "
            "--save_probabilities. Write it again."
        ) from error
    if rows and stored.ndim == 4 and stored.shape[1] == 1:
        stored = stored[:, 0]  # nnU-Net's 2D images have an axis more
    values = stored.astype(np.float32) / (_STEPS if stored.dtype == np.uint8 else 1)
    return Probabilities(
        _turned(values, rows=rows),
        [str(name) for name in entries.get("channels", ())],
        entries.get("affine", np.eye(4)),
        float(entries.get("temperature", 1.0)),
        str(entries.get("space", "source")),
    )


def _turned(values: np.ndarray, *, rows: bool) -> np.ndarray:
    """``(C, x, y, z)`` <-> ``(C, z, y, x)``."""
    return values if rows else np.ascontiguousarray(values.transpose(0, *range(values.ndim - 1, 0, -1)))
