"""Score label maps of any tool against references, by the same definitions as a run's own predictions."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from monai.transforms import Compose

from medseg.data.case import Case
from medseg.data.content import content_hash
from medseg.data.datalist_file import read_scored_labels
from medseg.data.label_pairs import LabelPairs, find_references, pair_label_maps, read_label_pair
from medseg.engines import CaseScores
from medseg.engines.cases import write_failures
from medseg.errors import CasesFailed, ConfigError, DataError, few
from medseg.faults import reason_of, unwrapped
from medseg.metrics import ScoredPredictions, ScoreFacts, Scores
from medseg.metrics.catalog import DEFAULT_METRICS
from medseg.reports.evaluation import write_evaluation_report
from medseg.settings import File, Folder, Named, Names, takes
from medseg.transforms import load
from medseg.version import __version__
from medseg.workflows.comparable import run_names
from medseg.workflows.run_folder import refuse_run_folder

__all__ = ["ScorePredictionsSettings", "score_predictions"]

logger = logging.getLogger("medseg")

_SHOWN = 5  # failures in a sentence


@dataclass(frozen=True)
class ScorePredictionsSettings:
    """Which label maps are scored, against what.

    Attributes:
        references: folder of the reference label maps, or a datalist of them.
        predictions: folder of one method's label maps, named as the cases or as their references. Of a network that
            nnU-Net trained, the folder of its fold_0, fold_1, ….
        labels: what the values mean: a datalist, nnU-Net's or the Decathlon's dataset.json, or {"labels": {name:
            value}}.
        output: folder for metrics.json, metrics_per_case.csv and report.html; one below it for each of several methods.
        metrics: scores beside Dice, as `medseg metrics` lists them (default: hd95,surface_dice).
        empty: rule for empty masks: penalty, reference_only, no_penalty or challenge. One for all scores
            (``medseg.metrics.empty.EmptyRule``); penalty:374 sets the distance.
        instances: treat values as instance numbers, such as of nuclei, all of the one label. With --metrics instances.
        section: section of the datalist (default: all labelled cases).
        partial: score only cases that both sides have, where some are missing or surplus.
    """

    references: Folder | File
    predictions: Named
    labels: File
    output: Folder
    _: KW_ONLY
    metrics: Names = DEFAULT_METRICS
    empty: str = "penalty"
    instances: bool = False
    section: str | None = None
    partial: bool = False


@takes(ScorePredictionsSettings)
def score_predictions(settings: ScorePredictionsSettings) -> dict[str, Scores]:
    """Score label maps of any tool against references: Dice, HD95 and surface Dice per case and label.

    Returns:
        Method -> its scores, as ``metrics.json`` has them.

    Raises:
        DataError: predictions are missing or surplus, and ``partial`` is not set; labels or references are not valid.
        CasesFailed: some cases could not be scored, listed in ``failures.json``; the scores are of the others.

    Examples:
        >>> listed, masks = "phantom/dataset.json", {"first": "runs/first/predictions"}
        >>> scores = medseg.score_predictions(listed, masks, listed, "scored", partial=True)
        >>> scores["first"].asked, scores["first"].scored
        (6, 2)
    """
    refuse_run_folder(settings.output)
    space = read_scored_labels(settings.labels)
    scorer = partial(CaseScores, space, metrics=settings.metrics, empty=settings.empty, facts={"space": "source"})
    if settings.instances and len(space.labels) != 1:
        raise ConfigError(
            f"{settings.labels} has {few(space.labels)}; instance numbers are of one label. Name that one."
        )
    scorer()  # what is wrong with the settings is said before a file is read
    cases = find_references(settings.references, settings.section)
    methods = _methods(settings.predictions)
    pairs = {name: pair_label_maps(cases, folder) for name, folder in methods.items()}
    problems = {name: found.problems(methods[name]) for name, found in pairs.items()}
    if any(problems.values()) and not settings.partial:
        listed = "; ".join(f"{name}: {' and '.join(found)}" for name, found in problems.items() if found)
        raise DataError(
            f"{listed}. Expected one prediction per reference; add or remove files, or allow it: --partial."
        )
    output = Path(settings.output)
    scores: dict[str, Scores] = {}
    failed: dict[str, str] = {}
    for name, found in pairs.items():
        target = output / name if len(methods) > 1 else output
        facts = ScoreFacts(section=settings.section, fold=None, biases=_notes(len(cases), found, problems[name]))
        scores[name], failures = _score(
            found, scorer(), facts, ScoredPredictions(str(methods[name]), {}), instances=settings.instances
        )
        scores[name] = replace(scores[name], asked=len(cases))
        scores[name].write(target)
        write_failures(target, failures)
        about = {"references": settings.references, "predictions": methods[name], "labels": settings.labels}
        shown = {key: str(value) for key, value in about.items()} | {"medseg": __version__}
        drawn = (
            replace(found, cases=[replace(case, images=()) for case in found.cases]) if settings.instances else found
        )
        write_evaluation_report(target, f"Label maps of {name}", scores[name], space, shown, drawn)
        failed |= {f"{name}: {case_id}": reason for case_id, reason in failures.items()}
    if failed:
        first = "; ".join(f"{case_id}: {reason}" for case_id, reason in list(failed.items())[:_SHOWN])
        count = f"{len(failed)} case{'' if len(failed) == 1 else 's'}"
        raise CasesFailed(f"{count} could not be scored, listed in failures.json of {output}: {first}")
    return scores


def _methods(named: Mapping[str, str]) -> dict[str, Path]:
    """Name -> folder; a folder without a name has its own, with as many parents as tell it apart."""
    folders = [Path(folder).expanduser().resolve() for folder in named.values()]
    own = run_names(folders)
    return {
        own[index].replace("/", "_") if name == given else name: folder
        for index, ((name, given), folder) in enumerate(zip(named.items(), folders, strict=True))
    }


def _notes(asked: int, found: LabelPairs, problems: Sequence[str]) -> list[str]:
    """Which cases are scored, where that is not all of them."""
    if not problems:
        return []
    note = f"Scored are {len(found.cases)} of {asked} references: {'; '.join(problems)}."
    logger.warning("%s", note)
    return [note]


def _score(
    found: LabelPairs, scorer: CaseScores, facts: ScoreFacts, predictions: ScoredPredictions, *, instances: bool
) -> tuple[Scores, dict[str, str]]:
    """The scores of one method, and the cases that failed with the reasons."""
    reader = Compose(load(["label"], None if instances else scorer.label_space))
    failures: dict[str, str] = {}
    for case in found.cases:
        try:
            with unwrapped():
                _add(scorer, reader, case, found.predictions[case.id], instances=instances)
        except DataError as error:
            failures[case.id] = reason_of(error)
            logger.error("%s: %s", case.id, failures[case.id])
    scored = [case for case in found.cases if case.id not in failures]
    references = {case.id: [content_hash(str(case.label))] for case in scored}
    hashes = {case.id: content_hash(found.predictions[case.id]) for case in scored}
    subjects = {case.id: case.subject for case in scored if case.subject is not None}
    facts = replace(facts, medseg=__version__, files_sha256=references, subjects=subjects or None)
    scores = Scores.of(dict(sorted(scorer.cases.items())), scorer.definition, facts)
    return replace(scores, scored=len(scored), predictions=replace(predictions, sha256=hashes)), failures


def _add(scorer: CaseScores, reader: Compose, case: Case, prediction: Path, *, instances: bool) -> None:
    space = scorer.label_space
    volumes = read_label_pair(case, prediction, None if instances else space)
    maps = [reader({"label": volume.image, "dataset": case.dataset})["label"] for volume in volumes]
    output: dict[str, Any] = dict(zip(("pred", "label"), maps, strict=True))
    if instances:
        output["instances"] = tuple(one[0].numpy() for one in maps)
        output |= {key: (output[key] > 0).to(torch.int16) for key in ("pred", "label")}
    scorer.add({"case_id": case.id, "dataset": case.dataset}, output)
