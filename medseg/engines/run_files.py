"""Read what a run left: its curves, and whether its scores are of the weights that it keeps."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np

from medseg.data.content import content_hash
from medseg.errors import DataError
from medseg.metrics import Scores
from medseg.storage.limits import OutOfLimits, read_text

__all__ = ["HISTORY", "is_outdated", "read_curves", "read_history"]

HISTORY = ("epoch", "iteration", "loss", "learning_rate", "mean_dice", "seconds")  # columns of a metrics.csv


def is_outdated(run: str | Path, scores: Scores) -> bool:
    """Whether scores are of weights that their run no longer keeps; of what records no weights, that cannot be told."""
    made = scores.facts.weights_sha256
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
