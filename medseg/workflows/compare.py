"""Compare runs that were validated on the same cases: paired differences with intervals, tests and effect sizes,
beside their cost.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from medseg.engines.run_facts import RunFacts
from medseg.errors import ConfigError
from medseg.metrics import mean_interval
from medseg.metrics.paired import holm, paired_comparison
from medseg.reports.comparison import write_comparison
from medseg.reports.comparison_charts import COSTS
from medseg.settings import Folder, takes
from medseg.storage import whole_file, write_json
from medseg.storage.csv_file import CsvWriter
from medseg.workflows.comparable import EFFORT, ScoredRun, differing, read_scored, refuse_unlike

__all__ = ["CompareSettings", "compare"]

logger = logging.getLogger("medseg")

_FEW = 10  # cases
_DRAWS = 10_000  # bootstrap resamples of the difference of means


@dataclass(frozen=True)
class CompareSettings:
    """Which runs are compared, by which score.

    Attributes:
        runs: two or more run folders, results of `medseg ensemble`, or scores/test of a run; the first is the baseline.
        output: folder for comparison.html, .md, .csv, .json and figures.
        score: score that is compared.
    """

    runs: Sequence[Folder] = field(metadata={"option": "run"})
    output: Folder
    _: KW_ONLY
    score: Literal["dice", "surface_dice", "hd95"] = "dice"


@takes(CompareSettings)
def compare(settings: CompareSettings) -> dict[str, Any]:
    """Compare validated runs case by case: paired differences with intervals, tests and effect sizes.

    Every run is compared with the first; writes ``comparison.json``, ``.csv``, ``.md`` and ``.html`` and its figures.

    Returns:
        ``cases``, ``labels``, ``warnings``, ``runs`` (name, mean with interval, cost), ``scores`` (run -> label ->
        score per case) and ``comparisons``: per pair and label the figures of ``medseg.metrics.paired_comparison``
        with Holm-adjusted p-values over all rows. The row ``mean`` is the difference of the runs' means, each the mean
        over labels of the mean over cases that all runs have a score for; its test is of each case's mean over labels.

    Raises:
        ConfigError: fewer than two runs.
        DataError: a run was not validated, or its scores mean something else (``refuse_unlike``).

    Examples:
        >>> compared = medseg.compare(["runs/first", "runs/second"], "compared")
        >>> [row["label"] for row in compared["comparisons"]]
        ['liver', 'spleen', 'kidneys', 'mean']
    """
    score = settings.score
    folders = [Path(run).resolve() for run in settings.runs]
    if len(folders) < 2:
        raise ConfigError("A comparison needs two or more runs; repeat --run.")
    scored = read_scored(folders)
    refuse_unlike(scored, score)
    cases, labels = sorted(scored[0].cases), list(scored[0].scores["labels"])
    warnings = differing(scored, score)
    if len(cases) < _FEW:
        warnings.append(f"Only {len(cases)} cases: intervals over so few are too narrow, and tests have little power.")
    for text in warnings:
        logger.warning("%s", text)
    table = _scores([run.scores for run in scored], cases, labels, score)
    names = [run.name for run in scored]
    rows = []
    for name, values in list(zip(names, table, strict=True))[1:]:
        for target in [*labels, "mean"]:
            figures = paired_comparison(table[0].by_label[target], values.by_label[target])
            if target == "mean":
                figures |= _difference(table[0].shared, values.shared)
            rows.append({"baseline": names[0], "run": name, "label": target, **figures})
    for row, p_value in zip(rows, holm([row["p_value"] for row in rows]), strict=True):
        row["p_holm"] = p_value
    summary = [
        {"run": run.name, **_mean(values.shared), **_scored_as(run), **_cost(run.facts)}
        for run, values in zip(scored, table, strict=True)
    ]
    content = {
        "score": score,
        "cases": cases,
        "labels": labels,
        "warnings": warnings,
        "runs": summary,
        "scores": {name: values.by_label for name, values in zip(names, table, strict=True)},
        "comparisons": rows,
    }
    target_dir = Path(settings.output)
    write_json(target_dir / "comparison.json", content)
    table_file = target_dir / "comparison.csv"
    with whole_file(table_file) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = CsvWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    write_comparison(content, target_dir)
    return content


@dataclass(frozen=True)
class _Scores:
    """One run's scores.

    Attributes:
        by_label: label -> score per case, and ``mean`` over the labels that all runs have a score for in that case.
        shared: ``(cases, labels)``, NaN where any run has no score, so that means over it have equal terms in all runs.
    """

    by_label: dict[str, list[float]]
    shared: np.ndarray


def _scores(
    metrics: Sequence[Mapping[str, Any]], cases: Sequence[str], labels: Sequence[str], score: str
) -> list[_Scores]:
    rows = [
        [[content["cases"][case].get(label, {}).get(score) for case in cases] for label in labels]
        for content in metrics
    ]
    scores = np.array(rows, dtype=float).reshape(len(metrics), len(labels), len(cases))
    shared = np.isfinite(scores).all(axis=0)  # a distance is undefined for the run that misses a label
    totals, counts = np.where(shared, scores, 0.0).sum(axis=1), shared.sum(axis=0)
    means = np.divide(totals, counts, out=np.full_like(totals, np.nan), where=counts > 0)
    return [
        _Scores(
            {**dict(zip(labels, run.tolist(), strict=True)), "mean": mean.tolist()}, np.where(shared, run, np.nan).T
        )
        for run, mean in zip(scores, means, strict=True)
    ]


def _mean(shared: np.ndarray) -> dict[str, Any]:
    """Mean over labels of the mean over cases, with its interval."""
    found = mean_interval(shared)
    return {"mean": found.mean, "interval": (found.low, found.high)}


def _difference(first: np.ndarray, second: np.ndarray) -> dict[str, Any]:
    """The difference of two such means, with its interval over cases."""
    found = mean_interval(second - first, draws=_DRAWS)
    return {"mean_difference": found.mean, "interval": (found.low, found.high)}


def _scored_as(run: ScoredRun) -> dict[str, Any]:
    return {
        "scored_on": run.scored_on,
        "checkpoint": run.scores.get("checkpoint"),
        "postprocessing": run.definition.postprocessing,
    }


def _cost(facts: RunFacts) -> dict[str, Any]:
    names = ("network", *COSTS, "measured_on", *EFFORT, "schedule_completed")
    return {name: value for name in names if (value := getattr(facts, name)) is not None}
