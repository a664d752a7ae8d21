"""Write a study for readers: ``study.html``, ``study.json``, tables as CSV, Markdown and LaTeX, and figures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from matplotlib.figure import Figure

from medseg.metrics.estimate import less_is_better
from medseg.reports.comparison import score_name
from medseg.reports.drawing import Chart, save_figure, to_chart
from medseg.reports.page import Table, render
from medseg.reports.studied import Costs, StudiedData, StudiedMethod, StudyResult
from medseg.reports.study_charts import critical_difference_figure, forest_figure, rank_figure
from medseg.reports.tables import digits, grouped, latex_table, markdown_table, scaled
from medseg.storage import whole_file, write_json, write_text
from medseg.storage.csv_file import CsvWriter

__all__ = ["study_markdown", "write_study"]

_COSTS = {
    "parameters": ("parameters, M", 1e6),
    "iterations": ("iterations", 1.0),
    "training_seconds": ("training, min", 60.0),
    "cpu_seconds": ("CPU, min", 60.0),
    "training_peak_bytes": ("training memory, MiB", 2.0**20),
    "energy_joules": ("energy, Wh", 3600.0),
    "seconds_per_case": ("inference, s per case", 1.0),
    "peak_memory_bytes": ("inference memory, MiB", 2.0**20),
}
_COST_METHOD = (
    "Means over a method's trainings. Memory: largest above the level before. Energy: an estimate, of all processors "
    "of the machine while a training ran, whoever used them, without GPUs."
)
_NO_ENERGY = " The energy was not measured: the machine does not tell it (Linux powercap, RAPL)."
_RANKS = (
    "Rank stability: area of a dot is the share of bootstrap samples of subjects in which a method has a rank, cross: "
    "rank on all subjects, line: 95 % of the samples; chance in training is not part of it. Critical difference: "
    "average ranks over subjects; methods that a bar joins differ by less than Nemenyi's critical difference at 5 %."
)


@dataclass(frozen=True)
class _Page:
    """What ``templates/study.html`` shows; what is ``None`` is not shown."""

    title: str
    sentences: Sequence[str]
    warnings: Sequence[str]
    score: str
    score_table: Table
    score_method: str
    forest: Chart
    difference_table: Table
    difference_method: str
    ranks: Chart
    critical: Chart | None
    rank_table: Table
    rank_method: str
    label_tables: Sequence[tuple[str, Table]]
    cost_tables: Sequence[tuple[str, Table]]
    cost_method: str
    methods: str


def write_study(result: StudyResult, directory: str | Path) -> Path:
    """Write page, tables and figures; returns the page."""
    folder, name = Path(directory), score_name(result.score)
    figures: dict[str, Figure | None] = {
        "forest": forest_figure(result.data, name),
        "ranks": rank_figure(result.data),
        "critical_difference": critical_difference_figure(result.data),
    }
    for key, figure in figures.items():
        if figure is not None:
            save_figure(figure, folder / "figures" / key)
    table = _score_table(result)
    _write_csv(result, folder / "study.csv")
    write_text(folder / "study.md", study_markdown(result) + "\n")
    caption = f"Mean {name} with 95 % intervals. {_score_method(result)}"
    write_text(
        folder / "study.tex",
        latex_table(table.header, table.rows, caption, bold=_best(result)),
    )
    write_json(folder / "study.json", _plain(result))
    critical = figures["critical_difference"]
    page = _Page(
        title=", ".join(one.name for one in result.data),
        sentences=[_lead(result, one) for one in result.data],
        warnings=[*_warnings(result), *_missing(result)],
        score=name,
        score_table=table,
        score_method=_score_method(result),
        forest=to_chart(_drawn(figures["forest"]), "forest", f"Differences of the mean {name} to the baseline"),
        difference_table=_difference_table(result),
        difference_method=_difference_method(result),
        ranks=to_chart(_drawn(figures["ranks"]), "ranks", "Ranks in bootstrap samples"),
        critical=None if critical is None else to_chart(critical, "critical", "Average ranks and critical difference"),
        rank_table=_rank_table(result),
        rank_method=_RANKS,
        label_tables=[(one.name, _label_table(one)) for one in result.data],
        cost_tables=[(one.name, _cost_table(one)) for one in result.data],
        cost_method=_cost_method(result),
        methods=" ".join([*result.methods, _difference_method(result)]),
    )
    path = folder / "study.html"
    write_text(path, render("study.html", page))
    return path


def _warnings(result: StudyResult) -> list[str]:
    found = [f"{one.name}: {line}" for one in result.data for line in one.warnings]
    return found + [f"{one.name}: {line}" for one in result.external for line in one.biases]


def _drawn(figure: Figure | None) -> Figure:
    assert figure is not None
    return figure


def study_markdown(result: StudyResult) -> str:
    """The tables, what they mean, and the Methods paragraph, for a terminal and for a README."""
    parts = [f"Warning: {line}" for line in _warnings(result)] + _missing(result)
    tables = [_score_table(result), _difference_table(result), _rank_table(result)]
    parts += [markdown_table(table.header, table.rows) for table in tables]
    parts += [_score_method(result)]
    for one in result.data:
        table = _cost_table(one)
        parts += [f"Costs on {one.name}:", markdown_table(table.header, table.rows)]
    return "\n\n".join([*parts, _cost_method(result), " ".join([*result.methods, _difference_method(result)])])


def _missing(result: StudyResult) -> list[str]:
    return [f"Not done: {text}" for text in result.missing]


def _lead(result: StudyResult, one: StudiedData) -> str:
    sign = -1 if less_is_better(result.score) else 1
    best = max(one.methods, key=lambda method: sign * method.mean if math.isfinite(method.mean) else -math.inf)
    wins = f"{one.stability.winner_wins:.0%}".replace("%", " %")
    return (
        f"{one.name}: {best.name} has the best mean {score_name(result.score)}, {_mean(best)}, over {one.subjects} "
        f"subjects ({one.cases} cases); it is first in {wins} of bootstrap samples."
    )


def _mean(method: StudiedMethod) -> str:
    low, high = (digits(bound, 3) for bound in method.interval)
    interval = "" if low == "–" else f" ({low} to {high})"
    return f"{digits(method.mean, 3)}{interval}"


def _score_table(result: StudyResult) -> Table:
    header = ["method", "parameters, M"]
    for one in result.data:
        header += [f"{one.name}{f' (from {one.transfer})' if one.transfer else ''}"]
        header += ["seed SD"] if one.seeds > 1 else []
    header += [one.name for one in result.external]
    rows = []
    for number, method in enumerate(result.data[0].methods):
        row = [method.name, scaled(method.costs.parameters, 1e6)]
        for one in result.data:
            row += [_mean(one.methods[number])]
            row += [digits(one.methods[number].seed_sd, 4)] if one.seeds > 1 else []
        for outside in result.external:
            spread = outside.sds[method.name]
            shown = f" ± {digits(spread, 3)}" if math.isfinite(spread) else ""
            row.append(f"{digits(outside.means[method.name], 3)}{shown}")
        rows.append(row)
    return Table(header, rows)


def _best(result: StudyResult) -> frozenset[tuple[int, int]]:
    """Row and column of the best mean of each data set."""
    sign = -1 if less_is_better(result.score) else 1
    found, column = set(), 2
    for one in result.data:
        means = [sign * method.mean for method in one.methods]
        found |= {(row, column) for row, mean in enumerate(means) if mean == max(means)}
        column += 2 if one.seeds > 1 else 1
    for outside in result.external:
        means = list(outside.means.values())
        found |= {(row, column) for row, mean in enumerate(means) if mean == max(means)}
        column += 1
    return frozenset(found)


def _score_method(result: StudyResult) -> str:
    several = any(one.seeds > 1 for one in result.data)
    chance = "new subjects and new trainings (two-way analysis of variance)" if several else "new subjects"
    text = f"Intervals: 95 %, over {chance}."
    text += " Seed SD: standard deviation of the seeds' means." if several else ""
    if any(one.seeds == 2 for one in result.data):
        text += " Two seeds tell little of the chance in training (about one degree of freedom): intervals are wide."
    for outside in result.external:
        text += (
            f" {outside.name}: {outside.cases} cases{'' if outside.biases else ' that no training saw'}, mean Dice ± "
            f"standard deviation over "
            f"{outside.trainings} {'training' if outside.trainings == 1 else 'trainings'} on {outside.trained_on}."
        )
    return text


def _difference_table(result: StudyResult) -> Table:
    rows = []
    for one in result.data:
        for row in one.differences:
            low, high = (digits(bound, 4, sign=True) for bound in row.interval)
            interval = "–" if low == "–" else f"{low} to {high}"
            cells = [digits(row.mean, 4, sign=True), interval, _p_value(row.p_value), _p_value(row.p_holm)]
            rows.append([f"{row.method} minus {one.methods[0].name}", one.name, *cells])
    return Table(["pair", "data", "mean difference", "95 % interval", "p", "p (Holm)"], rows)


def _p_value(value: float) -> str:
    if not math.isfinite(value):
        return "–"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _difference_method(result: StudyResult) -> str:
    several = any(one.seeds > 1 for one in result.data)
    how = (
        "Differences to the baseline are of means over seeds, paired by subject; intervals and p-values hold for new "
        "subjects and new trainings (two-way analysis of variance without replication, Satterthwaite's degrees of "
        "freedom)."
        if several
        else "Differences to the baseline are paired; intervals and p-values are those of `medseg compare`, whose page "
        "in compared/ says how they are made."
    )
    return f"{how} p-values were corrected by Holm over the methods of a data set."


def _rank_table(result: StudyResult) -> Table:
    rows = []
    for one in result.data:
        for number, method in enumerate(one.methods):
            stability = one.stability
            average = None if one.average is None else float(one.average.ranks[number])
            rows.append(
                [
                    method.name,
                    one.name,
                    str(int(stability.ranks[number])),
                    f"{int(stability.low[number])} to {int(stability.high[number])}",
                    f"{stability.shares[number][0]:.0%}".replace("%", " %"),
                    digits(average, 2),
                ]
            )
    return Table(["method", "data", "rank", "95 % of samples", "first", "average rank"], rows)


def _label_table(one: StudiedData) -> Table:
    labels = list(one.methods[0].labels)
    rows = [
        [method.name, *(digits(method.labels[label], 3) for label in labels), str(method.failures)]
        for method in one.methods
    ]
    return Table(["method", *labels, "failed cases"], rows)


def _cost_table(one: StudiedData) -> Table:
    rows = []
    for method in one.methods:
        cells = {key: scaled(getattr(method.costs, key), unit) for key, (_, unit) in _COSTS.items()}
        iterations = method.costs.iterations
        cells["iterations"] = grouped(None if iterations is None else round(iterations))
        if method.costs.energy_joules is None:
            cells["energy_joules"] = "not measured"
        rows.append([method.name, *cells.values()])
    return Table(["method", *(name for name, _ in _COSTS.values())], rows)


def _cost_method(result: StudyResult) -> str:
    measured = all(method.costs.energy_joules is not None for one in result.data for method in one.methods)
    return _COST_METHOD + ("" if measured else _NO_ENERGY)


def _write_csv(result: StudyResult, path: Path) -> None:
    costs = [one.name for one in fields(Costs)]
    header = ["data", "method", "score", "mean", "low", "high", "seed_sd", "subjects", "cases", "failed", *costs]
    with whole_file(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = CsvWriter(file)
        writer.writerow(header)
        for one in result.data:
            for method in one.methods:
                numbers = [method.mean, *method.interval, method.seed_sd]
                known = ["" if value is None or math.isnan(value) else f"{value:.6g}" for value in numbers]
                spent = [getattr(method.costs, name) for name in costs]
                row = [one.name, method.name, result.score, *known, one.subjects, one.cases, method.failures]
                writer.writerow([*row, *("" if value is None else value for value in spent)])
        for outside in result.external:
            for name, mean in outside.means.items():
                writer.writerow([outside.name, name, "dice", f"{mean:.6g}", "", "", "", "", outside.cases])


def _plain(result: StudyResult) -> dict[str, object]:
    """For JSON: arrays become lists."""
    data = []
    for one in result.data:
        table = {field.name: getattr(one, field.name) for field in fields(one)}
        table["stability"] = {key: _listed(value) for key, value in vars(one.stability).items()}
        table["average"] = one.average and {key: _listed(value) for key, value in vars(one.average).items()}
        data.append(table)
    return {"score": result.score, "data": data, "external": list(result.external), "methods": list(result.methods),
            "missing": list(result.missing)}  # fmt: skip


def _listed(value: object) -> object:
    return value.tolist() if hasattr(value, "tolist") else value
