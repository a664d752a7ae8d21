"""The validation metric: per-case, per-label scores gathered over all ranks, with their mean Dice as the key metric."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.metrics import Metric

from medseg.engines.ranks import gather, is_main
from medseg.errors import ConfigError
from medseg.labels import IGNORE, LabelSpace
from medseg.metrics import (
    NOT_RECORDED,
    ScoreDefinition,
    ScoreFacts,
    Scores,
    case_scores,
    mean_dice,
    photo_scores,
    summarize,
    target_values,
)
from medseg.metrics.catalog import metric_names, surface_metrics
from medseg.metrics.empty import EmptyRule
from medseg.metrics.overlap import overlap
from medseg.transforms import is_2d_file

__all__ = ["LABEL_DICE", "CaseScores", "PhotoScores", "TaskMapScores", "TaskScores"]


LABEL_DICE = "dice/"  # before the name of a label, in an evaluator's metrics


class CaseScores(Metric):
    """An ignite metric over decollated label maps ``pred`` and ``label``; its value is ``mean_dice``.

    Args:
        label_space: what is evaluated.
        surface: also HD95 and surface Dice (slower).
        tolerance: tolerance of the surface Dice in mm; ``None`` is each case's mean voxel size.
        measure: what surface distances are taken over (``medseg.metrics.catalog.surface_metrics``).
        metrics: names of ``medseg.metrics.catalog`` in the place of these three.
        empty: rule for empty masks (``medseg.metrics.empty.EmptyRule.of``).
        output_dir: where ``metrics.json`` and ``metrics_per_case.csv`` are written; ``None`` writes nothing.
        facts: what else goes into the JSON, such as the section, and of the definition ``space`` and ``cleanup``.
        include_background: score the background too, and count it in the mean.

    Attributes:
        facts: what the scores are of.
        space: grid of the scores.
        cleanup: rules that cleaned the predictions.
        unit: unit of lengths: ``mm``, or ``px`` for 2D images, which have no physical size.

    Raises:
        ConfigError: a name is not one of the catalog, or of a metric with scores of its own.
    """

    named_metrics = True  # whether scores are chosen by name

    def __init__(
        self,
        label_space: LabelSpace,
        surface: bool = False,
        tolerance: float | None = 1.0,
        output_dir: str | Path | None = None,
        facts: Mapping[str, Any] | None = None,
        include_background: bool = False,
        measure: str = "voxels",
        metrics: Sequence[str] = (),
        empty: str = "reference_only",
    ) -> None:
        self.label_space = label_space
        if metrics and not self.named_metrics:
            raise ConfigError(f"{type(self).__name__} has scores of its own; leave out metrics.")
        self.metrics = metric_names(metrics or (surface_metrics(tolerance, measure) if surface else ()))
        self.empty = EmptyRule.of(empty)
        self.output_dir = output_dir
        noted = {"space": NOT_RECORDED, "cleanup": None} | dict(facts or {})
        self.space, self.cleanup = str(noted.pop("space")), noted.pop("cleanup") or {}
        self.facts = ScoreFacts.noted(noted)
        self.include_background = include_background
        self.unit = "mm"
        super().__init__()

    def reset(self) -> None:
        self.cases: dict[str, dict[str, dict[str, float]]] = {}
        self.datasets: dict[str, str | None] = {}  # of each case

    def update(self, output: Any) -> None:
        """Unused: scores need the batch as well as the output."""

    def iteration_completed(self, engine: Any, *_: Any) -> None:
        for item, output in zip(engine.state.batch, engine.state.output, strict=True):
            self.add(item, output)

    def add(self, item: dict[str, Any], output: dict[str, Any]) -> None:
        """Score a case, from its entry in the batch and the decollated output."""
        if is_2d_file(getattr(output["label"], "meta", {}).get("filename_or_obj", "")):
            self.unit = "px"
        self.cases[str(item["case_id"])] = self.score(item, output)
        self.datasets[str(item["case_id"])] = item.get("dataset")

    def score(self, item: dict[str, Any], output: dict[str, Any]) -> dict[str, dict[str, float]]:
        """target -> score -> value of one case."""
        return case_scores(
            _array(output["pred"]),
            _array(output["label"]),
            self.label_space,
            _spacing(output["label"]),
            dataset=item.get("dataset"),
            metrics=self.metrics,
            empty=self.empty,
            include_background=self.include_background,
            instances=output.get("instances"),
        )

    def compute(self) -> float:
        self.cases = dict(sorted(gather(self.cases).items()))
        if self.output_dir is not None:
            self.datasets = gather(self.datasets)
            if is_main():
                Scores.of(self.cases, self.definition, self.facts).write(self.output_dir)
        return mean_dice(self.cases)

    def completed(self, engine: Any, name: str) -> None:
        """Each label's mean Dice stands beside the metric, where it is defined: trackers show all of them."""
        super().completed(engine, name)
        means = {label: row["dice"].mean for label, row in summarize(self.cases).items()}
        engine.state.metrics |= {f"{LABEL_DICE}{label}": mean for label, mean in means.items() if not math.isnan(mean)}

    @property
    def definition(self) -> ScoreDefinition:
        """What the scores mean, after the last case."""
        return ScoreDefinition(
            space=self.space,
            unit=self.unit,
            scorer=type(self).__name__,
            include_background=self.include_background,
            targets=target_values(self.label_space, self.datasets.values()),
            empty=self.empty.text,
            cleanup=self.cleanup,
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

    named_metrics = False

    def score(self, item: dict[str, Any], output: dict[str, Any]) -> dict[str, dict[str, float]]:
        prediction, reference = torch.as_tensor(output["pred"]).cpu().numpy(), _array(output["label"])
        rows = {}
        for channel, index in enumerate(self.label_space.dataset_tasks(item.get("dataset")).values()):
            predicted = (prediction[channel] >= 0) & (reference != IGNORE)
            true = reference == index
            value = overlap(predicted, true).dice if true.any() else math.nan
            rows[_row_name(item, self.label_space.labels[index - 1])] = {"dice": value}
        return rows


def _row_name(item: dict[str, Any], name: str) -> str:
    return f"{item['dataset']}: {name}" if item.get("dataset") else name


class PhotoScores(CaseScores):
    """``CaseScores`` with ``medseg.metrics.photo_scores``, for published figures of photographs."""

    named_metrics = False

    @property
    def definition(self) -> ScoreDefinition:
        return replace(super().definition, empty="every image has a score")

    def score(self, item: dict[str, Any], output: dict[str, Any]) -> dict[str, dict[str, float]]:
        return photo_scores(_array(output["pred"]), _array(output["label"]), self.label_space)


def _array(volume: Any) -> np.ndarray:
    """``(1, *spatial)`` -> ``(*spatial)``."""
    return torch.as_tensor(volume)[0].cpu().numpy()


def _spacing(volume: Any) -> Sequence[float]:
    dims = volume.dim() - 1
    pixdim = getattr(volume, "pixdim", None)
    return [float(p) for p in pixdim[:dims]] if pixdim is not None and len(pixdim) >= dims else [1.0] * dims
