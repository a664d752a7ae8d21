"""Scores that nnU-Net wrote: ``summary.json`` of a folder of predictions, or of all folds of a trained network.

Its Dice follows the rule ``penalty`` (0 where one mask is empty, undefined where both are), so that it may be set
against a run's.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from medseg.data.datalist_file import read_scored_labels
from medseg.errors import DataError
from medseg.metrics import ScoreDefinition, ScoredPredictions, ScoreFacts, Scores, target_values, warn_of_impossible
from medseg.storage import read_table
from medseg.transforms.reader import stem_of

__all__ = ["nnunet_scores"]

_NAME = "summary.json"
_FORM = {"metric_per_case": [{"metrics": {str: {"Dice": float, "IoU": float}}, "prediction_file": str}]}


def nnunet_scores(folder: Path) -> Scores | None:
    """The scores of an nnU-Net folder; ``None`` where it has none.

    Args:
        folder: folder of predictions, or of a trained network, whose ``fold_*/validation`` are pooled.

    Raises:
        DataError: a summary is damaged, or no ``dataset.json`` tells what its labels mean.
    """
    places = [folder] if (folder / _NAME).is_file() else sorted(folder.glob("fold_*/validation"))
    places = [place for place in places if (place / _NAME).is_file()]
    if not places:
        return None
    tables = [place / "dataset.json" for place in (folder, *folder.parents[:2])]
    labels = next((path for path in tables if path.is_file()), None)
    if labels is None:
        raise DataError(
            f"{folder} has nnU-Net's {_NAME}, but no dataset.json that names its labels; copy that of the data set "
            "beside it, or score the label maps with `medseg evaluate`."
        )
    targets = target_values(read_scored_labels(labels), [None])
    names = {tuple(values): target for target, values in targets[""].items()}
    cases: dict[str, dict[str, dict[str, float]]] = {}
    for place in places:
        for row in read_table(place / _NAME, "the scores that nnU-Net wrote", _FORM)["metric_per_case"]:
            case = stem_of(str(row["prediction_file"]).replace("\\", "/"))
            if case in cases:
                raise DataError(
                    f"{place / _NAME} has case {case} again; expected each case in one fold. Name one fold."
                )
            cases[case] = {_name(key, names, labels): _row(scores) for key, scores in row["metrics"].items()}
        warn_of_impossible(place / _NAME, cases)
    cleanup = {"every label": {"keep_largest": True}} if folder.name == "postprocessed" else {}
    definition = ScoreDefinition(
        space="source",
        unit="mm",
        scorer="CaseScores",
        include_background=False,
        targets=targets,
        empty="penalty",
        cleanup=cleanup,
    )
    facts = ScoreFacts(
        section=None, fold=None, folds=[place.parent.name for place in places] if len(places) > 1 else None
    )
    found = Scores.of(dict(sorted(cases.items())), definition, facts)
    return replace(found, predictions=ScoredPredictions(str(folder), {}))


def _row(scores: Mapping[str, float]) -> dict[str, float]:
    return {"dice": float(scores["Dice"]), "iou": float(scores["IoU"])}


def _name(key: str, names: Mapping[tuple[int, ...], str], labels: Path) -> str:
    """The label or region of a key such as ``1`` or ``(1, 2)``."""
    try:
        value: Any = ast.literal_eval(key)
    except (ValueError, SyntaxError):
        value = None
    values = tuple(sorted(value)) if isinstance(value, tuple) else (value,)
    if values not in names:
        raise DataError(f"{_NAME} has a score of label '{key}', which {labels} does not declare; name that data set's.")
    return names[values]
