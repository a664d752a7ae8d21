"""Scores of all folds, whose out-of-fold cases are pooled, and of all checkpoints."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from medseg.data import read_datalist
from medseg.engines.run_facts import RunFacts, read_facts, write_facts
from medseg.engines.run_files import weights_of_folds
from medseg.errors import ConfigError, ModelError
from medseg.metrics import FoldScores, ScoreFacts, Scores, Summary
from medseg.settings import takes
from medseg.storage import write_json
from medseg.workflows.checkpoints import kept_checkpoints
from medseg.workflows.comparable import uneven_effort
from medseg.workflows.evaluation import EvaluateSettings
from medseg.workflows.folder_lock import writes_into
from medseg.workflows.run_folder import fold_runs
from medseg.workflows.validation import evaluate

__all__ = ["evaluate_checkpoints", "evaluate_folds", "fold_runs", "pool_folds", "require_all_folds"]

logger = logging.getLogger("medseg")

_TOLERANCE = 0.1  # folds have a case more or less


def require_all_folds(run: Path, folders: Sequence[Path]) -> None:
    """Hold the runs of a cross-validation against its records, and warn where its datalist has more folds.

    Args:
        run: the folder above.
        folders: its ``fold_runs``.

    Raises:
        ModelError: a fold whose cases are in the scores of the whole is lost.
    """
    there = [folder.name for folder in folders]
    scores = Scores.found(run)
    scored = scores.facts.folds or [] if scores is not None else []
    lost = [name for name in scored if name not in there]
    if lost:
        raise ModelError(
            f"{run} lacks {', '.join(lost)}: its metrics.json is of {len(scored)} folds, of which "
            f"{len(there)} are there; expected all of them. Put the others back, or run `medseg validate` again to "
            "score those that are there."
        )
    folds = [f"fold{fold}" for fold in read_datalist(folders[0] / "configs" / "datalist.json").all_folds()]
    missing = [name for name in folds if name not in there]
    if missing:
        logger.warning(
            "%s has %d of the %d folds of its datalist; %s not there. Train the others with the same command "
            "(--fold all), or put them back.",
            run,
            len(there),
            len(folds),
            f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'}",
        )


@takes(EvaluateSettings)
@writes_into("run")
def evaluate_folds(settings: EvaluateSettings) -> Scores | FoldScores:
    """``evaluate`` each fold's run and pool their out-of-fold cases into ``metrics.json`` of the folder above.

    Cases that several folds score, such as a test section, are not pooled: ``folds.json`` in a folder of the section's
    name has the score of each fold, their mean and their standard deviation over folds.

    Returns:
        The scores, as ``metrics.json`` or ``folds.json`` has them.

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
    of_each = [evaluate.of(replace(settings, run=folder)) for folder in folders]
    if not pooled:
        spread = _spread([folder.name for folder in folders], of_each, _unlike(folders))
        write_json(run / place / "folds.json", spread.to_table())
        return spread
    return pool_folds(run, folders, of_each, place)


def pool_folds(run: Path, folders: Sequence[Path], of_each: Sequence[Scores], place: str = "") -> Scores:
    """Pool the out-of-fold cases of folds into the folder above them.

    Args:
        run: the folder above.
        folders: runs of the folds.
        of_each: their scores, of cases that no two of them share.
        place: folder of the pooled scores in ``run``; empty for its own, which become facts of ``run`` too.
    """
    cases = dict(sorted((case, rows) for scores in of_each for case, rows in scores.cases.items()))
    files = {case: hashes for scores in of_each for case, hashes in (scores.facts.files_sha256 or {}).items()}
    subjects = {case: name for scores in of_each for case, name in (scores.facts.subjects or {}).items()}
    names = [folder.name for folder in folders]
    facts = replace(
        _shared(of_each, _unlike(folders)),
        weights_sha256=weights_of_folds(of_each),
        files_sha256=files,
        folds=names,
        subjects=subjects or None,
    )
    asked = sum(scores.asked or len(scores.cases) for scores in of_each)
    joined = replace(Scores.of(cases, of_each[0].definition, facts), asked=asked, scored=len(cases))
    joined.write(run / place)
    if not place:
        pooled_facts = _pooled_facts([read_facts(folder) for folder in folders])
        write_facts(run, pooled_facts | RunFacts(mean_dice=joined.mean_dice))
    return joined


def _unlike(folders: Sequence[Path]) -> list[str]:
    """Sentences on folds that were not trained as long as others, or not to the end; logged as well."""
    facts = {folder.name: read_facts(folder) for folder in folders}
    found = [uneven_effort("folds", facts, key, _TOLERANCE) for key in ("iterations", "validations")]
    unfinished = [name for name, one in facts.items() if one.status not in (None, "finished")]
    cut = [name for name, one in facts.items() if one.schedule_completed is False]
    found += [f"The training is not finished in {', '.join(unfinished)}."] if unfinished else []
    found += [f"The learning-rate schedule was cut before its end in {', '.join(cut)}."] if cut else []
    found = [text for text in found if text]
    for text in found:
        logger.warning("%s", text)
    return found


def _shared(of_each: Sequence[Scores], unlike: Sequence[str]) -> ScoreFacts:
    """What the scores of all folds are of, without what is each fold's own."""
    biases = dict.fromkeys([*unlike, *(text for scores in of_each for text in scores.facts.biases or ())])
    chosen = dict.fromkeys(text for scores in of_each for text in scores.facts.chosen or ())
    return replace(
        of_each[0].facts,
        fold=None,
        weights=None,
        weights_sha256=None,
        settings_sha256=None,
        datalist=None,
        files_sha256=None,
        biases=list(biases),
        chosen=list(chosen),
    )


def _spread(names: Sequence[str], of_each: Sequence[Scores], unlike: Sequence[str]) -> FoldScores:
    """Scores of several networks on the same cases: mean and standard deviation over folds."""
    means = [scores.mean_dice for scores in of_each]
    labels: dict[str, dict[str, Summary]] = {}
    for label, rows in of_each[0].labels.items():
        labels[label] = {}
        for score, row in rows.items():
            known = [mean for scores in of_each if not math.isnan(mean := scores.labels[label][score].mean)]
            labels[label][score] = Summary(fmean(known) if known else math.nan, row.cases)
    return FoldScores(
        mean_dice=fmean(means),
        facts=_shared(of_each, unlike),
        definition=of_each[0].definition,
        labels=labels,
        sd_over_folds=stdev(means) if len(means) > 1 else None,
        folds=dict(zip(names, means, strict=True)),
        scored_cases=len(of_each[0].cases),
    )


@takes(EvaluateSettings)
def evaluate_checkpoints(settings: EvaluateSettings) -> dict[str, Scores | FoldScores]:
    """Score a run's validation cases in the original image space: Dice, HD95 and surface Dice per case and label.

    A folder of folds is scored by ``evaluate_folds``. Of all checkpoints the results of ``best`` are the run's own,
    those of the others lie in ``scores/<name>``.

    Returns:
        Checkpoint -> its scores; every checkpoint that the run, or each of its folds, keeps,
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
    return {
        name: score.of(
            replace(settings, checkpoint=name, into=None if name == "best" else f"scores/{name}{settings.ending}")
        )
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
