"""Folders that stand for several runs to be joined: the folds of one training, or what `medseg best` chose."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from medseg.data.content import content_hash
from medseg.errors import DataError, ModelError
from medseg.metrics import CleanupRules
from medseg.storage import read_table
from medseg.workflows.checkpoints import WEIGHTS
from medseg.workflows.folds import fold_runs, require_all_folds

__all__ = ["BEST", "JoinedRuns", "joined_runs"]

logger = logging.getLogger("medseg")

BEST = "best.json"
_FORM = {"members": [str], "weights_sha256": [str], "rules": {str: dict}}


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
        ModelError: a run that it names has no weights, or a fold is lost (``require_all_folds``).
    """
    place = Path(folder)
    if (place / "configs").is_dir():
        return None
    if (place / BEST).is_file():
        return _chosen(place)
    folds = fold_runs(place)
    if not folds:
        return None
    require_all_folds(place, folds)
    return JoinedRuns(tuple(folds))


def _chosen(place: Path) -> JoinedRuns:
    """What ``best.json`` names; warns of runs that were trained again since."""
    file = place / BEST
    what = "the choice of `medseg best`; run it again"
    table = read_table(file, what, _FORM)
    runs = [(place / member).resolve() for member in table["members"]]
    hashes = table["weights_sha256"]
    if not 2 <= len(set(runs)) == len(runs) == len(hashes):
        raise DataError(f"{file} is damaged ({len(set(runs))} different runs in {len(runs)} entries); expected {what}.")
    lost = [run for run in runs if not (run / WEIGHTS).is_file()]
    if lost:
        raise ModelError(
            f"{file} names {len(runs)} runs, of which {len(lost)} have no weights, such as {lost[0]}; expected all of "
            "them. Put them back, or run `medseg best` again."
        )
    _warn_of_changes(file, runs, hashes)
    return JoinedRuns(tuple(runs), table["rules"])


def _warn_of_changes(file: Path, runs: Sequence[Path], hashes: Sequence[str]) -> None:
    changed = [run for run, known in zip(runs, hashes, strict=True) if content_hash(run / WEIGHTS) != known]
    if changed:
        logger.warning(
            "%d of %d runs have other weights than when %s was written, such as %s: its score and its post-processing "
            "are not theirs. Validate them and run `medseg best` again.",
            len(changed),
            len(runs),
            file,
            changed[0],
        )
