"""Write a comparison of methods for readers: ``comparison.html``, ``.md``, ``.tex`` and the figures as PNG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medseg.metrics.catalog import metric
from medseg.metrics.estimate import less_is_better
from medseg.reports.compared import Comparison, Difference
from medseg.reports.comparison_charts import COSTS, cost_figure, differences_figure
from medseg.reports.drawing import Chart, save_png, to_chart
from medseg.reports.page import Table, render
from medseg.reports.tables import digits, grouped, latex_table, markdown_table, scaled, share_of
from medseg.storage import write_text

__all__ = ["comparison_latex", "comparison_markdown", "score_name", "write_comparison"]

_MOST_CASES = 60
_WHERE = ("scored on", "checkpoint", "predictions", "measured on")  # columns that a paper says in words
_METHOD = (
    "Differences are paired: method minus baseline on the same case. p: two-sided sign-flip test of the mean over "
    "{units}; the 95 % interval is of all differences that it does not reject (below six {units}: neither). Secondary "
    "p-values are after Holm's correction over all rows of their table, which the primary endpoint is not in. Effect: "
    "matched-pairs rank-biserial correlation over {units}, from -1 (worse in every one) to 1 (better in every one)"
    "{reversed}. Means are over labels, of the mean over cases that all methods have a score for, with the 95 % "
    "interval of the studentised bootstrap over {units} (9999 draws). Failures: cases in which the Dice of a label is "
    "below 0.1, with the exact upper bound of their share."
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
    difference_tables: Sequence[Table]
    method: str
    costs: Chart | None
    run_table: Table
    chosen: Sequence[str]
    seed_table: Table | None
    training_table: Table | None
    case_table: Table
    case_order: str
    cost_method: str = _COST


def write_comparison(comparison: Comparison, directory: str | Path) -> Path:
    """Write page, Markdown, LaTeX and figures; returns the page.

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
    write_text(folder / "comparison.tex", comparison_latex(comparison))
    page = _Page(
        title=f"{', '.join(run.run for run in comparison.runs[1:])} against {comparison.runs[0].run}",
        sentences=_sentences(comparison),
        warnings=comparison.warnings,
        score=name,
        differences=to_chart(differences, "differences", f"Paired differences of {name} per label"),
        difference_tables=_difference_tables(comparison),
        method=_method(comparison),
        costs=None if costs is None else to_chart(costs, "costs", f"{name} against cost"),
        run_table=_run_table(comparison),
        chosen=comparison.chosen,
        seed_table=_seed_table(comparison),
        training_table=_training_table(comparison),
        case_table=_case_table(comparison),
        case_order=_case_order(comparison),
    )
    path = folder / "comparison.html"
    write_text(path, render("comparison.html", page))
    return path


def comparison_markdown(comparison: Comparison) -> str:
    """The tables and what they mean, for a terminal and for a README."""
    tables = [_run_table(comparison), _seed_table(comparison), _training_table(comparison)]
    tables += _difference_tables(comparison)
    shown = [_titled(table) for table in tables if table]
    return "\n\n".join([*_sentences(comparison), *shown, f"{_method(comparison)} {_COST}", *comparison.chosen])


def _titled(table: Table) -> str:
    text = markdown_table(table.header, table.rows)
    return f"{table.title}\n\n{text}" if table.title else text


def comparison_latex(comparison: Comparison) -> str:
    """The tables of scores and differences for a paper, with the package ``booktabs``."""
    runs = _run_table(comparison)
    known = [
        name not in _WHERE and any(row[place] != "–" for row in runs.rows) for place, name in enumerate(runs.header)
    ]
    kept = [place for place, shown in enumerate(known) if shown]
    runs = Table([runs.header[place] for place in kept], [[row[place] for place in kept] for row in runs.rows])
    tables = [runs, _seed_table(comparison), *_difference_tables(comparison)]
    return "\n".join(latex_table(table.header, table.rows, table.title) for table in tables if table)


def score_name(score: str) -> str:
    """A score with its unit."""
    return metric(score).heading()


def _units(comparison: Comparison) -> str:
    return "cases" if list(comparison.subjects) == list(comparison.cases) else "subjects"


def _number(comparison: Comparison, cases: int, subjects: int) -> str:
    return f"{cases} cases" + (f" of {subjects} subjects" if _units(comparison) == "subjects" else "")


