"""Figures of a study: forest plot, rank stability, and critical-difference diagram."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from medseg.labels.colors import label_colors
from medseg.metrics.ranking import AverageRanks
from medseg.reports.drawing import ACCENT, FAINT, INK, plain_axes, shortened
from medseg.reports.studied import StudiedData

__all__ = ["critical_difference_figure", "forest_figure", "rank_figure"]

_ROW = 0.36  # inches per method
_COLUMNS = 2


def forest_figure(data: Sequence[StudiedData], score_name: str) -> Figure:
    """A panel per data set: difference of each method to the baseline, with its 95 % interval."""
    grid, figure = _panels(data, _ROW * len(data[0].differences) + 1.1)
    for axes, one in zip(grid, data, strict=True):
        axes.axvline(0, color=INK, linewidth=1, zorder=1)
        for place, row in enumerate(one.differences):
            if all(map(math.isfinite, row.interval)):
                axes.plot(row.interval, [place] * 2, color=ACCENT, linewidth=2, solid_capstyle="butt", zorder=2)
            axes.plot([row.mean], [place], "s", color=INK, markersize=5, zorder=3)
        _named_rows(axes, [row.method for row in one.differences])
        axes.set_title(f"{one.name}: minus {one.methods[0].name}", loc="left", fontsize=10, color=INK, parse_math=False)
        axes.set_xlabel(f"difference of mean {score_name}, 95 % interval", fontsize=9, color=INK)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]))
    return figure


def rank_figure(data: Sequence[StudiedData]) -> Figure:
    """A panel per data set: how often each method has each rank in bootstrap samples of subjects (area of the dots),
    with its rank on all subjects (cross) and its 95 % interval (line); Wiesenfarth et al. 2021.
    """
    count = len(data[0].methods)
    grid, figure = _panels(data, _ROW * count + 1.2)
    colors = label_colors([method.name for method in data[0].methods])
    for axes, one in zip(grid, data, strict=True):
        order = np.argsort(one.stability.ranks, kind="stable")
        for place, number in enumerate(order):
            color = colors[one.methods[number].name]
            shares = one.stability.shares[number]
            axes.plot([one.stability.low[number], one.stability.high[number]], [place] * 2, color=color, linewidth=1.2)
            axes.scatter(
                np.arange(1, count + 1), [place] * count, s=240 * shares, color=color, alpha=0.75, linewidths=0
            )
            axes.plot([one.stability.ranks[number]], [place], "x", color=INK, markersize=6)
        _named_rows(axes, [one.methods[number].name for number in order])
        axes.set_xlim(0.4, count + 0.6)
        axes.set_xticks(range(1, count + 1))
        axes.set_title(one.name, loc="left", fontsize=10, color=INK, parse_math=False)
        axes.set_xlabel("rank in bootstrap samples of subjects", fontsize=9, color=INK)
    return figure


def critical_difference_figure(data: Sequence[StudiedData]) -> Figure | None:
    """A panel per data set: average ranks on a line; a bar joins methods that differ by less than the critical
    difference (Demšar 2006). ``None`` of two methods.
    """
    shown = [one for one in data if one.average is not None]
    if not shown:
        return None
    half = math.ceil(len(shown[0].methods) / 2)
    grid, figure = _panels(shown, 1.5 + 0.24 * half + 0.1 * len(shown[0].methods))
    for axes, one in zip(grid, shown, strict=True):
        assert one.average is not None
        _critical_difference(axes, one.average, [method.name for method in one.methods])
        axes.set_title(f"{one.name}: average rank", loc="left", fontsize=10, color=INK, parse_math=False)
    return figure


def _critical_difference(axes: Axes, average: AverageRanks, names: Sequence[str]) -> None:
    count, ranks = len(names), average.ranks
    order = np.argsort(ranks, kind="stable")
    bars = _cliques(ranks[order], average.critical_difference)
    depth = 0.5 + 0.35 * len(bars)
    axes.hlines(0, 1, count, color=INK, linewidth=1.2)
    for rank in range(1, count + 1):
        axes.vlines(rank, 0, 0.22, color=INK, linewidth=1)
        axes.text(rank, 0.3, str(rank), ha="center", va="bottom", fontsize=9, color=INK)
    for level, (low, high) in enumerate(bars):
        axes.hlines(-0.3 - 0.35 * level, low - 0.04, high + 0.04, color=ACCENT, linewidth=3.5)
    half = math.ceil(count / 2)
    for place, number in enumerate(order):
        left = place < half
        row = -(depth + 0.55 * (place if left else count - 1 - place))
        edge = 0.85 if left else count + 0.15
        axes.plot([ranks[number]] * 2 + [edge], [0, row, row], color=FAINT if not left else FAINT, linewidth=1.2)
        text = f"{shortened(names[number])} {ranks[number]:.2f}"
        axes.text(edge, row, f"{text} " if left else f" {text}", ha="right" if left else "left", va="center",
                  fontsize=9, color=INK, parse_math=False)  # fmt: skip
    top = 1.35
    axes.hlines(top, 1, 1 + min(average.critical_difference, count - 1), color=INK, linewidth=1.2)
    axes.text(1, top + 0.12, f"critical difference {average.critical_difference:.2f}", fontsize=9, color=INK)
    axes.set_xlim(1 - 0.62 * (count - 1) - 0.3, count + 0.62 * (count - 1) + 0.3)
    axes.set_ylim(-(depth + 0.55 * half), top + 0.7)
    axes.axis("off")


def _cliques(ranks: np.ndarray, difference: float) -> list[tuple[float, float]]:
    """Longest spans of sorted ranks that are shorter than the difference, each of two methods or more."""
    spans: list[tuple[int, int]] = []
    for first in range(len(ranks)):
        last = int(np.searchsorted(ranks, ranks[first] + difference, side="right")) - 1
        if last > first and (not spans or last > spans[-1][1]):
            spans.append((first, last))
    return [(float(ranks[first]), float(ranks[last])) for first, last in spans]


def _panels(data: Sequence[StudiedData], height: float) -> tuple[Sequence[Axes], Figure]:
    columns = min(_COLUMNS, len(data))
    rows = -(-len(data) // columns)
    figure = Figure(figsize=(1.2 + 4.8 * columns, rows * height), layout="constrained")
    grid = np.ravel(figure.subplots(rows, columns, squeeze=False))
    for axes in grid[len(data) :]:
        axes.set_visible(False)
    return list(grid[: len(data)]), figure


def _named_rows(axes: Axes, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), [shortened(name) for name in names])
    axes.set_ylim(len(names) - 0.5, -0.5)
    plain_axes(axes)
    axes.grid(axis="y", visible=False)
    for tick in axes.get_yticklabels():
        tick.set_parse_math(False)
        tick.set_fontsize(10)
