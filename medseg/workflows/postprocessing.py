"""Choose post-processing on validation predictions, label by label on the raw ones: a step is taken only where it is
shown to help (``cleanup_choice``).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from monai.transforms import Compose

from medseg.bundle.folder import Bundle
from medseg.data.content import content_hash
from medseg.engines.run_files import is_outdated, read_scores
from medseg.errors import ConfigError, DataError
from medseg.labels import LabelSpace
from medseg.metrics import case_scores
from medseg.metrics.paired import paired_comparison
from medseg.settings import Folder, takes
from medseg.storage import write_json
from medseg.transforms import CleanRule, clean_labels, find_label_map, load
from medseg.workflows.cleanup import store_rules
from medseg.workflows.cleanup_choice import Pair, choose_rule, dice_by_rule
from medseg.workflows.evaluation import EvaluateSettings
from medseg.workflows.folder_lock import writes_into
from medseg.workflows.folds import fold_runs
from medseg.workflows.run_folder import log_to, require_run
from medseg.workflows.selection import own_role

__all__ = ["PostprocessSettings", "postprocess"]

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


@takes(PostprocessSettings)
@writes_into("run")
def postprocess(settings: PostprocessSettings) -> dict[str, Any]:
    """Choose post-processing on a run's validation predictions; only what is shown to help is stored and applied.

    The rules are stored in the run's bundle; ``--fold all`` runs are pooled.

    Writes ``postprocessing.json`` into the run's folder, and the rules into ``configs/inference.yaml`` of the run or
    of all its folds, where inference, validation and ensembles apply them.

    Returns:
        ``rules``; per label what was tried, with differences and intervals; and the mean Dice before and after, which
        is too good a figure for new cases, since the rules were chosen on these.

    Raises:
        DataError: the run is not validated in the original image space, its scores are of other cases than its
            validation cases, or a prediction is missing or was written by another command.
        ConfigError: its predictions are cleaned already.
    """
    run, data_dir = settings.run, settings.data_dir
    folders = fold_runs(run) or [require_run(run).root]
    space = LabelSpace.from_table(Bundle(folders[0]).trained["labels"])
    log_to(run)
    tables: dict[str, list[dict[CleanRule, float]]] = {label: [] for label in space.labels}
    for pair in _pairs(folders, space, data_dir):
        for label in space.labels:
            tables[label].append(dice_by_rule(pair, label, space))
    labels: dict[str, Any] = {}
    rules: dict[str, CleanRule] = {}
    for label, table in tables.items():
        scores = {rule: np.array([case[rule] for case in table]) for rule in table[0]}
        rule, tried = choose_rule(scores)
        labels[label] = {"rule": rule.to_table(), "tried": tried}
        if any(rule):
            rules[label] = rule
    content: dict[str, Any] = {
        "cases": len(tables[space.labels[0]]),
        "rules": {label: rule.to_table() for label, rule in rules.items()},
        "mean_dice": _before_and_after(folders, space, rules, data_dir),
        "labels": labels,
    }
    write_json(Path(run) / "postprocessing.json", content)
    for folder in folders:
        store_rules(Bundle(folder), content["rules"])
    logger.info("post-processing of %s: %s", run, content["rules"] or "none helps")
    return content


# ---------------------------------------------------------------------- cases
def _pairs(folders: Sequence[Path], space: LabelSpace, data_dir: str | Path | None) -> Iterator[Pair]:
    for folder in folders:
        scored = _metrics(folder)
        written = scored.get("predictions") or {"folder": "predictions", "sha256": {}}
        reader = Compose(load(["label"], space))
        for case in EvaluateSettings(folder, data_dir=data_dir, section="validation").selection().cases:
            if case.id not in scored["cases"]:
                continue
            path = find_label_map(folder / written["folder"], case.id)
            if path is None:
                raise DataError(f"{folder / written['folder']} has no label map of {case.id}; {_validate(folder)}")
            if content_hash(path) != written["sha256"].get(case.id, content_hash(path)):
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
            yield Pair(case.id, dataset, predicted[0].numpy(), true[0].numpy(), spacing)


def _metrics(folder: Path) -> dict[str, Any]:
    """The scores of a run's validation cases, whose predictions are raw ones in the original image space."""
    path = folder / "metrics.json"
    if not path.is_file():
        raise DataError(f"{folder} has no metrics.json, so no validation predictions; {_validate(folder)}")
    content = read_scores(path)
    if content.get("space") != "source" or content.get("predictions", {}) is None:
        raise DataError(
            f"{folder} was scored in {content.get('space')} space, which keeps no label maps; {_validate(folder)}"
        )
    role = content.get("role") or own_role(Bundle(folder), list(content["cases"]))
    if role != "validation":
        raise DataError(f"{path} has scores of {role} cases, on which nothing may be chosen; {_validate(folder)}")
    if content.get("cleanup"):
        raise ConfigError(
            f"The predictions in {folder} are cleaned already, rules are chosen on raw ones; {_validate(folder)}"
        )
    if is_outdated(folder, content):
        raise ConfigError(f"{folder} no longer has the weights that were scored; {_validate(folder)}")
    if content.get("checkpoint", "best") != "best" or content.get("differs_from_training"):
        raise ConfigError(
            f"{folder} was scored with checkpoint {content.get('checkpoint')} or with other settings than its own; "
            f"rules are for what inference does by default: {_validate(folder)}"
        )
    return content


def _validate(folder: Path) -> str:
    return f"run `medseg validate --run {folder} --no_postprocess`."


def _before_and_after(
    folders: Sequence[Path], space: LabelSpace, rules: Mapping[str, CleanRule], data_dir: str | Path | None
) -> dict[str, Any]:
    """The mean over a case's targets with all rules together, as inference applies them, against none."""
    if not rules:
        return {}
    scores: list[list[float]] = [[], []]
    for pair in _pairs(folders, space, data_dir):
        cleaned = clean_labels(pair.prediction, rules, space, pair.spacing)
        for prediction, column in zip((pair.prediction, cleaned), scores, strict=True):
            table = case_scores(prediction, pair.reference, space, pair.spacing, dataset=pair.dataset, surface=None)
            dice = [row["dice"] for row in table.values() if np.isfinite(row["dice"])]
            column.append(float(np.mean(dice)) if dice else float("nan"))
    figures = paired_comparison(*scores)
    means = [float(np.nanmean(column)) for column in scores]
    return {"before": means[0], "after": means[1], **{k: figures[k] for k in ("mean_difference", "interval", "cases")}}