def _method(comparison: Comparison) -> str:
    reversed_ = (
        "; of a distance less is better, so the signs are the other way round"
        if less_is_better(comparison.score)
        else ""
    )
    text = _METHOD.format(reversed=reversed_, units=_units(comparison))
    seeds = [run.seeds for run in comparison.runs]
    if max(seeds) == 1:
        return f"{text} Each method was trained once: chance of training is not in the intervals."
    text += (
        " Scores of several trainings are averaged in each case: intervals and p are of these trained networks. Over "
        "new trainings as well: two-way analysis of variance (t)."
    )
    if len(set(seeds)) > 1:
        text += " The methods have different numbers of trainings, so no difference has an interval over trainings."
    return text


def _sentences(comparison: Comparison) -> list[str]:
    found = []
    for row in comparison.comparisons:
        if not row.primary:
            continue
        what = (
            f"mean {score_name(row.score)} over labels"
            if row.label == "mean"
            else f"{score_name(row.score)} of {row.label}"
        )
        test = f"95 % interval {_interval(row.interval, sign=True)}, p {_p_value(row.p_holm)}"
        if not math.isfinite(row.p_value):
            test = "no interval and no p of so few"
        text = (
            f"{row.run} minus {row.baseline}: difference of the {what} {digits(row.mean_difference, 4, sign=True)} "
            f"({test}) over {_number(comparison, row.cases, row.subjects)}; {_by_subject(row)}."
        )
        if row.trainings is not None:
            bounds = (row.trainings.low, row.trainings.high)
            text += (
                f" Over new trainings as well: 95 % interval {_interval(bounds, sign=True)}, p "
                f"{_p_value(row.trainings.p_value)}."
            )
        found.append(text + _verdict(row, comparison.margin))
    return found


def _by_subject(row: Difference) -> str:
    counts = row.by_subject
    return f"higher in {counts.higher}, lower in {counts.lower}, equal in {counts.equal}"


def _verdict(row: Difference, margin: float | None) -> str:
    """The test of equivalence in a sentence; a difference that is not significant is not thereby none."""
    if margin is None:
        return ""
    shown = f"90 % interval {_interval(row.interval_90, sign=True)}, margin {margin:g}"
    if row.equivalent:
        return f" Equivalent ({shown})."
    if row.non_inferior:
        return f" Non-inferior; equivalence is not shown ({shown})."
    return f" Neither equivalence nor non-inferiority is shown ({shown})."


def _run_table(comparison: Comparison) -> Table:
    header = ["method", "network", "scored on", "checkpoint", "predictions"]
    header += [f"mean {score_name(comparison.score)}", "95 % interval", "failures"]
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
                share_of(run.failures),
                *costs,
                run.measured_on or "–",
            ]
        )
    return Table(header, rows)


def _seed_table(comparison: Comparison) -> Table | None:
    """What chance of training does; ``None`` where each method was trained once."""
    header = ["method", "trainings", "their means", "standard deviation", "95 % interval over new trainings"]
    rows = [
        [
            run.run,
            str(run.seeds),
            ", ".join(digits(mean, 4) for mean in found.seed_means),
            digits(found.seed_sd, 4),
            _interval((found.low, found.high)),
        ]
        for run in comparison.runs
        if (found := run.trainings) is not None
    ]
    return Table(header, rows, title="Chance of training") if rows else None


def _training_table(comparison: Comparison) -> Table | None:
    """How much each run was trained; ``None`` where nothing is recorded."""
    header = ["method", "iterations", "epochs", "validations", "training, min", "CPU, min", "learning-rate schedule"]
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


def _difference_tables(comparison: Comparison) -> list[Table]:
    """The primary endpoint, and the others."""
    rows = comparison.comparisons
    tables = [("Primary endpoint", [row for row in rows if row.primary])]
    secondary = [row for row in rows if not row.primary]
    tables += [("Secondary", secondary)] if secondary else []
    header = ["method", "score", "cases", "subjects", "difference", "95 % interval", "p", "p (Holm)", "effect", "+/−/="]
    header = header if _units(comparison) == "subjects" else [name for name in header if name != "subjects"]
    return [Table(header, [_difference(row, header) for row in chosen], title=title) for title, chosen in tables]


def _difference(row: Difference, header: Sequence[str]) -> list[str]:
    counts = row.by_subject
    target = "mean over labels" if row.label == "mean" else row.label
    cells = {
        "method": row.run,
        "score": f"{score_name(row.score)}: {target}",
        "cases": grouped(row.cases),
        "subjects": grouped(row.subjects),
        "difference": digits(row.mean_difference, 4, sign=True),
        "95 % interval": _interval(row.interval, sign=True),
        "p": _p_value(row.p_value),
        "p (Holm)": _p_value(row.p_holm),
        "effect": digits(row.effect_size, 2, sign=True),
        "+/−/=": f"{counts.higher}/{counts.lower}/{counts.equal}",
    }
    return [cells[name] for name in header]


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
