"""Read what a run left: its scores and its curves; a damaged file is named."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from medseg.data.content import content_hash
from medseg.errors import DataError
from medseg.storage import read_table
from medseg.storage.limits import OutOfLimits, read_text

__all__ = ["HISTORY", "is_outdated", "read_curves", "read_history", "read_scores"]

HISTORY = ("epoch", "iteration", "loss", "learning_rate", "mean_dice", "seconds")  # columns of a metrics.csv

_SCORES = {
    "mean_dice": (float, None),
    "labels": {str: {str: {"mean": (float, None), "cases": int, "undefined": int}}},
    "pooled?": {str: {str: (float, None)}},
    "cases": {str: {str: {str: (float, None)}}},
    **dict.fromkeys(("unit?", "space?", "role?", "checkpoint?", "weights_sha256?"), str),
    "section?": (str, None),
    "fold?": (int, None),
    "cleanup?": {str: {str: (bool, float)}},
    "biases?": [str],
    "targets?": {str: {str: [int]}},
    "files_sha256?": {str: [str]},
    "predictions?": ({"folder": str, "sha256": {str: str}}, None),
}


def read_scores(path: str | Path) -> dict[str, Any]:
    """The content of a ``metrics.json``; undefined scores are ``None``.

    Raises:
        DataError: it is missing or damaged.
    """
    scores = read_table(path, "the scores that medseg wrote; run the command that wrote them again", _SCORES)
    known = scores["labels"]
    for case, rows in scores["cases"].items():
        for label in rows:
            if label not in known:
                raise DataError(
                    f"{path} is damaged (case '{case}' has label '{label}', which 'labels' lacks); run the command "
                    "that wrote it again."
                )
    return scores


def is_outdated(run: str | Path, scores: Mapping[str, Any]) -> bool:
    """Whether scores are of weights that their run no longer keeps; of what records no weights, that cannot be told."""
    made = scores.get("weights_sha256")
    kept = [Path(run) / "models" / "model.pt", *sorted((Path(run) / "checkpoints").glob("*.pt"))]
    kept = [path for path in kept if path.is_file()]
    return made is not None and bool(kept) and all(content_hash(path) != made for path in kept)


def read_curves(path: str | Path) -> list[dict[str, str]]:
    """The rows of a ``metrics.csv``, none where there is no file.

    Raises:
        DataError: it is damaged.
    """
    path = Path(path)
    if not path.is_file():
        return []
    try:
        rows = list(csv.DictReader(read_text(path).splitlines(), strict=True))
    except (OutOfLimits, csv.Error) as error:
        raise _damaged(path, error) from error
    for row in rows:
        if not str(row.get("epoch") or "").isascii() or not str(row.get("epoch") or "").isdigit():
            raise _damaged(path, "a row without 'epoch'")
    return rows


def read_history(path: str | Path) -> dict[str, np.ndarray]:
    """The columns of a ``metrics.csv``, one value per epoch, NaN where there is none.

    Raises:
        DataError: it is damaged.
    """
    rows = read_curves(path)
    columns = {name: np.array([_number(row.get(name)) for row in rows], dtype=float) for name in HISTORY}
    return columns | {"epoch": columns["epoch"].astype(int)}


def _number(value: str | None) -> float:
    try:
        return float(value or "nan")
    except ValueError:
        return math.nan


def _damaged(path: Path, reason: object) -> DataError:
    return DataError(f"{path} is damaged ({reason}); remove it: the run resumes without its earlier curves.")
