"""Scores of all folds, whose out-of-fold cases are pooled, and of all checkpoints."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from medseg.engines.run_facts import RunFacts, read_facts, write_facts
from medseg.engines.scores import write_scores
from medseg.errors import ConfigError, ModelError
from medseg.settings import takes
from medseg.storage import write_json
from medseg.workflows.checkpoints import kept_checkpoints
from medseg.workflows.evaluation import EvaluateSettings, evaluate
from medseg.workflows.folder_lock import writes_into

__all__ = ["evaluate_checkpoints", "evaluate_folds", "fold_runs"]


def fold_runs(run: str | Path) -> list[Path]:
    """The runs ``fold0``, ``fold1``, … below a folder, in order; empty where it is a single run."""
    folder = Path(run)
    found = [
        path for path in folder.glob("fold*") if path.name[4:].isdigit() and (path / "configs" / "train.yaml").is_file()
    ]
    return sorted(found, key=lambda path: int(path.name[4:]))


@takes(EvaluateSettings)
@writes_into("run")
def evaluate_folds(settings: EvaluateSettings) -> dict[str, Any]:
    """``evaluate`` each fold's run and pool their out-of-fold cases into ``metrics.json`` of the folder above.

    Cases that several folds score, such as a test section, are not pooled: ``folds.json`` in a folder of the section's
    name has the score of each fold, their mean and their standard deviation over folds.

    Returns:
        The content of ``metrics.json`` or ``folds.json``.

    Raises:
        ConfigError: the cases are validation cases of some folds and not of others.
    """
    run = Path(settings.run)
    folders = fold_runs(run)
    selections = [replace(settings, run=folder).selection() for folder in folders]
    roles = sorted({selection.role for selection in selections})
    ids = [case.id for selection in selections for case in selection.cases]
    pooled = roles == ["validation"] and len(set(ids)) == len(ids)
    if len(roles) > 1 or (roles == ["validation"] and not pooled):
        raise ConfigError(
            f"The folds of {run} would score cases as {' and '.join(roles)}, some of them twice; expected each "
            "fold's own validation cases, or the same test cases for all. Name one fold's run."
        )
    place = settings.place(selections[0])
    contents = [evaluate.of(replace(settings, run=folder)) for folder in folders]
    if not pooled:
        return _spread(run / place, [f.name for f in folders], contents)
    cases = {case: rows for content in contents for case, rows in content["cases"].items()}
    restored = {case: {label: _numbers(row) for label, row in rows.items()} for case, rows in sorted(cases.items())}
    content = write_scores(restored, run / place, _shared(contents) | {"folds": [f.name for f in folders]})
    if not place:
        facts = _pooled_facts([read_facts(folder) for folder in folders])
        write_facts(run, facts | RunFacts(mean_dice=math.nan if content["mean_dice"] is None else content["mean_dice"]))
    return content


_OF_EACH = ("fold", "weights", "weights_sha256", "settings_sha256", "datalist", "predictions", "biases")


def _shared(contents: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What ``metrics.json`` of all folds say of their scores, beside the scores."""
    results = ("mean_dice", "labels", "pooled", "cases", "postprocessing", *_OF_EACH)
    facts = {key: value for key, value in contents[0].items() if key not in results}
    biases = dict.fromkeys(text for content in contents for text in content.get("biases", ()))
    files = {key: value for content in contents for key, value in content.get("files_sha256", {}).items()}
    return facts | {"biases": list(biases), "files_sha256": files}


def _spread(directory: Path, names: Sequence[str], contents: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Scores of several networks on the same cases: mean and standard deviation over folds, in ``folds.json``."""
    means = [math.nan if content["mean_dice"] is None else content["mean_dice"] for content in contents]
    labels: dict[str, Any] = {}
    for label, rows in contents[0]["labels"].items():
        labels[label] = {}
        for score, row in rows.items():
            values = [content["labels"][label][score]["mean"] for content in contents]
            known = [value for value in values if value is not None]
            labels[label][score] = {"mean": fmean(known) if known else None, "cases": row["cases"]}
    content = {
        "mean_dice": fmean(means),
        "sd_over_folds": stdev(means) if len(means) > 1 else None,
        "folds": dict(zip(names, means, strict=True)),
        **{key: value for key, value in _shared(contents).items() if key != "files_sha256"},
        "postprocessing": contents[0]["postprocessing"],
        "scored_cases": len(contents[0]["cases"]),
        "labels": labels,
    }
    write_json(directory / "folds.json", content)
    return content


@takes(EvaluateSettings)
def evaluate_checkpoints(settings: EvaluateSettings) -> dict[str, dict[str, Any]]:
    """Score a run's validation cases in the original image space: Dice, HD95 and surface Dice per case and label.

    A folder of folds is scored by ``evaluate_folds``. Of all checkpoints the results of ``best`` are the run's own,
    those of the others lie in ``scores/<name>``.

    Returns:
        Checkpoint -> the content of its ``metrics.json``; every checkpoint that the run, or each of its folds, keeps,
        where the settings' ``checkpoint`` is all.

    Raises:
        ConfigError: all checkpoints on other cases than the validation cases: a test set must not choose a model.
        ModelError: nothing is kept.
    """
    run = Path(settings.run)
    folders = fold_runs(run)
    score = evaluate_folds if folders else evaluate
    if settings.checkpoint != "all":
        return {settings.checkpoint: score.of(settings)}
    for selection in (replace(settings, run=folder).selection() for folder in folders or [run]):
        if selection.role != "validation":
            raise ConfigError(
                f"--checkpoint all on {selection.words} would choose the model on these cases; choose it on the "
                "validation cases, then score the one that you chose."
            )
    kept = [kept_checkpoints(folder) for folder in folders or [run]]
    names = [name for name in kept[0] if all(name in other for other in kept)]
    if not names:
        raise ModelError(f"{run} keeps no checkpoint that all its folds have; train it first.")
    apart = "" if settings.space == "source" else f"_{settings.space}"
    return {
        name: score.of(replace(settings, checkpoint=name, into=None if name == "best" else f"scores/{name}{apart}"))
        for name in names
    }


def _pooled_facts(folds: Sequence[RunFacts]) -> RunFacts:
    """What the folds agree on, the means of their figures per case, their largest memory, and all of their training."""
    same = ("network", "parameters", "multiply_adds_per_window", "multiply_adds_without", "measured_on")
    joins: dict[str, Callable[[list[Any]], Any]] = {
        **dict.fromkeys(same, lambda values: values[0] if len(set(values)) == 1 else None),
        "seconds_per_case": fmean,
        "windows_per_case": fmean,
        "multiply_adds_per_case": lambda values: round(fmean(values)),
        "peak_memory_bytes": max,
        **dict.fromkeys(("training_seconds", "cpu_seconds", "iterations", "validations"), sum),
        "schedule_completed": all,
    }
    values = {name: [getattr(fold, name) for fold in folds] for name in joins}
    return RunFacts(**{name: join(values[name]) for name, join in joins.items() if None not in values[name]})


def _numbers(row: dict[str, Any]) -> dict[str, float]:
    """JSON's null is an undefined score again."""
    return {score: float("nan") if value is None else float(value) for score, value in row.items()}
