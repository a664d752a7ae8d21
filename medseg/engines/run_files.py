"""Read what a run left: its curves, what chose its weights, and whether its scores are of those that it keeps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from medseg.data.content import content_hash
from medseg.engines.epoch_table import EPOCHS, read_rows
from medseg.engines.run_facts import RunFacts
from medseg.metrics import Scores

__all__ = ["Curves", "is_outdated", "read_history", "scored_weights", "weights_of_folds"]


@dataclass(frozen=True)
class Curves:
    """What a training recorded of its course; what it did not record is empty.

    Attributes:
        epochs: columns of ``metrics.csv``, one value per epoch, NaN where there is none.
        losses: ``(iterations, 2)``: place in epochs (the second epoch runs from 1 to 2), and loss.
        labels: label -> ``(validations, 2)``: epoch, and mean Dice over the validation cases.
    """

    epochs: Mapping[str, np.ndarray]
    losses: np.ndarray
    labels: Mapping[str, np.ndarray]

    @classmethod
    def of(cls, run: Path) -> Curves:
        """Those of a run folder.

        Raises:
            DataError: a file is damaged.
        """
        losses, labels = _losses(run / "losses.csv"), _label_curves(run / "validation_dice.csv")
        return cls(read_history(run / "metrics.csv"), losses, labels)


def is_outdated(run: str | Path, scores: Scores) -> bool:
    """Whether scores are of weights that their run no longer keeps, or, of folds, are not what these have now; of what
    records no weights, that cannot be told.
    """
    made, folds = scores.facts.weights_sha256, scores.facts.folds
    if made is not None and folds:
        of_each = [(Path(run) / fold, Scores.found(Path(run) / fold)) for fold in folds]
        known = [(place, found) for place, found in of_each if found is not None]
        other = made != weights_of_folds([found for _, found in known])
        return bool(known) and (other or any(is_outdated(*one) for one in known))
    kept = [Path(run) / "models" / "model.pt", *sorted((Path(run) / "checkpoints").glob("*.pt"))]
    kept = [path for path in kept if path.is_file()]
    return made is not None and bool(kept) and all(content_hash(path) != made for path in kept)


def weights_of_folds(scores: Sequence[Scores]) -> str | None:
    """SHA-256 of the hashes of the weights that the folds' scores are of; ``None`` where one is not recorded."""
    hashes = [one.facts.weights_sha256 for one in scores]
    return None if None in hashes else sha256(" ".join(map(str, hashes)).encode()).hexdigest()


def scored_weights(config: Mapping[str, Any], facts: RunFacts, checkpoint: str) -> str:
    """``last`` where no cases chose the weights, whatever their file is called; else the checkpoint's name.

    Args:
        config: config of the training.
        facts: facts of the training.
        checkpoint: name of the weights.
    """
    final = facts.validations == 0 or dict(config.get("checkpoint") or {}).get("select") == "final"
    return "last" if final and checkpoint == "best" else checkpoint


def read_history(path: str | Path) -> dict[str, np.ndarray]:
    """The columns of a ``metrics.csv``, one value per epoch, NaN where there is none.

    Raises:
        DataError: it is damaged.
    """
    rows = read_rows(path)
    columns = {name: np.array([_number(row.get(name)) for row in rows], dtype=float) for name in EPOCHS}
    return columns | {"epoch": columns["epoch"].astype(int)}


def _losses(path: Path) -> np.ndarray:
    rows = [(int(row["epoch"]), _number(row.get("loss"))) for row in read_rows(path)]
    epochs, counts = np.unique([epoch for epoch, _ in rows], return_counts=True)
    places = [epoch - 1 + np.arange(1, n + 1) / n for epoch, n in zip(epochs, counts, strict=True)]
    return np.column_stack([np.concatenate([[], *places]), [loss for _, loss in rows]])


def _label_curves(path: Path) -> Mapping[str, np.ndarray]:
    found: dict[str, list[tuple[float, float]]] = {}
    for row in read_rows(path):
        found.setdefault(str(row.get("label")), []).append((float(row["epoch"]), _number(row.get("dice"))))
    return {label: np.array(points) for label, points in found.items()}


def _number(value: str | None) -> float:
    try:
        return float(value or "nan")
    except ValueError:
        return math.nan
