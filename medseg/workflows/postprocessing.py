"""Choose post-processing on validation predictions, on the raw ones: a step is taken only where it is shown to help by
a test that counts all that were tried (``cleanup_choice``).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path

import numpy as np
from monai.transforms import Compose

from medseg.bundle.folder import Bundle
from medseg.data.content import content_hash
from medseg.engines.log_file import log_to
from medseg.engines.run_files import is_outdated
from medseg.errors import ConfigError, DataError
from medseg.labels import LabelSpace
from medseg.metrics import CleanupRules, Scores, case_scores
from medseg.metrics.paired_difference import paired_difference
from medseg.metrics.subjects import subject_sums
from medseg.settings import Folder, takes
from medseg.storage import write_json
from medseg.transforms import CleanRule, clean_labels, find_label_map, load
from medseg.workflows.cleanup import store_rules
from medseg.workflows.cleanup_choice import Pair, TriedStep, choose_rules, dice_by_rule
from medseg.workflows.evaluation import EvaluateSettings
from medseg.workflows.folder_lock import writes_into
from medseg.workflows.folds import fold_runs
from medseg.workflows.run_folder import require_run
from medseg.workflows.selection import own_role

__all__ = ["PostprocessSettings", "Postprocessing", "postprocess"]

logger = logging.getLogger("medseg")


@dataclass(frozen=True)
class PostprocessSettings:
    """The run whose predictions are cleaned.

    Attributes:
        run: run folder with raw validation predictions; folds are pooled.
        data_dir: folder of the references, where they were moved (default: as in training).
    """

    run: Folder
    _: KW_ONLY
    data_dir: Folder | None = None


@dataclass(frozen=True)
class LabelChoice:
    """The rule that was chosen for a label, step -> value, and every step that was tried."""

    rule: Mapping[str, bool | float]
    tried: Sequence[TriedStep]


@dataclass(frozen=True)
class BeforeAndAfter:
    """Mean Dice over targets of the mean over cases, raw and cleaned, and their difference.

    Attributes:
        before, after: raw and cleaned.
        mean_difference: their difference.
        interval: its 95 % interval over subjects; NaN with fewer than six.
        cases, subjects: numbers of those with a score.
        nested: whether the cases of each fold are cleaned by rules that were chosen on the other folds' cases.
    """

    before: float
    after: float
    mean_difference: float
    interval: tuple[float, float]
    cases: int
    subjects: int
    nested: bool


@dataclass(frozen=True)
class Postprocessing:
    """Post-processing that was chosen on validation predictions.

    Attributes:
        cases: number of cases.
        rules: label -> its rule, where it has one.
        mean_dice: scores without and with the rules, of a single run optimistically biased for new cases, since the
            rules were chosen on these; ``None`` without any rule.
        labels: label -> what was tried.
    """

    cases: int
    rules: CleanupRules
    mean_dice: BeforeAndAfter | None
    labels: Mapping[str, LabelChoice]


@takes(PostprocessSettings)
@writes_into("run")
def postprocess(settings: PostprocessSettings) -> Postprocessing:
    """Choose post-processing on a run's validation predictions; only what is shown to help is stored and applied.

    The rules are stored in the run's bundle; ``--fold all`` runs are pooled.

    Writes ``postprocessing.json`` into the run's folder, and the rules into ``configs/inference.yaml`` of the run or
    of all its folds, where inference, validation and ensembles apply them.

    Raises:
        DataError: the run is not validated in the original image space, its scores are of other cases than its
            validation cases, or a prediction is missing or was written by another command.
        ConfigError: its predictions are cleaned already.
    """
    run, data_dir = settings.run, settings.data_dir
    folders = fold_runs(run) or [require_run(run).root]
    space = LabelSpace.from_table(Bundle(folders[0]).trained["labels"])
    log_to(run)
    pairs: list[tuple[str, int]] = []  # subject and fold of each case
    tables: dict[str, list[dict[CleanRule, float]]] = {label: [] for label in space.labels}
    for pair in _pairs(folders, space, data_dir):
        pairs.append((pair.subject, pair.fold))
        for label in space.labels:
            tables[label].append(dice_by_rule(pair, label, space))
    scores = {
        label: {rule: np.array([case[rule] for case in table]) for rule in table[0]} for label, table in tables.items()
    }
    found = choose_rules(scores, [subject for subject, _ in pairs])
    rules = {label: rule for label, (rule, _) in found.items() if any(rule)}
    of_fold = dict.fromkeys(range(len(folders)), rules)
    if len(folders) > 1 and rules:
        of_fold = {fold: _without(fold, scores, pairs) for fold in of_fold}
    chosen = Postprocessing(
        cases=len(pairs),
        rules={label: rule.to_table() for label, rule in rules.items()},
        mean_dice=_before_and_after(folders, space, of_fold, data_dir) if rules else None,
        labels={label: LabelChoice(rule.to_table(), tried) for label, (rule, tried) in found.items()},
    )
    write_json(Path(run) / "postprocessing.json", chosen)
    for folder in folders:
        store_rules(Bundle(folder), chosen.rules)
    logger.info("post-processing of %s: %s", run, chosen.rules or "none helps")
    return chosen


def _without(
    fold: int, scores: Mapping[str, Mapping[CleanRule, np.ndarray]], pairs: Sequence[tuple[str, int]]
) -> dict[str, CleanRule]:
    """The rules that the other folds' cases choose."""
    kept = [place for place, (_, own) in enumerate(pairs) if own != fold]
    others = {label: {rule: values[kept] for rule, values in table.items()} for label, table in scores.items()}
    found = choose_rules(others, [pairs[place][0] for place in kept])
    return {label: rule for label, (rule, _) in found.items() if any(rule)}


