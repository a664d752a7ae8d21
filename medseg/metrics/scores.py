"""Scores of cases, with what they mean and what they are of: ``metrics.json``, its one reader and its one writer."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from medseg.errors import DataError
from medseg.metrics.cases import (
    CaseRows,
    Detection,
    Summary,
    detection,
    lesion_free_cases,
    mean_dice,
    pooled,
    summarize,
)
from medseg.metrics.catalog import is_metric, metric, surface_metrics
from medseg.metrics.definition import NOT_RECORDED, ScoreDefinition
from medseg.metrics.empty import LesionFree
from medseg.storage import as_table, read_table, whole_file, write_json
from medseg.storage.csv_file import CsvWriter
from medseg.version import __version__

__all__ = ["FoldScores", "ScoreFacts", "ScoredPredictions", "Scores", "warn_of_impossible"]

logger = logging.getLogger("medseg")

_NAME = "metrics.json"
_ROUNDING = 1e-6  # of scores in files
_FORM = {
    "mean_dice": (float, None),
    "labels": {str: {str: {"mean": (float, None), "cases": int, "undefined": int}}},
    "surface_measure?": str,
    "surface_dice_tolerance_mm?": (float, None, str),
    "pooled?": {str: {str: (float, None)}},
    "cases": {str: {str: {str: (float, None)}}},
    **dict.fromkeys(("unit?", "space?", "role?", "checkpoint?", "weights_sha256?"), str),
    "section?": (str, None),
    "fold?": (int, None),
    "cleanup?": {str: {str: (bool, float)}},
    "biases?": [str],
    "chosen?": [str],
    "targets?": {str: {str: [int]}},
    "files_sha256?": {str: [str]},
    "subjects?": {str: str},
    "medseg?": str,
    **dict.fromkeys(("differs_from_training?", "differs_from_default?"), dict),
    "predictions?": ({"folder": str, "sha256": {str: str}}, None),
}


@dataclass(frozen=True, kw_only=True)
class ScoreFacts:
    """What scores are of, and what they were made from; ``None`` where one is not recorded.

    Attributes:
        weights: file of the weights.
        section: section of the datalist; ``None`` where the cases are of several.
        fold: fold of the run; ``None`` where it has none.
        others: further entries of a config or a file, by their names.
        role: role of the cases (``medseg.workflows.selection.ROLES``).
        datalist: file that lists the cases.
        checkpoint: name of the checkpoint, or its file.
        biases: sentences on why the scores are better than those of new cases, or are not of equal trainings.
        chosen: sentences on which cases the checkpoint, the rules and the weights were chosen.
        differs_from_training: id of a setting -> its value in training, and its value here.
        differs_from_default: id of a setting that changes predictions -> its value by default, and its value here.
        weights_sha256, settings_sha256: hashes of the weights' file, and of the settings.
        medseg: version of medseg.
        files_sha256: case -> hashes of its files (``content_hash``).
        subjects: case -> its subject, of the cases that have one in the datalist.
        ensemble: method by which members are joined.
        members: folders of the members.
        member_weights: weight of each member.
        folds: names of the folds whose cases are pooled.
    """

    weights: str | None = None
    section: str | None
    fold: int | None
    others: Mapping[str, object] = field(default_factory=dict)
    role: str | None = None
    datalist: str | None = None
    checkpoint: str | None = None
    biases: Sequence[str] | None = None
    chosen: Sequence[str] | None = None
    differs_from_training: Mapping[str, object] | None = None
    differs_from_default: Mapping[str, object] | None = None
    weights_sha256: str | None = None
    settings_sha256: str | None = None
    medseg: str | None = None
    files_sha256: Mapping[str, Sequence[str]] | None = None
    subjects: Mapping[str, str] | None = None
    ensemble: str | None = None
    members: Sequence[str] | None = None
    member_weights: Sequence[float] | None = None
    folds: Sequence[str] | None = None

    @classmethod
    def noted(cls, table: Mapping[str, Any]) -> ScoreFacts:
        """From the entries of a config or a file."""
        known = {one.name: table[one.name] for one in fields(cls) if one.name in table and one.name != "others"}
        others = {name: value for name, value in table.items() if name not in known}
        return cls(**{"section": None, "fold": None} | known, others=others)

    def __or__(self, later: ScoreFacts) -> ScoreFacts:
        """These facts, with the later ones in their place where both are recorded."""
        return replace(self, **as_table(later))


@dataclass(frozen=True)
class ScoredPredictions:
    """The label maps that were scored.

    Attributes:
        folder: their folder, below the scores' own where it is there.
        sha256: case -> hash of its file; empty where none is recorded.
    """

    folder: str
    sha256: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class _Means:
    """What all scores have.

    Attributes:
        mean_dice: mean over labels of the mean over cases; NaN where it is undefined.
        facts: what the scores are of.
        definition: what they mean.
        labels: target -> score -> its summary.
    """

    mean_dice: float
    facts: ScoreFacts
    definition: ScoreDefinition
    labels: Mapping[str, Mapping[str, Summary]]

    @property
    def columns(self) -> Iterable[str]:
        """Names of scores and sizes, in their order, some more than once."""
        return (name for row in self.labels.values() for name in row)

    @property
    def metrics(self) -> list[str]:
        """Names of the scores, in the order of their columns."""
        return [name for name in dict.fromkeys(self.columns) if is_metric(name)]

    def named(self, score: str) -> str:
        """The column of a score, or of the definition of it that there is: of ``hd95`` also ``hd95_pooled``."""
        others = (name for name in self.metrics if name.startswith(f"{score}_"))
        return score if score in self.metrics else next(others, score)

    def to_table(self) -> dict[str, Any]:
        """For JSON, in which facts and definition are entries beside the others."""
        table: dict[str, Any] = {}
        for name, value in as_table(self).items():
            if name == "facts":
                table["space"] = self.definition.space
                for fact, noted in as_table(value).items():
                    table |= noted if fact == "others" else {fact: noted}
            elif name == "definition":
                table |= as_table(value) | {"postprocessing": self.definition.postprocessing}
                table["metrics"] = {name: metric(name).about for name in self.metrics}
            else:
                table[name] = value
        return table


@dataclass(frozen=True, kw_only=True)
class Scores(_Means):
    """The scores of a run, an ensemble or pooled folds.

    Attributes:
        pooled: target -> ``dice`` and ``iou`` of all cases as one image.
        cases: case -> target -> score -> value; NaN where it is undefined.
        lesion_free: target -> what was predicted in the cases whose reference lacks it.
        detection: target -> size of lesions -> how they were detected, with the metrics of ``detection``.
        asked: number of cases that were to be scored; ``None`` where it is not recorded.
        scored: number of those that were.
        predictions: label maps that were scored; ``None`` where none is kept, without hashes where none is recorded.
    """

    pooled: Mapping[str, Mapping[str, float]]
    cases: CaseRows
    lesion_free: Mapping[str, LesionFree] = field(default_factory=dict)
    detection: Mapping[str, Mapping[str, Detection]] = field(default_factory=dict)
    asked: int | None = None
    scored: int | None = None
    predictions: ScoredPredictions | None = ScoredPredictions("predictions", {})

    @property
    def columns(self) -> Iterable[str]:
        return (name for rows in self.cases.values() for row in rows.values() for name in row)

    @classmethod
    def of(cls, cases: CaseRows, definition: ScoreDefinition, facts: ScoreFacts) -> Scores:
        """The scores of cases, by this version of medseg."""
        return cls(
            mean_dice=mean_dice(cases),
            facts=replace(facts, medseg=facts.medseg or __version__),
            definition=definition,
            labels=summarize(cases),
            pooled=pooled(cases),
            cases=cases,
            lesion_free=lesion_free_cases(cases),
            detection=detection(cases),
        )

    @property
    def units(self) -> list[str]:
        """Unit of analysis of each case: its subject, or the case itself."""
        subjects = self.facts.subjects or {}
        return [subjects.get(case, case) for case in self.cases]

    def table(self, score: str = "dice") -> np.ndarray:
        """Values of one score (``named``), ``(cases, targets)``; NaN where it is undefined."""
        score = self.named(score)
        rows = [[row.get(target, {}).get(score, math.nan) for target in self.labels] for row in self.cases.values()]
        return np.array(rows, dtype=float).reshape(len(self.cases), len(self.labels))

    @classmethod
    def found(cls, folder: str | Path) -> Scores | None:
        """The scores in a folder; ``None`` where it has none.

        Raises:
            DataError: they are damaged.
        """
        return cls.read(folder) if (Path(folder) / _NAME).is_file() else None

    @classmethod
    def read(cls, folder: str | Path) -> Scores:
        """The scores in a folder.

        Raises:
            DataError: they are missing or damaged.
        """
        path = Path(folder) / _NAME
        table = read_table(path, "the scores that medseg wrote; run the command that wrote them again", _FORM)
        for case, rows in table["cases"].items():
            for label in rows:
                if label not in table["labels"]:
                    raise DataError(
                        f"{path} is damaged (case '{case}' has label '{label}', which 'labels' lacks); run the command "
                        "that wrote it again."
                    )
        found = cls._from_table(table)
        warn_of_impossible(path, found.cases)
        return found

    @classmethod
    def _from_table(cls, table: dict[str, Any]) -> Scores:
        for derived in ("postprocessing", "metrics", "lesion_free", "detection"):
            table.pop(derived, None)
        names = _renamed(table)
        labels = {
            label: {names.get(score, score): _summary(row) for score, row in rows.items()}
            for label, rows in table.pop("labels").items()
        }
        cases = {
            case: {label: _numbers(row, names) for label, row in rows.items()}
            for case, rows in table.pop("cases").items()
        }
        own: dict[str, Any] = {
            "mean_dice": _number(table.pop("mean_dice")),
            "labels": labels,
            "pooled": {label: _numbers(row) for label, row in table.pop("pooled", {}).items()},
            "cases": cases,
            "lesion_free": lesion_free_cases(cases),
            "detection": detection(cases),
        }
        if written := table.get("predictions"):
            table["predictions"] = ScoredPredictions(written["folder"], written["sha256"])
        own |= {name: table.pop(name) for name in ("asked", "scored", "predictions") if name in table}
        # Earlier versions named the rules of cleaned predictions alone.
        known = {one.name: table.pop(one.name) for one in fields(ScoreDefinition) if one.name in table}
        definition = ScoreDefinition(**{"cleanup": {}} | known)
        return cls(definition=definition, facts=ScoreFacts.noted(table), **own)

    def write(self, folder: str | Path) -> None:
        """Write ``metrics.json`` and ``metrics_per_case.csv``."""
        write_json(Path(folder) / _NAME, self.to_table())
        scores = list(dict.fromkeys(self.columns))
        table = Path(folder) / "metrics_per_case.csv"
        with whole_file(table) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = CsvWriter(file)
            writer.writerow(["case", "label", *scores])
            for case, rows in self.cases.items():
                for label, row in rows.items():
                    values = [row.get(score, math.nan) for score in scores]
                    writer.writerow([case, label, *(f"{v:.6g}" if math.isfinite(v) else "" for v in values)])


@dataclass(frozen=True, kw_only=True)
class FoldScores(_Means):
    """Scores of several networks on the same cases, not pooled: means over folds.

    Attributes:
        sd_over_folds: standard deviation of the mean Dice over folds; ``None`` of a single fold.
        folds: name of a fold -> its mean Dice.
        scored_cases: number of cases.
    """

    sd_over_folds: float | None
    folds: Mapping[str, float]
    scored_cases: int


def warn_of_impossible(path: str | Path, cases: CaseRows) -> None:
    """Warn of scores of a file that no masks can have, such as a Dice of 87, which may be percent."""
    names = {score for rows in cases.values() for row in rows.values() for score in row if is_metric(score)}
    limits = {score: metric(score).limits for score in names}
    for case, rows in cases.items():
        for label, row in rows.items():
            for score, (low, high) in limits.items():
                value = row.get(score, math.nan)
                if value < low - _ROUNDING or value > high + _ROUNDING:
                    logger.warning(
                        "%s: case '%s' has a %s of %g for label '%s', expected %g to %g. Check how it was written.",
                        path, case, score, value, label, low, high,
                    )  # fmt: skip
                    return


def _number(value: float | None) -> float:
    """JSON's null is an undefined score."""
    return math.nan if value is None else float(value)


def _numbers(row: Mapping[str, float | None], names: Mapping[str, str] = MappingProxyType({})) -> dict[str, float]:
    return {names.get(score, score): _number(value) for score, value in row.items()}


def _summary(row: Mapping[str, Any]) -> Summary:
    later = {key: row[key] for key in ("median", "penalised", "without_penalties") if key in row}
    return Summary(_number(row["mean"]), row["cases"], row["undefined"], **later)


def _renamed(table: dict[str, Any]) -> dict[str, str]:
    """Names of scores that earlier versions recorded the definition beside; its entries are taken out."""
    measure, tolerance = table.pop("surface_measure", None), table.pop("surface_dice_tolerance_mm", NOT_RECORDED)
    if measure == "area" and table.get("medseg", "0.1.0") == "0.1.0":
        measure = "area_opened"  # the area of 0.1.0, which opened the prediction
    names = surface_metrics(1.0 if tolerance == NOT_RECORDED else tolerance, measure or "voxels")
    return dict(zip(("hd95", "surface_dice"), names, strict=True))
