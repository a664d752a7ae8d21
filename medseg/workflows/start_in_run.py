"""A start and the folder of its run: it is placed into a new one, or held against the run that is there."""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from medseg.bundle.compose import command
from medseg.bundle.document import rewrite_training, stored_training, training_settings
from medseg.bundle.dump import rewrite_yaml
from medseg.bundle.folder import INITIAL, Bundle
from medseg.bundle.recipe import Layer, Recipe
from medseg.data.fingerprint import DataFingerprint
from medseg.data.run_settings import SET, read_origins
from medseg.engines.log_file import log_to, remove_log
from medseg.engines.run_facts import RunFacts, read_facts, write_facts
from medseg.errors import ConfigError, ModelError
from medseg.weights import save_file
from medseg.workflows.fitted import without_fitted
from medseg.workflows.folder_lock import LOCK
from medseg.workflows.new_bundle import announce
from medseg.workflows.run_folder import differences, require_same_data
from medseg.workflows.same_settings import OF_MACHINE, refuse_other, stored_list
from medseg.workflows.start import NOT_USED, Start
from medseg.workflows.stored_list import remember_list

__all__ = ["changed_training", "hold_against", "prepare_run", "refuse_foreign", "require_state"]

logger = logging.getLogger("medseg")

_LENGTH = {"epochs", "max_minutes"}
_MAY_CHANGE = _LENGTH | {"val_interval"}
# A run keeps what was planned for it on its first machine and by its version, unless the user sets another.
_PLANNED = OF_MACHINE | {"precision", "validate::inferer::precision"}
_FITTED = {"iterations", "validation_cases"}  # may then differ from what a config starts with
_FRESH = "configs.new"  # in a run: the bundle until all of it is written
_OWN = {"log.txt", _FRESH, LOCK}  # what a start that was killed leaves behind


def refuse_foreign(run: Path) -> None:
    """Refuse a folder with other content, which is not a place for a run: nothing is overwritten.

    Raises:
        ConfigError: it has files of others.
    """
    if run.is_file():
        raise ConfigError(f"{run} is a file; --output needs a folder of its own. Name another.")
    if not run.is_dir() or (run / "configs" / "train.yaml").is_file():
        return
    found = sorted(item.name for item in run.iterdir() if item.name not in _OWN)
    if found:
        raise ConfigError(
            f"{run} is not empty ({', '.join(found[:3])}{', …' if len(found) > 3 else ''}) and holds no run; "
            "use another --output folder, or empty it."
        )


def prepare_run(start: Callable[[], Start], run: Path) -> RunFacts:
    """Make a start the run of its folder: write the bundle, or hold it against the one that is there and take over
    what may change.

    A start that is refused leaves the folder as it was.

    Args:
        start: gives the start; what it logs is part of the run's log.
        run: the folder.

    Returns:
        The facts of the run; of a finished one nothing changes.

    Raises:
        ConfigError, DataError, ModelError: the start is refused.
    """
    logged = (run / "log.txt").exists()
    log_to(run)
    try:
        return _prepared(start(), run)
    finally:
        shutil.rmtree(run / _FRESH, ignore_errors=True)
        if not (run / "configs").exists() and not logged:
            remove_log(run)


def _prepared(start: Start, run: Path) -> RunFacts:
    known = read_facts(run)
    same_data = known != RunFacts() and require_same_data(run, known, start.cases)
    now = RunFacts(
        status="started",
        device=str(start.device),
        gpu_bytes=start.gpu_bytes,
        seed=start.settings.seed,
        data=DataFingerprint.of(start.cases),
        training_cases=tuple(case.id for case in start.training),
        validation_cases=tuple(case.id for case in start.validation),
        earlier_images=known.earlier_images or tuple(sorted(start.earlier_images)) or None,
    )
    if (run / "configs").exists():
        bundle = Bundle(run)
        changes = hold_against(start, bundle, known, same_data=same_data)
        require_state(run, known)
        announce(training_settings(changed_training(bundle, changes)), start.title)
        nothing = known.status == "finished" and not changes.keys() & _LENGTH
        _take_over(bundle, changes, trains=not nothing)
    else:
        announce(start.draft.settings, start.title, start.draft.mirrored)
        nothing = False
        _place(start, run)
        now |= RunFacts(started=time.strftime("%Y-%m-%dT%H:%M:%S%z"))
    remember_list(run, start.datalist)
    if nothing:
        logger.info("%s is finished (%d epochs); nothing to do", run, known.epochs_done or 0)
        return known
    if start.settings.epochs is not None and start.settings.max_minutes is not None:
        logger.warning("--max_minutes decides when the training ends, not --epochs")
    logger.info(
        "%d training and %d validation cases, device %s, run folder %s",
        len(start.training), len(start.validation), start.device, run,
    )  # fmt: skip
    return write_facts(run, now, known)


def _place(start: Start, run: Path) -> None:
    """Write all that the run begins with, then move it into the folder."""
    fresh = run / _FRESH
    shutil.rmtree(fresh, ignore_errors=True)  # of a start that was killed
    start.draft.write(fresh)
    if start.initial is not None:
        save_file(start.initial, fresh / INITIAL)
    if start.previous is not None:
        start.previous.copy(fresh)
    for item in fresh.iterdir():
        shutil.move(str(item), str(run / item.name))