# ---------------------------------------------------------------------- cases
def _pairs(folders: Sequence[Path], space: LabelSpace, data_dir: str | Path | None) -> Iterator[Pair]:
    for fold, folder in enumerate(folders):
        scored = _scores(folder)
        assert scored.predictions is not None  # as _scores says
        place, hashes = folder / scored.predictions.folder, scored.predictions.sha256
        reader = Compose(load(["label"], space))
        for case in EvaluateSettings(folder, data_dir=data_dir, section="validation").selection().cases:
            if case.id not in scored.cases:
                continue
            path = find_label_map(place, case.id)
            if path is None:
                raise DataError(f"{place} has no label map of {case.id}; {_validate(folder)}")
            if content_hash(path) != hashes.get(case.id, content_hash(path)):
                raise DataError(
                    f"{path} is not the label map that metrics.json scored, but was written later; {_validate(folder)}"
                )
            dataset = case.dataset
            true = reader({"label": case.label, "dataset": dataset})["label"]
            predicted = reader({"label": str(path), "dataset": dataset})["label"]
            if predicted.shape != true.shape:
                raise DataError(
                    f"{path}: {tuple(predicted.shape[1:])} voxels, the reference has {tuple(true.shape[1:])}; "
                    + _validate(folder)
                )
            spacing = tuple(float(mm) for mm in true.pixdim[: true.ndim - 1])
            yield Pair(case.id, dataset, predicted[0].numpy(), true[0].numpy(), spacing, case.group, fold)


def _scores(folder: Path) -> Scores:
    """The scores of a run's validation cases, whose predictions are raw ones in the original image space."""
    scores = Scores.found(folder)
    if scores is None:
        raise DataError(f"{folder} has no metrics.json, so no validation predictions; {_validate(folder)}")
    if scores.definition.space != "source" or scores.predictions is None:
        raise DataError(
            f"{folder} was scored in {scores.definition.space} space, which keeps no label maps; {_validate(folder)}"
        )
    role = scores.facts.role or own_role(Bundle(folder), list(scores.cases))
    if role != "validation":
        raise DataError(f"{folder} has scores of {role} cases, on which nothing may be chosen; {_validate(folder)}")
    if scores.definition.cleanup:
        raise ConfigError(
            f"The predictions in {folder} are cleaned already, rules are chosen on raw ones; {_validate(folder)}"
        )
    if is_outdated(folder, scores):
        raise ConfigError(f"{folder} no longer has the weights that were scored; {_validate(folder)}")
    if scores.facts.checkpoint not in (None, "best") or scores.facts.differs_from_training:
        raise ConfigError(
            f"{folder} was scored with checkpoint {scores.facts.checkpoint} or with other settings than its own; "
            f"rules are for what inference does by default: {_validate(folder)}"
        )
    return scores


def _validate(folder: Path) -> str:
    return f"run `medseg validate --run {folder} --no_postprocess`."


def _before_and_after(
    folders: Sequence[Path],
    space: LabelSpace,
    of_fold: Mapping[int, Mapping[str, CleanRule]],
    data_dir: str | Path | None,
) -> BeforeAndAfter:
    """The mean with all rules of a case's fold together, as inference applies them, against none."""
    tables: tuple[list[list[float]], list[list[float]]] = ([], [])
    subjects = []
    for pair in _pairs(folders, space, data_dir):
        subjects.append(pair.subject)
        cleaned = clean_labels(pair.prediction, of_fold[pair.fold], space, pair.spacing)
        for prediction, table in zip((pair.prediction, cleaned), tables, strict=True):
            rows = case_scores(prediction, pair.reference, space, pair.spacing, dataset=pair.dataset, metrics=())
            table.append([rows[target]["dice"] if target in rows else np.nan for target in space.targets])
    raw, cleaned_scores = (np.array(table) for table in tables)
    found = paired_difference(raw, cleaned_scores, subjects)
    return BeforeAndAfter(
        before=subject_sums(raw, subjects).mean,
        after=subject_sums(cleaned_scores, subjects).mean,
        mean_difference=found.mean,
        interval=(found.low, found.high),
        cases=found.cases.total,
        subjects=found.subjects.total,
        nested=len(folders) > 1,
    )
