"""Compare runs that were validated on the same cases: paired differences with intervals, tests and effect sizes,
beside their cost.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field, fields, replace
from pathlib import Path

import numpy as np

from medseg.errors import ConfigError, few, nearest
from medseg.metrics import Scores, mean_interval
from medseg.metrics.paired import holm, paired_comparison
from medseg.reports.compared import ComparedRun, Comparison, Difference
from medseg.reports.comparison import write_comparison
from medseg.settings import Folder, takes
from medseg.storage import as_table, whole_file, write_json
from medseg.storage.csv_file import CsvWriter
from medseg.workflows.comparable import ScoredRun, differing, read_scored, refuse_unlike

__all__ = ["CompareSettings", "compare"]

logger = logging.getLogger("medseg")

_FEW = 10  # cases
_DRAWS = 10_000  # bootstrap resamples of the difference of means


@dataclass(frozen=True)
class CompareSettings:
    """Which runs are compared, by which score.

    Attributes:
        runs: two or more run folders, results of `medseg ensemble` or `evaluate`, scores/test of a run, or nnU-Net's
            folders with summary.json; the first is the baseline.
        output: folder for comparison.html, .md, .csv, .json and figures.
        score: score that is compared, one of those that the runs have (see `medseg metrics`).
    """

    runs: Sequence[Folder] = field(metadata={"option": "run"})
    output: Folder
    _: KW_ONLY
    score: str = "dice"


@takes(CompareSettings)
def compare(settings: CompareSettings) -> Comparison:
    """Compare validated runs case by case: paired differences with intervals, tests and effect sizes.

    Every run is compared with the first; writes ``comparison.json``, ``.csv``, ``.md`` and ``.html`` and its figures.

    Raises:
        ConfigError: fewer than two runs.
        DataError: a run was not validated, or its scores mean something else (``refuse_unlike``).

    Examples:
        >>> compared = medseg.compare(["runs/first", "runs/second"], "compared")
        >>> [row.label for row in compared.comparisons]
        ['liver', 'spleen', 'kidneys', 'mean']
    """
    score = settings.score
    folders = [Path(run).resolve() for run in settings.runs]
    if len(folders) < 2:
        raise ConfigError("A comparison needs two or more runs; repeat --run.")
    scored = read_scored(folders)
    names = [run.name for run in scored]
    refuse_unlike(scored, score)
    own, score = scored[0].scores.metrics, scored[0].scores.named(score)
    if score not in own:
        raise ConfigError(f"{names[0]} has no score '{score}'.{nearest(score, own)} It has {few(own)}.")
    cases, labels = sorted(scored[0].cases), list(scored[0].scores.labels)
    warnings = differing(scored, score)
    if len(cases) < _FEW:
        warnings.append(f"Only {len(cases)} cases: intervals over so few are too narrow, and tests have little power.")
    for text in warnings:
        logger.warning("%s", text)
    table = _scores([run.scores for run in scored], cases, labels, score)
    rows = []
    for name, values in list(zip(names, table, strict=True))[1:]:
        for target in [*labels, "mean"]:
            figures = paired_comparison(table[0].by_label[target], values.by_label[target])
            if target == "mean":
                found = mean_interval(values.shared - table[0].shared, draws=_DRAWS)
                figures = replace(figures, mean_difference=found.mean, interval=(found.low, found.high))
            rows.append(Difference(names[0], name, target, **vars(figures), p_holm=math.nan))
    adjusted = holm([row.p_value for row in rows])
    comparison = Comparison(
        score=score,
        cases=cases,
        labels=labels,
        warnings=warnings,
        runs=[_compared(run, values.shared) for run, values in zip(scored, table, strict=True)],
        scores={name: values.by_label for name, values in zip(names, table, strict=True)},
        comparisons=[replace(row, p_holm=p_value) for row, p_value in zip(rows, adjusted, strict=True)],
    )
    target_dir = Path(settings.output)
    write_json(target_dir / "comparison.json", comparison)
    table_file = target_dir / "comparison.csv"
    with whole_file(table_file) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = CsvWriter(file, [column.name for column in fields(Difference)])
        writer.writeheader()
        writer.writerows(as_table(row) for row in comparison.comparisons)
    write_comparison(comparison, target_dir)
    return comparison


@dataclass(frozen=True)
class _Scores:
    """One run's scores.

    Attributes:
        by_label: label -> score per case, and ``mean`` over the labels that all runs have a score for in that case.
        shared: ``(cases, labels)``, NaN where any run has no score, so that means over it have equal terms in all runs.
    """

    by_label: dict[str, list[float]]
    shared: np.ndarray


def _scores(runs: Sequence[Scores], cases: Sequence[str], labels: Sequence[str], score: str) -> list[_Scores]:
    rows = [
        [[run.cases[case].get(label, {}).get(score, math.nan) for case in cases] for label in labels] for run in runs
    ]
    scores = np.array(rows, dtype=float).reshape(len(runs), len(labels), len(cases))
    shared = np.isfinite(scores).all(axis=0)  # a distance is undefined for the run that misses a label
    totals, counts = np.where(shared, scores, 0.0).sum(axis=1), shared.sum(axis=0)
    means = np.divide(totals, counts, out=np.full_like(totals, np.nan), where=counts > 0)
    return [
        _Scores(
            {**dict(zip(labels, run.tolist(), strict=True)), "mean": mean.tolist()}, np.where(shared, run, np.nan).T
        )
        for run, mean in zip(scores, means, strict=True)
    ]


def _compared(run: ScoredRun, shared: np.ndarray) -> ComparedRun:
    found = mean_interval(shared)
    own = ComparedRun(
        run=run.name,
        mean=found.mean,
        interval=(found.low, found.high),
        scored_on=run.scored_on,
        checkpoint=run.scores.facts.checkpoint,
        postprocessing=run.definition.postprocessing,
    )
    facts = as_table(run.facts)
    return replace(own, **{field.name: facts[field.name] for field in fields(own) if field.name in facts})
