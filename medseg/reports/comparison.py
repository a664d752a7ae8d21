"""Write a comparison of runs for readers: ``comparison.html``, ``comparison.md`` and the figures as PNG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medseg.metrics.catalog import metric
from medseg.reports.compared import Comparison
from medseg.reports.comparison_charts import COSTS, cost_figure, differences_figure
from medseg.reports.drawing import Chart, save_png, to_chart
from medseg.reports.page import Table, render
from medseg.reports.tables import digits, grouped, markdown_table, scaled
from medseg.storage import write_text

__all__ = ["comparison_markdown", "write_comparison"]

_MOST_CASES = 60
_METHOD = (
    "Differences are paired: run minus baseline on the same case. Intervals: 95 %, percentile bootstrap over cases "
    "(10 000 draws for differences, 2 000 for means). p: Wilcoxon signed-rank, two-sided; after Holm's correction over "
    "all rows of the table. Effect: matched-pairs rank-biserial correlation, from -1 (worse on every case) to 1 "
    "(better on every case){reversed}. Cases whose reference lacks a label are left out of it. A run's mean is the "
    "mean over labels of the mean over cases that all runs have a score for, and the mean difference is the difference "
    "of two such means; its p and effect are of each case's mean over labels."
)
_COST = (
    "Per case: inference, from the prepared image to the network's output, without reading, resampling and scores "
    "(ensembles: with resampling); median time, largest memory above the level before the case. A multiply-add is two "
    "FLOP; element-wise work is not counted."
)


@dataclass(frozen=True)
class _Page:
    """What ``templates/comparison.html`` shows; what is ``None`` is not shown."""

    title: str
    sentences: Sequence[str]
    warnings: Sequence[str]
    score: str
    differences: Chart
    difference_table: Table
    method: str
    costs: Chart | None
    run_table: Table
    training_table: Table | None
    case_table: Table
    case_order: str
    cost_method: str = _COST


def write_comparison(comparison: Comparison, directory: str | Path) -> Path:
    """Write page, Markdown and figures; returns the page.

    Args:
        comparison: what was found.
        directory: an existing folder.
    """
    folder = Path(directory)
    name = score_name(comparison.score)
    differences, costs = differences_figure(comparison, name), cost_figure(comparison, name)
    save_png(differences, folder / "differences.png")
    (folder / "costs.png").unlink(missing_ok=True)
    if costs is not None:
        save_png(costs, folder / "costs.png")
    text = "\n\n".join([*(f"Warning: {line}" for line in comparison.warnings), comparison_markdown(comparison)])
    write_text(folder / "comparison.md", text + "\n")
    page = _Page(
        title=f"{', '.join(run.run for run in comparison.runs[1:])} against {comparison.runs[0].run}",
        sentences=_sentences(comparison),
        warnings=comparison.warnings,
        score=name,
        differences=to_chart(differences, "differences", f"Paired differences of {name} per label"),
        difference_table=_difference_table(comparison),
        method=_method(comparison),
        costs=None if costs is None else to_chart(costs, "costs", f"{name} against cost"),
        run_table=_run_table(comparison),
        training_table=_training_table(comparison),
        case_table=_case_table(comparison),
        case_order=_case_order(comparison),
    )
    path = folder / "comparison.html"
    write_text(path, render("comparison.html", page))
    return path


def comparison_markdown(comparison: Comparison) -> str:
    """The tables and what they mean, for a terminal and for a README."""
    tables = [_run_table(comparison), _training_table(comparison), _difference_table(comparison)]
    meaning = f"{len(comparison.cases)} cases; score: {score_name(comparison.score)}. {_method(comparison)} {_COST}"
    return "\n\n".join([*(markdown_table(table.header, table.rows) for table in tables if table), meaning])


def score_name(score: str) -> str:
    """A score with its unit."""
    return metric(score).heading()


def _method(comparison: Comparison) -> str:
    reversed_ = (
        "; of a distance less is better, so the signs are the other way round"
        if metric(comparison.score).lower_is_better
        else ""
    )
    return _METHOD.format(reversed=reversed_)


def _sentences(comparison: Comparison) -> list[str]:
    rows = [row for row in comparison.comparisons if row.label == "mean"]
    return [
        f"{row.run} minus {row.baseline}: difference of the mean {score_name(comparison.score)} over labels "
        f"{digits(row.mean_difference, 4, sign=True)} (95 % interval {_interval(row.interval, sign=True)}, "
        f"p {_p_value(row.p_holm)}) over {row.cases} cases."
        for row in rows
    ]


def _run_table(comparison: Comparison) -> Table:
    header = ["run", "network", "scored on", "checkpoint", "predictions"]
    header += [f"mean {score_name(comparison.score)}", "95 % interval"]
    header += [f"{name}, {unit}" for name, unit, _ in COSTS.values()] + ["measured on"]
    rows = []
    for run in comparison.runs:
        costs = [scaled(getattr(run, key), factor) for key, (_, _, factor) in COSTS.items()]
        rows.append(
            [
                run.run,
                run.network or "–",
                run.scored_on,
                run.checkpoint or "–",
                run.postprocessing,
                digits(run.mean, 4),
                _interval(run.interval),
                *costs,
                run.measured_on or "–",
            ]
        )
    return Table(header, rows)


def _training_table(comparison: Comparison) -> Table | None:
    """How much each run was trained; ``None`` where nothing is recorded."""
    header = ["run", "iterations", "epochs", "validations", "training, min", "CPU, min", "learning-rate schedule"]
    schedule = {True: "completed", False: "cut before its end"}
    rows = [
        [
            run.run,
            *(grouped(getattr(run, key)) for key in ("iterations", "epochs_done", "validations")),
            *(scaled(getattr(run, key), 60.0) for key in ("training_seconds", "cpu_seconds")),
            "–" if run.schedule_completed is None else schedule[run.schedule_completed],
        ]
        for run in comparison.runs
    ]
    return Table(header, rows) if any(cell != "–" for row in rows for cell in row[1:]) else None


def _difference_table(comparison: Comparison) -> Table:
    header = ["run", "label", "cases", "mean difference", "95 % interval", "p", "p (Holm)", "effect"]
    rows = [
        [
            row.run,
            "mean over labels" if row.label == "mean" else row.label,
            grouped(row.cases),
            digits(row.mean_difference, 4, sign=True),
            _interval(row.interval, sign=True),
            _p_value(row.p_value),
            _p_value(row.p_holm),
            digits(row.effect_size, 2, sign=True),
        ]
        for row in comparison.comparisons
    ]
    return Table(header, rows)


def _case_table(comparison: Comparison) -> Table:
    names = [run.run for run in comparison.runs]
    means = [comparison.scores[name]["mean"] for name in names]
    change = np.subtract(means[1], means[0], dtype=float)
    order = sorted(range(len(change)), key=lambda i: (math.isnan(change[i]), change[i]))
    shown = order if len(order) <= _MOST_CASES else [*order[: _MOST_CASES // 2], *order[-_MOST_CASES // 2 :]]
    rows = [
        [comparison.cases[i], *(digits(column[i], 4) for column in means), digits(change[i], 4, sign=True)]
        for i in shown
    ]
    return Table(["case", *names, "difference"], rows)


def _case_order(comparison: Comparison) -> str:
    first, other = (run.run for run in comparison.runs[:2])
    number = len(comparison.cases)
    some = f" The {_MOST_CASES // 2} lowest and highest of {number}; all are in comparison.json."
    return f"Sorted by the difference {other} minus {first}." + (some if number > _MOST_CASES else "")


def _interval(bounds: Sequence[float], *, sign: bool = False) -> str:
    low, high = (digits(bound, 4, sign=sign) for bound in bounds)
    return "–" if low == "–" else f"{low} to {high}"


def _p_value(value: float) -> str:
    if not math.isfinite(value):
        return "–"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
