"""Charts for a page, narrow enough for a telephone: learning curves, and the scores of single cases per label."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from medseg.engines.run_files import Curves
from medseg.reports.drawing import ACCENT, FAINT, INK, Chart, even_spread, plain_axes, shortened, to_chart

__all__ = ["curves_charts", "scores_chart"]

_PANELS = {
    "loss": "training loss",
    "mean_dice": "validation: mean Dice",
    "learning_rate": "learning rate",
}
_SIZE = 4.8, 2.6  # inches, of a curve
_MOST_POINTS = 600  # of the losses of iterations


def curves_charts(curves: Curves, colors: Mapping[str, str]) -> list[Chart]:
    """Loss, mean Dice, learning rate and the Dice of each label, over epochs.

    Args:
        curves: curves of a training with an epoch or more.
        colors: label -> its colour.
    """
    shown = np.append(curves.epochs["epoch"], [0] if len(curves.losses) else [])  # where their losses begin
    charts = [_curve(curves, name, shown) for name in _PANELS]
    return [*charts, *([_labels_chart(curves.labels, colors, shown)] if curves.labels else [])]


def _curve(curves: Curves, name: str, shown: np.ndarray) -> Chart:
    figure = Figure(figsize=_SIZE, layout="constrained")
    axes: Axes = figure.subplots()
    title = _PANELS[name]
    given = np.isfinite(curves.epochs[name])
    epochs, values = curves.epochs["epoch"][given], curves.epochs[name][given]
    if name == "loss":
        title += _add_losses(axes, curves.losses)
    axes.plot(epochs, values, color=ACCENT, linewidth=1.6, marker="o" if len(values) < 40 else "", markersize=3)
    if name == "mean_dice" and len(values):
        best = int(np.argmax(values))
        axes.plot(epochs[best], values[best], "o", color=ACCENT, markersize=6)
        axes.annotate(
            f"{values[best]:.3f}",
            (epochs[best], values[best]),
            xytext=(0, -14),
            textcoords="offset points",
            ha="right" if best > 0 else "center",
            color=INK,
            fontsize=9,
        )
    _over_epochs(axes, title, shown)
    if not len(values):
        axes.text(0.5, 0.5, "none recorded", transform=axes.transAxes, ha="center", color=INK, fontsize=9)
        axes.set_yticks([])
    return to_chart(figure, f"curve_{name}", f"Learning curve: {_PANELS[name]} per epoch")


def _labels_chart(labels: Mapping[str, np.ndarray], colors: Mapping[str, str], shown: np.ndarray) -> Chart:
    columns = min(len(labels), max(1, 50 // (4 + max(len(shortened(label)) for label in labels))))
    width, height = _SIZE
    figure = Figure(figsize=(width, height + 0.19 * math.ceil(len(labels) / columns)), layout="constrained")
    axes: Axes = figure.subplots()
    for label, points in labels.items():
        marker = "o" if len(points) < 40 else ""
        axes.plot(*points.T, color=colors[label], linewidth=1.6, marker=marker, markersize=3, label=shortened(label))
    _over_epochs(axes, "validation: Dice of each label", shown)
    legend = figure.legend(loc="outside lower center", ncols=columns, frameon=False, fontsize=9, labelcolor=INK)
    for text in legend.get_texts():
        text.set_parse_math(False)
    return to_chart(figure, "curve_labels", "Learning curve: Dice of each label per epoch")


def _add_losses(axes: Axes, losses: np.ndarray) -> str:
    """The losses of the iterations, of many the means over as many in a row; what a title says of them."""
    losses = losses[np.isfinite(losses[:, 1])]
    step = -(-len(losses) // _MOST_POINTS) or 1
    means = losses[: len(losses) // step * step].reshape(-1, step, 2).mean(axis=1)
    axes.plot(*means.T, color=FAINT, linewidth=0.8)
    shown = "each iteration" if step == 1 else f"every {step} iterations"
    return f" (grey: {shown})" if len(losses) else ""


def _over_epochs(axes: Axes, title: str, epochs: np.ndarray) -> None:
    plain_axes(axes)
    axes.set_title(title, loc="left", fontsize=10, color=INK)
    axes.set_xlabel("epoch", fontsize=9, color=INK)
    axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
    axes.margins(x=0.04, y=0.12)
    axes.set_xlim(*_epoch_limits(epochs))


def _epoch_limits(epochs: np.ndarray) -> tuple[float, float]:
    first, last = (float(epochs.min()), float(epochs.max())) if len(epochs) else (0.0, 1.0)
    margin = 0.04 * (last - first) or 1.0
    return first - margin, last + margin


def scores_chart(labels: Sequence[str], dice: np.ndarray, colors: Mapping[str, str]) -> Chart:
    """Dice of every case ``(cases, labels)``: one row per label with points, quartile box, median and range."""
    figure = Figure(figsize=(6.2, 0.75 + (0.48 if len(labels) < 8 else 0.34) * len(labels)), layout="constrained")
    axes: Axes = figure.subplots()
    for row, label in enumerate(labels):
        values = np.sort(dice[:, row][np.isfinite(dice[:, row])])
        if not len(values):
            continue
        low, median, high = np.percentile(values, [25, 50, 75])
        axes.plot([values[0], values[-1]], [row, row], color=FAINT, linewidth=1.2, zorder=1)
        axes.barh(row, high - low, left=low, height=0.56, color=colors[label], alpha=0.28, zorder=2)
        if len(values) == 1:
            axes.plot(values, [row], "o", color=colors[label], markersize=6)
            continue
        axes.plot(
            values,
            row + even_spread(len(values), 0.42),
            "o",
            color=colors[label],
            markersize=4,
            alpha=0.85,
            mec="none",
            zorder=3,
        )
        axes.plot([median, median], [row - 0.32, row + 0.32], color=INK, linewidth=1.8, zorder=4)
    axes.set_yticks(range(len(labels)), [shortened(label) for label in labels])
    axes.set_ylim(len(labels) - 0.45, -0.55)
    finite = dice[np.isfinite(dice)]
    start = max(0.0, np.floor(10 * finite.min() - 0.2) / 10) if len(finite) else 0.0
    axes.set_xlim(start - 0.01, 1.01)
    plain_axes(axes)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("Dice per case; box: quartiles, bar: median", fontsize=9, color=INK)
    for tick in axes.get_yticklabels():
        tick.set_parse_math(False)
        tick.set_fontsize(10)
    return to_chart(figure, "scores", "Dice of every case per label")
