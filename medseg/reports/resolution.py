"""Tables and the figure of runs that were tested at several resolutions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from medseg.labels.colors import label_colors
from medseg.metrics import Summary
from medseg.reports.drawing import INK, plain_axes, save_png
from medseg.reports.tables import digits, markdown_table
from medseg.storage import whole_file, write_json, write_text
from medseg.storage.csv_file import CsvWriter

__all__ = [
    "Resolution",
    "SpaceScores",
    "TestedPoint",
    "TestedRun",
    "resolution_figure",
    "resolution_markdown",
    "write_resolution",
]

_TITLES = {"model": "at the tested resolution", "source": "on the source grid"}
_AXES = {"size": "voxels per axis, fraction of the source grid", "spacing": "voxel size, mm"}
_COLUMNS = ("run", "trained_at", "value", "space", "label", "dice", "low", "high", "cases")


@dataclass(frozen=True)
class SpaceScores:
    """Mean Dice in one space; NaN where a figure is undefined.

    Attributes:
        mean: mean over labels of the mean over cases.
        interval: its 95 % interval over subjects.
        labels: label -> its summary.
    """

    mean: float
    interval: tuple[float, float]
    labels: Mapping[str, Summary]


@dataclass(frozen=True)
class TestedPoint:
    """Scores at one size or spacing, ``model``: at that resolution, ``source``: in the original image space."""

    value: float
    model: SpaceScores
    source: SpaceScores


@dataclass(frozen=True)
class TestedRun:
    """One run, its network, the size or spacing that it was trained at, and its scores at every tested one."""

    run: str
    network: str | None
    trained_at: float
    points: Sequence[TestedPoint]


@dataclass(frozen=True)
class Resolution:
    """Runs that were tested at several resolutions.

    Attributes:
        axis: ``size`` (fraction of the source grid's voxels per axis) or ``spacing`` (mm).
        values: tested resolutions, on that axis.
        cases: ids of the cases.
        section: section of the datalist.
        postprocessing: ``raw``: predictions are not cleaned.
        labels: labels or regions.
        warnings: sentences on what makes the scores less sure.
        runs: the runs.
    """

    axis: str
    values: Sequence[float]
    cases: Sequence[str]
    section: str
    postprocessing: str
    labels: Sequence[str]
    warnings: Sequence[str]
    runs: Sequence[TestedRun]


def write_resolution(resolution: Resolution, directory: str | Path) -> None:
    """Write ``resolution.json``, ``.csv``, ``.md`` and ``.png``.

    Args:
        resolution: what was found.
        directory: an existing folder.
    """
    folder = Path(directory)
    write_json(folder / "resolution.json", resolution)
    write_text(folder / "resolution.md", resolution_markdown(resolution) + "\n")
    with whole_file(folder / "resolution.csv") as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = CsvWriter(file)
        writer.writerow(_COLUMNS)
        writer.writerows(_rows(resolution))
    save_png(resolution_figure(resolution), folder / "resolution.png")


def _rows(resolution: Resolution) -> list[list[Any]]:
    rows = []
    for run in resolution.runs:
        for point in run.points:
            for space in _TITLES:
                found, head = getattr(point, space), [run.run, run.trained_at, point.value, space]
                figures = [_cell(value) for value in (found.mean, *found.interval)]
                rows.append([*head, "mean", *figures, len(resolution.cases)])
                rows += [[*head, label, _cell(row.mean), "", "", row.cases] for label, row in found.labels.items()]
    return rows


def _cell(value: float) -> float | None:
    return value if math.isfinite(value) else None


def resolution_markdown(resolution: Resolution) -> str:
    """A table per space, for a terminal and for a README."""
    parts = [f"Warning: {line}" for line in resolution.warnings]
    header = ["run", "trained at", *(f"{value:g}" for value in resolution.values)]
    for space, title in _TITLES.items():
        rows = [
            [run.run, f"{run.trained_at:g}", *(digits(getattr(point, space).mean, 4) for point in run.points)]
            for run in resolution.runs
        ]
        parts.append(f"Mean Dice {title}, by {_AXES[resolution.axis]}\n\n{markdown_table(header, rows)}")
    scored = f"{len(resolution.cases)} {resolution.section} cases, raw predictions"
    return "\n\n".join([*parts, f"{scored}; labels: {', '.join(resolution.labels)}."])


def resolution_figure(resolution: Resolution) -> Figure:
    """Mean Dice with its 95 % interval against the tested resolution, per space; a ring marks the training's."""
    runs = resolution.runs
    colors = label_colors([run.run for run in runs])
    figure = Figure(figsize=(9.2, 3.9), layout="constrained")
    panels = figure.subplots(1, len(_TITLES), sharey=True)
    for axes, (space, title) in zip(panels, _TITLES.items(), strict=True):
        for number, run in enumerate(runs):
            shift = (number - (len(runs) - 1) / 2) * 0.006 * (resolution.values[-1] or 1)  # bars side by side
            _line(axes, run, space, colors[run.run], shift)
        axes.set_title(title, loc="left", fontsize=10, color=INK)
        axes.set_xlabel(_AXES[resolution.axis], fontsize=9, color=INK)
        axes.set_xticks(resolution.values, [f"{value:g}" for value in resolution.values])
        ends = [*resolution.values, *(run.trained_at for run in runs)]
        axes.set_xlim(min(ends) * 0.85, max(ends) * 1.06)
        plain_axes(axes)
    panels[0].set_ylabel("mean Dice", fontsize=9, color=INK)
    bottom, top = panels[0].get_ylim()
    panels[0].set_ylim(max(0.0, bottom), min(1.0, top))
    handles, names = panels[0].get_legend_handles_labels()
    (ring,) = panels[0].plot([], [], "o", color=INK, markersize=11, mfc="none", mew=1.2)
    legend = figure.legend([*handles, ring], [*names, "training resolution"], loc="outside upper left",
                           ncols=min(4, len(names) + 1), frameon=False, fontsize=9, labelcolor=INK)  # fmt: skip
    for text in legend.get_texts():
        text.set_parse_math(False)
    return figure


def _line(axes: Axes, run: TestedRun, space: str, color: str, shift: float) -> None:
    points = [point for point in run.points if math.isfinite(getattr(point, space).mean)]
    places = [point.value + shift for point in points]
    means = [getattr(point, space).mean for point in points]
    axes.plot(places, means, "o-", color=color, markersize=5, linewidth=1.6, label=run.run)
    for place, point in zip(places, points, strict=True):
        low, high = getattr(point, space).interval
        if math.isfinite(low) and math.isfinite(high):
            axes.plot([place, place], [low, high], color=color, linewidth=1.2, alpha=0.7)
    trained = run.trained_at
    near = [i for i, point in enumerate(points) if abs(point.value - trained) < 0.02 * trained]
    ring: dict[str, Any] = {"marker": "o", "color": color, "markersize": 11, "mfc": "none", "mew": 1.2}
    if near:
        axes.plot(places[near[0]], means[near[0]], **ring)
    else:
        axes.plot(trained, 0.02, transform=axes.get_xaxis_transform(), **ring)
