"""Charts of a comparison: paired differences per label, and scores against costs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from medseg.labels.colors import label_colors
from medseg.reports.compared import Comparison
from medseg.reports.drawing import ACCENT, FAINT, INK, even_spread, plain_axes, shortened

__all__ = ["COSTS", "cost_figure", "differences_figure"]

# Fact of a run -> what it is called, its unit, and how many of the fact's own units make one of these.
COSTS = {
    "multiply_adds_per_case": ("multiply-adds per case", "G", 1e9),
    "seconds_per_case": ("time per case", "s", 1.0),
    "peak_memory_bytes": ("peak memory", "MiB", 2.0**20),
    "parameters": ("parameters", "M", 1e6),
}
_COLUMNS = 3
_ROW = 0.4  # inches per label


def differences_figure(comparison: Comparison, score_name: str) -> Figure:
    """A panel per run: its differences to the baseline on every case, with mean and 95 % interval, per label.

    Args:
        comparison: what was found.
        score_name: with the unit, such as ``HD95, mm``.
    """
    runs = comparison.runs[1:]
    targets = [*comparison.labels, "mean"]
    columns = min(_COLUMNS, len(runs))
    rows = -(-len(runs) // columns)
    figure = Figure(figsize=(1.7 + 4.4 * columns, rows * (1.25 + _ROW * len(targets))), layout="constrained")
    grid = np.atleast_2d(figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False))
    for axes, run in zip(grid.flat, runs, strict=False):
        _differences(axes, comparison, run.run, targets)
        axes.set_title(f"{shortened(run.run)} minus {shortened(comparison.runs[0].run)}", loc="left",
                       fontsize=10, color=INK, parse_math=False)  # fmt: skip
        axes.set_xlabel(f"difference of {score_name}; dot: a case, diamond: mean, bar: 95 %", fontsize=9, color=INK)
    for axes in list(grid.flat)[len(runs) :]:
        axes.set_visible(False)
    return figure


def _differences(axes: Axes, comparison: Comparison, run: str, targets: Sequence[str]) -> None:
    rows = {row.label: row for row in comparison.comparisons if (row.run, row.score) == (run, comparison.score)}
    baseline = comparison.runs[0].run
    axes.axvline(0, color=INK, linewidth=1, zorder=1)
    for place, target in enumerate(targets):
        pair = (comparison.scores[name][target] for name in (run, baseline))
        difference = np.subtract(*(np.array(values, dtype=float) for values in pair))
        difference = np.sort(difference[np.isfinite(difference)])
        places = place + even_spread(len(difference), 0.5)
        axes.plot(difference, places, "o", color=ACCENT, markersize=3.5, alpha=0.4, mec="none", zorder=2)
        row = rows[target]
        if np.isfinite(row.interval[0]):
            axes.plot(row.interval, [place] * 2, color=INK, linewidth=2.4, solid_capstyle="butt", zorder=3)
        if row.cases:
            axes.plot([row.mean_difference], [place], "D", color=INK, markersize=4.5, mec="white", mew=0.6, zorder=4)
    axes.axhline(len(targets) - 1.5, color=FAINT, linewidth=1)
    names = [*(shortened(target) for target in targets[:-1]), "mean over labels"]
    axes.set_yticks(range(len(targets)), names)
    axes.set_ylim(len(targets) - 0.5, -0.5)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]))
    plain_axes(axes)
    axes.grid(axis="y", visible=False)
    for tick in axes.get_yticklabels():
        tick.set_parse_math(False)
        tick.set_fontsize(10)


def cost_figure(comparison: Comparison, score_name: str) -> Figure | None:
    """Mean score with its 95 % interval against every cost that two runs or more record; ``None`` without any."""
    runs = comparison.runs
    costs = [key for key in COSTS if sum(getattr(run, key) is not None for run in runs) > 1]
    if not costs:
        return None
    colors = label_colors([run.run for run in runs])
    figure = Figure(figsize=(1.2 + 2.9 * len(costs), 3.5), layout="constrained")
    grid = np.atleast_1d(figure.subplots(1, len(costs), sharey=True))
    for axes, key in zip(grid, costs, strict=True):
        name, unit, factor = COSTS[key]
        shown = [run for run in runs if getattr(run, key) is not None]
        for run in shown:
            low, high = run.interval
            place = getattr(run, key) / factor
            if np.isfinite(low):
                axes.plot([place, place], [low, high], color=colors[run.run], linewidth=1.6)
            axes.plot(place, run.mean, "o", color=colors[run.run], markersize=8, label=run.run)
        values = [getattr(run, key) / factor for run in shown]
        if values and min(values) > 0 and max(values) > 10 * min(values):
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
            axes.xaxis.set_minor_formatter("")
        else:
            axes.set_xlim(0, 1.15 * max(values, default=1.0))
        axes.set_xlabel(f"{name}, {unit}", fontsize=9, color=INK)
        plain_axes(axes)
    grid[0].set_ylabel(f"mean {score_name}", fontsize=9, color=INK)
    found = (pair for axes in grid for pair in zip(*axes.get_legend_handles_labels(), strict=True))
    named = {name: handle for handle, name in found}  # a run may be without one of the costs
    names = [run.run for run in runs if run.run in named]
    handles = [named[name] for name in names]
    legend = figure.legend(handles, names, loc="outside upper left", ncols=min(5, len(names)), frameon=False,
                           fontsize=9, labelcolor=INK)  # fmt: skip
    for text in legend.get_texts():
        text.set_parse_math(False)
    return figure
