"""Folders that stand for several runs to be joined: the folds of one training, or what `medseg best` chose."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from medseg.metrics import CleanupRules
from medseg.storage import read_table
from medseg.workflows.folds import fold_runs

__all__ = ["BEST", "JoinedRuns", "joined_runs"]

BEST = "best.json"
_FORM = {"members": [str], "rules": {str: dict}}


@dataclass(frozen=True)
class JoinedRuns:
    """Several runs in the place of one.

    Attributes:
        runs: their folders.
        rules: post-processing that was chosen for all together; ``None``: what they have alike.
    """

    runs: tuple[Path, ...]
    rules: CleanupRules | None = None


def joined_runs(folder: str | Path) -> JoinedRuns | None:
    """What a folder stands for; ``None`` where it is a run, or something else.

    Raises:
        DataError: ``best.json`` is damaged.
    """
    place = Path(folder)
    if (place / "configs").is_dir():
        return None
    if (place / BEST).is_file():
        table = read_table(place / BEST, "the choice of `medseg best`; run it again", _FORM)
        return JoinedRuns(tuple(place / member for member in table["members"]), table["rules"])
    folds = fold_runs(place)
    return JoinedRuns(tuple(folds)) if folds else None
