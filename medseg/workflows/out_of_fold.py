"""Out-of-fold cases with their raw predictions: what post-processing and configurations are chosen on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from monai.transforms import Compose

from medseg.bundle.folder import Bundle
from medseg.data.content import content_hash
from medseg.engines.run_files import is_outdated
from medseg.errors import ConfigError, DataError
from medseg.labels import LabelSpace
from medseg.metrics import Scores, case_scores
from medseg.transforms import CleanRule, clean_labels, find_label_map, load
from medseg.workflows.cleanup_choice import Pair, TriedStep, choose_rules, dice_by_rule
from medseg.workflows.evaluation import EvaluateSettings
from medseg.workflows.selection import own_role

__all__ = ["CleanedDice", "Fold", "RuleScores", "label_map_of", "pairs", "raw_scores"]


@dataclass(frozen=True)
class Fold:
    """Scored predictions of the cases that a fold holds out.

    Attributes:
        run: run whose validation cases they are.
        scored: folder of the scores and the label maps: the run itself, or an ensemble of runs of this fold.
    """

    run: Path
    scored: Path


def raw_scores(fold: Fold) -> Scores:
    """The scores of a fold's validation cases, whose predictions are raw ones in the original image space.

    Raises:
        DataError: there are none, or they are of other cases or on the grid of the model.
        ConfigError: the predictions are cleaned, or of other weights or settings than inference takes.
    """
    folder = fold.scored
    scores = Scores.found(folder)
    if scores is None:
        raise DataError(f"{folder} has no metrics.json, so no validation predictions; {_again(fold)}")
    if scores.definition.space != "source" or scores.predictions is None:
        raise DataError(
            f"{folder} was scored in {scores.definition.space} space, which keeps no label maps; {_again(fold)}"
        )
    role = scores.facts.role or own_role(Bundle(fold.run), list(scores.cases))
    if role != "validation":
        raise DataError(f"{folder} has scores of {role} cases, on which nothing may be chosen; {_again(fold)}")
    if scores.definition.cleanup:
        raise ConfigError(
            f"The predictions in {folder} are cleaned already, rules are chosen on raw ones; {_again(fold)}"
        )
    if is_outdated(folder, scores):
        raise ConfigError(f"{folder} no longer has the weights that were scored; {_again(fold)}")
    facts = scores.facts
    other = [] if facts.checkpoint in (None, "best") else [f"checkpoint {facts.checkpoint}"]
    if changed := {**(facts.differs_from_training or {}), **(facts.differs_from_default or {})}:
        other.append(f"other settings than its own ({', '.join(changed)})")
    if other:
        raise ConfigError(
            f"{folder} was scored with {' and '.join(other)}; expected what inference does by default, for which rules "
            f"and configurations are chosen: {_again(fold)}"
        )
    return scores


def label_map_of(fold: Fold, scored: Scores, case_id: str) -> Path:
    """The label map of a case of ``raw_scores``.

    Raises:
        DataError: it is missing, or is not the one that was scored.
    """
    assert scored.predictions is not None  # as raw_scores says
    folder = fold.scored / scored.predictions.folder
    path = find_label_map(folder, case_id)
    if path is None:
        raise DataError(f"{folder} has no label map of {case_id}; {_again(fold)}")
    if content_hash(path) != scored.predictions.sha256.get(case_id, content_hash(path)):
        raise DataError(f"{path} is not the label map that metrics.json scored, but was written later; {_again(fold)}")
    return path


def pairs(folds: Sequence[Fold], space: LabelSpace, data_dir: str | Path | None) -> Iterator[Pair]:
    """Prediction and reference of every case, fold after fold.

    Raises:
        ConfigError, DataError: as ``raw_scores``; a label map is missing, or is not the one that was scored.
    """
    for place, fold in enumerate(folds):
        scored = raw_scores(fold)
        reader = Compose(load(["label"], space))
        for case in EvaluateSettings(fold.run, data_dir=data_dir, section="validation").selection().cases:
            if case.id not in scored.cases:
                continue
            path = label_map_of(fold, scored, case.id)
            true = reader({"label": case.label, "dataset": case.dataset})["label"]
            predicted = reader({"label": str(path), "dataset": case.dataset})["label"]
            if predicted.shape != true.shape:
                raise DataError(
                    f"{path}: {tuple(predicted.shape[1:])} voxels, the reference has {tuple(true.shape[1:])}; "
                    + _again(fold)
                )
            spacing = tuple(float(mm) for mm in true.pixdim[: true.ndim - 1])
            yield Pair(case.id, case.dataset, predicted[0].numpy(), true[0].numpy(), spacing, case.group, place)


def _again(fold: Fold) -> str:
    if fold.scored != fold.run:
        return f"remove {fold.scored} and run `medseg best` again."
    return f"run `medseg validate --run {fold.run} --no_postprocess`."


@dataclass(frozen=True)
class RuleScores:
    """The Dice of every rule of post-processing.

    Attributes:
        dice: label -> rule -> Dice per case.
        subjects: subject of each case.
        folds: place of each case's fold.
    """

    dice: Mapping[str, Mapping[CleanRule, np.ndarray]]
    subjects: Sequence[str]
    folds: Sequence[int]

    @classmethod
    def of(cls, cases: Iterable[Pair], space: LabelSpace) -> RuleScores:
        """Of all cases, one after another."""
        subjects, folds = [], []
        tables: dict[str, list[dict[CleanRule, float]]] = {label: [] for label in space.labels}
        for pair in cases:
            subjects.append(pair.subject)
            folds.append(pair.fold)
            for label in space.labels:
                tables[label].append(dice_by_rule(pair, label, space))
        dice = {
            label: {rule: np.array([case[rule] for case in table]) for rule in table[0]}
            for label, table in tables.items()
        }
        return cls(dice, subjects, folds)

    def tried(self, without: int | None = None) -> dict[str, tuple[CleanRule, list[TriedStep]]]:
        """Of each label its rule, and every step that was tried; without the cases of a fold where one is named."""
        kept = [place for place, fold in enumerate(self.folds) if fold != without]
        dice = {label: {rule: values[kept] for rule, values in table.items()} for label, table in self.dice.items()}
        return choose_rules(dice, [self.subjects[place] for place in kept])

    def rules(self, without: int | None = None) -> dict[str, CleanRule]:
        """Those of the labels that have one."""
        return {label: rule for label, (rule, _) in self.tried(without).items() if any(rule)}


@dataclass(frozen=True)
class CleanedDice:
    """Dice ``(cases, targets)`` of the raw predictions and of those that rules have cleaned; NaN where undefined."""

    raw: np.ndarray
    cleaned: np.ndarray
    subjects: Sequence[str]

    @classmethod
    def of(cls, cases: Iterable[Pair], rules: Sequence[Mapping[str, CleanRule]], space: LabelSpace) -> CleanedDice:
        """With all rules of a case's fold together, as inference applies them.

        Args:
            rules: per fold.
        """
        tables: tuple[list[list[float]], list[list[float]]] = ([], [])
        subjects = []
        for pair in cases:
            subjects.append(pair.subject)
            cleaned = clean_labels(pair.prediction, rules[pair.fold], space, pair.spacing)
            for prediction, table in zip((pair.prediction, cleaned), tables, strict=True):
                rows = case_scores(prediction, pair.reference, space, pair.spacing, dataset=pair.dataset, metrics=())
                table.append([rows[target]["dice"] if target in rows else np.nan for target in space.targets])
        return cls(np.array(tables[0]), np.array(tables[1]), subjects)
