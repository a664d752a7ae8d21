"""Tables and the figure of runs that were tested at several resolutions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from medseg.reports.colors import label_colors
from medseg.reports.drawing import INK, plain_axes, save_png
from medseg.reports.tables import digits, markdown_table
from medseg.storage import whole_file, write_json, write_text
from medseg.storage.csv_file import CsvWriter

__all__ = ["resolution_figure", "resolution_markdown", "write_resolution"]

_TITLES = {"model": "at the tested resolution", "source": "on the source grid"}
_AXES = {"size": "voxels per axis, fraction of the source grid", "spacing": "voxel size, mm"}
_COLUMNS = ("run", "trained_at", "value", "space", "label", "dice", "low", "high", "cases")


def write_resolution(content: Mapping[str, Any], directory: str | Path) -> None:
    """Write ``resolution.json``, ``.csv``, ``.md`` and ``.png``.

    Args:
        content: result of ``medseg.workflows.resolution.resolution``.
        directory: an existing folder.
    """
    folder = Path(directory)
    write_json(folder / "resolution.json", content)
    write_text(folder / "resolution.md", resolution_markdown(content) + "\n")
    with whole_file(folder / "resolution.csv") as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = CsvWriter(file)
        writer.writerow(_COLUMNS)
        writer.writerows(_rows(content))
    save_png(resolution_figure(content), folder / "resolution.png")


def _rows(content: Mapping[str, Any]) -> list[list[Any]]:
    rows = []
    for run in content["runs"]:
        for point in run["points"]:
            for space in _TITLES:
                found, head = point[space], [run["run"], run["trained_at"], point["value"], space]
                rows.append([*head, "mean", found["mean"], *found["interval"], len(content["cases"])])
                rows += [[*head, label, row["mean"], "", "", row["cases"]] for label, row in found["labels"].items()]
    return rows


def resolution_markdown(content: Mapping[str, Any]) -> str:
    """A table per space, for a terminal and for a README."""
    parts = [f"Warning: {line}" for line in content["warnings"]]
    header = ["run", "trained at", *(f"{value:g}" for value in content["values"])]
    for space, title in _TITLES.items():
        rows = [
            [run["run"], f"{run['trained_at']:g}", *(digits(point[space]["mean"], 4) for point in run["points"])]
            for run in content["runs"]
        ]
        parts.append(f"Mean Dice {title}, by {_AXES[content['axis']]}\n\n{markdown_table(header, rows)}")
    scored = f"{len(content['cases'])} {content.get('section', 'validation')} cases, raw predictions"
    return "\n\n".join([*parts, f"{scored}; labels: {', '.join(content['labels'])}."])


def resolution_figure(content: Mapping[str, Any]) -> Figure:
    """Mean Dice with its 95 % interval against the tested resolution, per space; a ring marks the training's."""
    runs = content["runs"]
    colors = label_colors([run["run"] for run in runs])
    figure = Figure(figsize=(9.2, 3.9), layout="constrained")
    panels = figure.subplots(1, len(_TITLES), sharey=True)
    for axes, (space, title) in zip(panels, _TITLES.items(), strict=True):
        for number, run in enumerate(runs):
            shift = (number - (len(runs) - 1) / 2) * 0.006 * (content["values"][-1] or 1)  # bars side by side
            _line(axes, run, space, colors[run["run"]], shift)
        axes.set_title(title, loc="left", fontsize=10, color=INK)
        axes.set_xlabel(_AXES[content["axis"]], fontsize=9, color=INK)
        axes.set_xticks(content["values"], [f"{value:g}" for value in content["values"]])
        ends = [*content["values"], *(run["trained_at"] for run in runs)]
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


def _line(axes: Axes, run: Mapping[str, Any], space: str, color: str, shift: float) -> None:
    points = [point for point in run["points"] if point[space]["mean"] is not None]
    places = [point["value"] + shift for point in points]
    means = [point[space]["mean"] for point in points]
    axes.plot(places, means, "o-", color=color, markersize=5, linewidth=1.6, label=run["run"])
    for place, point in zip(places, points, strict=True):
        low, high = point[space]["interval"]
        if low is not None and high is not None:
            axes.plot([place, place], [low, high], color=color, linewidth=1.2, alpha=0.7)
    trained = run["trained_at"]
    near = [i for i, point in enumerate(points) if abs(point["value"] - trained) < 0.02 * trained]
    ring: dict[str, Any] = {"marker": "o", "color": color, "markersize": 11, "mfc": "none", "mew": 1.2}
    if near:
        axes.plot(places[near[0]], means[near[0]], **ring)
    else:
        axes.plot(trained, 0.02, transform=axes.get_xaxis_transform(), **ring)
