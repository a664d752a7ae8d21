"""The validation metric: per-case, per-label scores gathered over all ranks, with their mean Dice as the key metric."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.metrics import Metric

from medseg.engines.ranks import gather, is_main
from medseg.labels import IGNORE, LabelSpace
from medseg.metrics import (
    NOT_RECORDED,
    ScoreDefinition,
    SurfaceSettings,
    case_scores,
    dice,
    mean_dice,
    photo_scores,
    pooled,
    summarize,
    target_values,
)
from medseg.storage import read_table, whole_file, write_json
from medseg.storage.csv_file import CsvWriter
from medseg.transforms import is_2d_file

__all__ = ["CaseScores", "PhotoScores", "TaskMapScores", "TaskScores", "add_facts", "write_scores"]


class CaseScores(Metric):
    """An ignite metric over decollated label maps ``pred`` and ``label``; its value is ``mean_dice``.

    Args:
        label_space: what is evaluated.
        surface: also HD95 and surface Dice (slower).
        tolerance: tolerance of the surface Dice in mm; ``None`` is each case's mean voxel size.
        output_dir: where ``metrics.json`` and ``metrics_per_case.csv`` are written; ``None`` writes nothing.
        facts: what else goes into the JSON, such as the space, the section and the rules that cleaned predictions.
        include_background: score the background too, and count it in the mean.
        measure: surfaces are border ``voxels`` (MONAI) or have an ``area`` (``medseg.metrics.surface_area``).

    Attributes:
        unit: of lengths: ``mm``, or ``px`` for pictures, which have no physical size.
    """

    def __init__(
        self,
        label_space: LabelSpace,
        surface: bool = False,
        tolerance: float | None = 1.0,
        output_dir: str | Path | None = None,
        facts: dict[str, Any] | None = None,
        include_background: bool = False,
        measure: str = "voxels",
    ) -> None:
        self.label_space = label_space
        self.surface = surface
        self.tolerance = tolerance
        self.output_dir = output_dir
        self.facts = facts or {}
        self.include_background = include_background
        self.unit = "mm"
        self.measure = measure
        super().__init__()

    def reset(self) -> None:
        self.cases: dict[str, dict[str, dict[str, float]]] = {}
        self.datasets: dict[str, str | None] = {}  # of each case

    def update(self, output: Any) -> None:
        """Unused: scores need the batch as well as the output."""

    def iteration_completed(self, engine: Any, *_: Any) -> None:
        for item, output in zip(engine.state.batch, engine.state.output, strict=True):
            if is_2d_file(getattr(output["label"], "meta", {}).get("filename_or_obj", "")):
                self.unit = "px"
            self.cases[str(item["case_id"])] = self.score(item, output)
            self.datasets[str(item["case_id"])] = item.get("dataset")

    def score(self, item: dict[str, Any], output: dict[str, Any]) -> dict[str, dict[str, float]]:
        """target -> score -> value of one case, from its entry in the batch and the decollated output."""
        return case_scores(
            _array(output["pred"]),
            _array(output["label"]),
            self.label_space,
            _spacing(output["label"]),
            dataset=item.get("dataset"),
            surface=SurfaceSettings(self.tolerance, self.measure) if self.surface else None,
            include_background=self.include_background,
        )

    def compute(self) -> float:
        self.cases = dict(sorted(gather(self.cases).items()))
        if self.output_dir is not None:
            self.datasets = gather(self.datasets)
            if is_main():
                write_scores(self.cases, self.output_dir, {**self.facts, **asdict(self.definition)})
        return mean_dice(self.cases)

    @property
    def definition(self) -> ScoreDefinition:
        """What the scores mean, after the last case."""
        return ScoreDefinition(
            space=self.facts.get("space", NOT_RECORDED),
            unit=self.unit,
            scorer=type(self).__name__,
            include_background=self.include_background,
            targets=target_values(self.label_space, self.datasets.values()),
            surface_measure=self.measure,
            surface_dice_tolerance_mm=self.tolerance,
            cleanup=self.facts.get("cleanup") or {},
        )


class TaskScores(CaseScores):
    """``CaseScores`` per data set and task: rows are ``<data set>: <task>``, and their mean is over all of them: a
    task that two data sets share has a score on each.
    """

    def score(self, item: dict[str, Any], output: dict[str, Any]) -> dict[str, dict[str, float]]:
        return {_row_name(item, name): row for name, row in super().score(item, output).items()}


class TaskMapScores(TaskScores):
    """``TaskScores`` of Hermes's published evaluation (arXiv 2306.02416): ``pred`` are the logits ``(T, *spatial)`` of
    the tasks of the case's data set, each thresholded by itself, so that structures may overlap.
    """

    def score(self, item: dict[str, Any], output: dict[str, Any]) -> dict[str, dict[str, float]]:
        prediction, reference = torch.as_tensor(output["pred"]).cpu().numpy(), _array(output["label"])
        rows = {}
        for channel, index in enumerate(self.label_space.dataset_tasks(item.get("dataset")).values()):
            predicted = (prediction[channel] >= 0) & (reference != IGNORE)
            rows[_row_name(item, self.label_space.labels[index - 1])] = {"dice": dice(predicted, reference == index)}
        return rows


def _row_name(item: dict[str, Any], name: str) -> str:
    return f"{item['dataset']}: {name}" if item.get("dataset") else name


class PhotoScores(CaseScores):
    """``CaseScores`` with ``medseg.metrics.photo_scores``, for published figures of photographs."""

    def score(self, item: dict[str, Any], output: dict[str, Any]) -> dict[str, dict[str, float]]:
        return photo_scores(_array(output["pred"]), _array(output["label"]), self.label_space)


def write_scores(cases: dict[str, Any], output_dir: str | Path, facts: dict[str, Any]) -> dict[str, Any]:
    """Write ``metrics.json`` and ``metrics_per_case.csv``; returns the JSON's content."""
    directory = Path(output_dir)
    named = {"postprocessing": ScoreDefinition.read(facts).postprocessing}
    content = {"mean_dice": mean_dice(cases), **facts, **named, "labels": summarize(cases), "pooled": pooled(cases)}
    content["cases"] = cases
    write_json(directory / "metrics.json", content)
    scores = list(dict.fromkeys(score for rows in cases.values() for row in rows.values() for score in row))
    table = directory / "metrics_per_case.csv"
    with whole_file(table) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = CsvWriter(file)
        writer.writerow(["case", "label", *scores])
        for case, rows in cases.items():
            for label, row in rows.items():
                writer.writerow([case, label, *(f"{row[s]:.6g}" if math.isfinite(row[s]) else "" for s in scores)])
    return content


def add_facts(output_dir: str | Path, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Add to ``metrics.json`` what is known after the run alone; returns its content."""
    path = Path(output_dir) / "metrics.json"
    content = read_table(path, "the scores of this run") | dict(facts)
    write_json(path, content)
    return content


def _array(volume: Any) -> np.ndarray:
    """``(1, *spatial)`` -> ``(*spatial)``."""
    return torch.as_tensor(volume)[0].cpu().numpy()


def _spacing(volume: Any) -> Sequence[float]:
    dims = volume.dim() - 1
    pixdim = getattr(volume, "pixdim", None)
    return [float(p) for p in pixdim[:dims]] if pixdim is not None and len(pixdim) >= dims else [1.0] * dims
