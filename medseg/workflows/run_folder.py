"""The run folder: what is in it, and when a command may resume in it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medseg.bundle.folder import Bundle
from medseg.data import Case
from medseg.data.files import is_there
from medseg.data.fingerprint import DataFingerprint
from medseg.engines.run_facts import RunFacts
from medseg.errors import ConfigError, DataError

__all__ = ["differences", "fold_runs", "refuse_run_folder", "require_run", "require_same_data", "trained_on"]

logger = logging.getLogger("medseg")


def require_run(path: Bundle | str | Path) -> Bundle:
    """The run in a folder.

    Raises:
        ConfigError: there is no run.
    """
    run = Bundle.at(path)
    if not run.has("train") or not Path(str(path)).is_dir():  # the name of a bundle is not a run
        raise ConfigError(
            f"{path} is not a run: configs/train.yaml is missing. Train one with `medseg train --output {path}`."
        )
    return run


def fold_runs(run: str | Path) -> list[Path]:
    """The runs ``fold0``, ``fold1``, … below a folder, in order; empty where it is a single run."""
    folder = Path(run)
    found = [
        path for path in folder.glob("fold*") if path.name[4:].isdigit() and (path / "configs" / "train.yaml").is_file()
    ]
    return sorted(found, key=lambda path: int(path.name[4:]))


def refuse_run_folder(output: str | Path) -> None:
    """The folder of a run or of its folds, and that of its validation predictions, which its scores are of, hold
    nothing else.

    Raises:
        ConfigError: it is one of them.
    """
    target = Path(output).resolve()
    for run in (target, target.parent if target.name.startswith("predictions") else target):
        if (run / "configs" / "train.yaml").is_file() or fold_runs(run):
            raise ConfigError(f"--output {output} belongs to the run {run} itself; name a folder of its own.")


def differences(old: Any, new: Any, prefix: str = "") -> dict[str, tuple[Any, Any]]:
    """The ids on which two configs differ -> (old, new)."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        found: dict[str, tuple[Any, Any]] = {}
        for key in dict.fromkeys((*old, *new)):
            name = f"{prefix}::{key}" if prefix else str(key)
            found |= differences(old.get(key), new.get(key), name)
        return found
    return {} if old == new else {prefix: (old, new)}


def require_same_data(run: str | Path, facts: RunFacts, cases: Sequence[Case]) -> bool:
    """Hold cases against the fingerprint of the data that a run was trained on and validated with.

    Args:
        run: name of the run in sentences.
        facts: facts of the run.
        cases: what is held against them.

    Returns:
        Whether there is one: runs of earlier versions have none.

    Raises:
        DataError: images or labels of these cases differ, wherever they lie now.
    """
    stored = facts.data
    if stored is None:
        logger.info("%s has no fingerprint of its data: whether they changed since its training is not known", run)
        return False
    known = [case for case in cases if case.id in stored.cases and all(is_there(file) for file in case.files)]
    changed = stored.changes(DataFingerprint.of(known))  # missing files are reported with the other problems of cases
    if changed:
        shown = ", ".join(f"{case} ({what})" for case, what in list(changed.items())[:5])
        raise DataError(
            f"{run}: the data are not those of its training: {shown}{', …' if len(changed) > 5 else ''} changed, "
            f"{len(changed)} of {len(known)} cases; expected the same files, in any folder. Restore them, or train on "
            "the new ones into another --output folder."
        )
    return True


def trained_on(facts: RunFacts, files: Mapping[str, Sequence[str]]) -> set[str]:
    """The cases among these whose images a run was trained on, whatever they are called there, itself or by the weights
    that it started from.

    Args:
        facts: facts of the run. Those of earlier versions, and of ensembles, know their own cases by id.
        files: case id -> hashes of its files (``content_hash``).
    """
    images = facts.seen_images
    by_id = set(facts.training_cases or ()) if facts.data is None else set()
    return {case for case, hashes in files.items() if case in by_id or images & set(hashes)}