def hold_against(start: Start, bundle: Bundle, known: RunFacts, *, same_data: bool) -> dict[str, Any]:
    """Hold a start against the run that is there.

    Args:
        start: start of the same run.
        bundle: bundle of the run.
        known: its facts.
        same_data: images and labels are those that the run was started with, so that they may lie elsewhere now.

    Returns:
        What changes in its config, as it may: id -> value.

    Raises:
        ConfigError: another setting or datalist.
    """
    draft, run = start.draft, bundle.root
    old, new = (json.loads(json.dumps(tree)) for tree in (bundle.recipe("train").tree, draft.train.tree))
    said = {key for key in _MAY_CHANGE if (origin := draft.train.origin(key)) and origin.reason == SET}
    said |= {"max_minutes"} if "epochs" in said else set()  # which the epochs then replace
    before = read_origins(run)
    free = said | {key for key in _MAY_CHANGE if key not in before or before[key][1] in (SET, NOT_USED)}
    free |= {"epochs"} if "max_minutes" in said else set()
    free |= _FITTED if known.fitted_to_time else set()
    free |= {"dataset_dir"} if same_data else set()
    unlike = _PLANNED | (new.keys() - old.keys())
    free |= {key for key in unlike if (origin := draft.train.origin(key)) and origin.kind == "plan"}
    update = {key: new[key] for key in sorted(said | {"dataset_dir"}) if new.get(key) != old.get(key)}
    if "epochs" in said and "max_minutes" in update:
        update["epochs"] = new["epochs"]  # also where it is the number that was not used
    if known.status == "finished" and not update.keys() & _LENGTH:
        free.discard("val_interval")  # nothing is left to validate
    changed = {key: pair for key, pair in differences(old, new).items() if key not in free}
    changed = {key: pair for key, pair in changed.items() if not _is_wiring(key, run, draft.train)}
    if stored_list(run, new["dataset_dir"]) != draft.datalist.as_stored():
        changed["datalist"] = ("as stored", "another content")
    refuse_other(run, changed)
    if update.keys() & _LENGTH:
        _refuse_shorter(run, known, old, new)
    return update


def _refuse_shorter(run: Path, known: RunFacts, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """Refuse to train less than the run was started with or, where that was by another measure, has trained.

    A training that is not finished may get fewer minutes.
    """
    minutes = old.get("max_minutes")
    if new.get("max_minutes") is None:
        unit, asked, started = "epoch", new["epochs"], old["epochs"] if minutes is None else None
        trained: float = known.epochs_done or 0
    elif known.status == "finished":
        unit, asked, started = "minute", new["max_minutes"], minutes
        seconds = known.cpu_seconds if new.get("clock") == "cpu" else known.training_seconds
        trained = round((seconds or 0) / 60, 2)
    else:
        return
    least, was = (trained, "was trained for") if started is None else (started, "was started with")
    if asked < least:
        raise ConfigError(
            f"{run} {was} {least:g} {unit}{'' if least == 1 else 's'}; expected no fewer, got {asked:g}. Use another "
            "--output folder."
        )


def changed_training(bundle: Bundle, changes: Mapping[str, Any]) -> Recipe:
    """What a run trains once the changes of ``hold_against`` are taken over."""
    return stored_training(bundle, *_layers(bundle, changes))


def _layers(bundle: Bundle, changes: Mapping[str, Any]) -> list[Layer]:
    timed = changes.get("max_minutes") is not None
    unused = {"epochs": bundle.trained["epochs"]} if timed else {}
    return [command(changes, SET), command(unused, NOT_USED)]


def _is_wiring(id_: str, run: Path, train: Recipe) -> bool:
    """Whether a value is of ``bundle/base`` in the run and now, so that not a setting differs but medseg's version; the
    run keeps its own.
    """
    before = {place: where for place, (where, _) in read_origins(run).items()}
    now = {place: origin.where for place, origin in train.origins.items()}
    known = [
        where for places in (before, now) for place, where in places.items() if f"{place}::".startswith(f"{id_}::")
    ]
    return bool(before) and all(where.startswith("base/") for where in known)


def require_state(run: Path, known: RunFacts) -> None:
    """Refuse to start a run again from scratch over what it has learned.

    Raises:
        ModelError: it was trained, and no state of it is left.
    """
    if known.epochs_done and not any((run / "checkpoints").glob("*.pt")):
        raise ModelError(
            f"{run} was trained for {known.epochs_done} epochs, but checkpoints/ holds no state to resume from; "
            "restore it, or train into another --output folder."
        )


def _take_over(bundle: Bundle, changes: Mapping[str, Any], *, trains: bool) -> None:
    """Write what changes into the configs of a run; one that trains on loses what was fitted to its weights."""
    if bundle.has("inference"):
        tree = bundle.recipe("infer").tree
        kept = without_fitted(tree) if trains else dict(tree)
        if trains and kept != tree:
            logger.warning("post-processing rules and temperature were fitted to the weights so far: they are removed")
        moved = kept | {key: value for key, value in changes.items() if key == "dataset_dir"}
        if moved != tree:
            rewrite_yaml(moved, bundle.config("inference"))
    if "dataset_dir" in changes:
        logger.info("the data lie in %s now; images and labels are the same", changes["dataset_dir"])
    if changes:
        rewrite_training(bundle, *_layers(bundle, changes))
    if changes.keys() & _LENGTH:
        minutes = changes.get("max_minutes")
        logger.warning(
            "resuming to %s: the learning-rate schedule is stretched to the new length, so it jumps up from where it "
            "was",
            f"{changes['epochs']} epochs" if minutes is None else f"{minutes:g} minutes",
        )
