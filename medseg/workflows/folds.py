"""All folds of a datalist: one run per fold below one folder, and their out-of-fold cases pooled."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from medseg.data import read_datalist
from medseg.engines import write_scores
from medseg.engines.run_files import read_scores
from medseg.errors import ConfigError, ModelError
from medseg.workflows.evaluation import evaluate, kept_checkpoints
from medseg.workflows.folder_lock import writes_into
from medseg.workflows.run_folder import read_facts, write_facts
from medseg.workflows.training import train

__all__ = ["evaluate_checkpoints", "evaluate_folds", "fold_runs", "train_folds"]

logger = logging.getLogger("medseg")


def fold_runs(run: str | Path) -> list[Path]:
    """The runs ``fold0``, ``fold1``, … below a folder, in order; empty where it is a single run."""
    folder = Path(run)
    found = [
        path for path in folder.glob("fold*") if path.name[4:].isdigit() and (path / "configs" / "train.yaml").is_file()
    ]
    return sorted(found, key=lambda path: int(path.name[4:]))


def train_folds(
    *, output: str | Path, json_list: str | Path, data_dir: str | Path | None = None, **settings: Any
) -> Path:
    """``train`` for every fold of the datalist (five made on the spot where it names none); finished folds are left
    alone.
    """
    datalist = read_datalist(json_list, data_dir)
    folds = datalist.folds() or list(range(min(5, len(datalist.sections["training"]))))
    if len(folds) < 2:
        raise ConfigError(
            f"{json_list} has {len(folds)} fold; --fold all needs two or more. Train with --fold {folds[0]}."
        )
    for fold in folds:
        logger.info("fold %d of %d", fold, len(folds))
        train(output=Path(output) / f"fold{fold}", json_list=json_list, data_dir=data_dir, fold=fold, **settings)
    return Path(output).resolve()


@writes_into("run")
def evaluate_folds(run: str | Path, *, into: str | None = None, **settings: Any) -> dict[str, Any]:
    """``evaluate`` each fold's run and pool their out-of-fold cases into ``metrics.json`` of the folder above.

    Raises:
        ConfigError: another section than the validation cases, which every fold would score: there is nothing to pool.
    """
    if settings.get("section", "validation") != "validation":
        raise ConfigError(
            f"--section {settings['section']} with a folder of folds: every fold would score the same cases. Name one "
            "fold's run, or join the folds with `medseg ensemble`."
        )
    folders = fold_runs(run)
    cases: dict[str, Any] = {}
    content: dict[str, Any] = {}
    for folder in folders:
        content = evaluate(folder, into=into, **settings)
        cases |= read_scores(folder / (into or ".") / "metrics.json")["cases"]
    facts = {key: content[key] for key in ("space", "unit", "surface_dice_tolerance_mm")}
    restored = {case: {label: _numbers(row) for label, row in rows.items()} for case, rows in sorted(cases.items())}
    content = write_scores(restored, Path(run) / (into or "."), facts | {"folds": [f.name for f in folders]})
    if into is None:
        write_facts(run, mean_dice=content["mean_dice"], **_pooled_facts([read_facts(folder) for folder in folders]))
    return content


def evaluate_checkpoints(run: str | Path, **settings: Any) -> dict[str, dict[str, Any]]:
    """Score every checkpoint that a run, or each of its folds, keeps; name -> the content of its ``metrics.json``.

    The results of ``best`` are the run's own, those of the others lie in ``scores/<name>``.

    Raises:
        ConfigError: another section than the validation cases: a test set is no place to choose a model.
        ModelError: nothing is kept.
    """
    if settings.get("section", "validation") != "validation":
        raise ConfigError(
            f"--checkpoint all on section '{settings['section']}' would choose the model on these cases; choose it on "
            "the validation cases, then score the one that you chose."
        )
    folders = fold_runs(run)
    kept = [kept_checkpoints(folder) for folder in folders or [Path(run)]]
    names = [name for name in kept[0] if all(name in other for other in kept)]
    if not names:
        raise ModelError(f"{run} keeps no checkpoint that all its folds have; train it first.")
    score = evaluate_folds if folders else evaluate
    return {
        name: score(run, checkpoint=name, into=None if name == "best" else f"scores/{name}", **settings)
        for name in names
    }


def _pooled_facts(folds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the folds agree on, the means of their figures per case, their largest memory, and their total time."""
    same = ("network", "parameters", "multiply_adds_per_window", "multiply_adds_without", "measured_on")
    joins: dict[str, Callable[[list[Any]], Any]] = {
        "seconds_per_case": fmean,
        "windows_per_case": fmean,
        "multiply_adds_per_case": lambda values: round(fmean(values)),
        "peak_memory_bytes": max,
        "training_seconds": sum,
    }
    pooled = {key: folds[0][key] for key in same if key in folds[0] and all(f.get(key) == folds[0][key] for f in folds)}
    return pooled | {key: join([f[key] for f in folds]) for key, join in joins.items() if all(key in f for f in folds)}


def _numbers(row: dict[str, Any]) -> dict[str, float]:
    """JSON's null is an undefined score again."""
    return {score: float("nan") if value is None else float(value) for score, value in row.items()}
