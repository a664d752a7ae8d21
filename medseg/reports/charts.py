"""Charts as SVG text for a page: learning curves, and the scores of single cases per label.

Lines and words take the page's own colours (CSS variables), so that one chart serves light, dark and print.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

__all__ = ["curves_svg", "scores_svg"]

# Stand-ins that matplotlib draws with; the SVG gets the page's variable instead.
_VARIABLES = {"#010203": "var(--ink)", "#040506": "var(--faint)", "#070809": "var(--accent)"}
_INK, _FAINT, _ACCENT = _VARIABLES
_PANELS = (
    ("loss", "training loss"),
    ("mean_dice", "validation: mean Dice"),
    ("learning_rate", "learning rate"),
)


def curves_svg(curves: Mapping[str, np.ndarray]) -> str:
    """Loss, validation Dice and learning rate over epochs."""
    figure = Figure(figsize=(10.4, 2.7), layout="constrained")
    for axes, (name, title) in zip(np.ravel(figure.subplots(1, len(_PANELS))), _PANELS, strict=True):
        given = np.isfinite(curves[name])
        epochs, values = curves["epoch"][given], curves[name][given]
        axes.plot(epochs, values, color=_ACCENT, linewidth=1.6, marker="o" if len(values) < 40 else "", markersize=3)
        if name == "mean_dice" and len(values):
            best = int(np.argmax(values))
            axes.plot(epochs[best], values[best], "o", color=_ACCENT, markersize=6)
            axes.annotate(
                f"{values[best]:.3f}",
                (epochs[best], values[best]),
                xytext=(0, -14),
                textcoords="offset points",
                ha="right" if best > 0 else "center",
                color=_INK,
                fontsize=9,
            )
        _plain_axes(axes)
        if not len(values):
            axes.text(0.5, 0.5, "none recorded", transform=axes.transAxes, ha="center", color=_INK, fontsize=9)
            axes.set_yticks([])
        axes.set_title(title, loc="left", fontsize=10, color=_INK)
        axes.set_xlabel("epoch", fontsize=9, color=_INK)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.margins(x=0.04, y=0.12)
        axes.set_xlim(*_epoch_limits(curves["epoch"]))
    return _svg(figure, "curves", "Learning curves: loss, validation Dice and learning rate per epoch")


def _epoch_limits(epochs: np.ndarray) -> tuple[float, float]:
    first, last = (float(epochs.min()), float(epochs.max())) if len(epochs) else (0.0, 1.0)
    margin = 0.04 * (last - first) or 1.0
    return first - margin, last + margin


def scores_svg(labels: Sequence[str], dice: np.ndarray, colors: Mapping[str, str]) -> str:
    """Dice of every case ``(cases, labels)``: one row per label with points, quartile box, median and range."""
    figure = Figure(figsize=(10.4, 0.75 + (0.48 if len(labels) < 8 else 0.34) * len(labels)), layout="constrained")
    axes: Axes = figure.subplots()
    for row, label in enumerate(labels):
        values = np.sort(dice[:, row][np.isfinite(dice[:, row])])
        if not len(values):
            continue
        low, median, high = np.percentile(values, [25, 50, 75])
        axes.plot([values[0], values[-1]], [row, row], color=_FAINT, linewidth=1.2, zorder=1)
        axes.barh(row, high - low, left=low, height=0.56, color=colors[label], alpha=0.28, zorder=2)
        # A spread that is even and the same every time: golden-ratio steps instead of random numbers.
        spread = ((np.arange(len(values)) * 0.618034) % 1 - 0.5) * 0.42
        if len(values) == 1:
            axes.plot(values, [row], "o", color=colors[label], markersize=6)
            continue
        axes.plot(values, row + spread, "o", color=colors[label], markersize=4, alpha=0.85, mec="none", zorder=3)
        axes.plot([median, median], [row - 0.32, row + 0.32], color=_INK, linewidth=1.8, zorder=4)
    axes.set_yticks(range(len(labels)), [_shortened(label) for label in labels])
    axes.set_ylim(len(labels) - 0.45, -0.55)
    finite = dice[np.isfinite(dice)]
    start = max(0.0, np.floor(10 * finite.min() - 0.2) / 10) if len(finite) else 0.0
    axes.set_xlim(start - 0.01, 1.01)
    _plain_axes(axes)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("Dice per case; box: quartiles, bar: median", fontsize=9, color=_INK)
    for tick in axes.get_yticklabels():
        tick.set_parse_math(False)
        tick.set_fontsize(10)
    return _svg(figure, "scores", "Dice of every case per label")


def _shortened(label: str) -> str:
    return label if len(label) <= 28 else label[:27] + "…"


def _plain_axes(axes: Axes) -> None:
    axes.set_facecolor("none")
    axes.grid(color=_FAINT, linewidth=0.6, alpha=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(colors=_INK, labelsize=9, length=0)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(_FAINT)


def _svg(figure: Figure, name: str, description: str) -> str:
    """The figure as an ``<svg>`` element; words stay words, and ids carry ``name`` since several share a page."""
    buffer = io.StringIO()
    metadata: dict[str, Any] = {"Date": None, "Creator": None, "Format": None, "Type": None}
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name, "font.family": "sans-serif"}):
        figure.savefig(buffer, format="svg", transparent=True, metadata=metadata)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    for stand_in, variable in _VARIABLES.items():
        text = text.replace(stand_in, variable)
    text = re.sub(r'(\sid="|url\(#|href="#)', rf"\g<1>{name}-", text)
    text = re.sub(r"font(-family)?: ([^;\"]*?)(['\"]?DejaVu Sans['\"]?[^;\"]*)", r"font\1: \2inherit", text)
    return text.replace("<svg ", f'<svg role="img" aria-label="{description}" ', 1)
