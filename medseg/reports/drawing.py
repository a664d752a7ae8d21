"""What all charts share: colours, plain axes, and figures as SVG for a page or as PNG.

Lines and words are drawn in the page's colours of a light screen. In an SVG they become the page's CSS variables, so
that one chart serves light, dark and print.
"""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

__all__ = [
    "ACCENT",
    "FAINT",
    "INK",
    "Chart",
    "even_spread",
    "plain_axes",
    "save_figure",
    "save_png",
    "shortened",
    "to_chart",
]

INK, FAINT, ACCENT = "#1b2330", "#c9d0da", "#2563c9"
_VARIABLES = {INK: "var(--ink)", FAINT: "var(--faint)", ACCENT: "var(--accent)"}
_DPI = 160


def shortened(label: str) -> str:
    """A name of at most 28 characters."""
    return label if len(label) <= 28 else label[:27] + "…"


def plain_axes(axes: Axes) -> None:
    """A light grid and the lower edge, nothing else."""
    axes.set_facecolor("none")
    axes.grid(color=FAINT, linewidth=0.6, alpha=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(colors=INK, labelsize=9, length=0)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(FAINT)


@dataclass(frozen=True)
class Chart:
    """A figure as an SVG element, whose words matplotlib has escaped.

    Attributes:
        svg: the element.
        description: what it shows in words.
        name: stem of the figure's own files.
        figure: what they show.
    """

    svg: str
    description: str
    name: str
    figure: Figure


def to_chart(figure: Figure, name: str, description: str) -> Chart:
    """The figure for a page; words stay words, and ids carry ``name`` since several share a page."""
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
    return Chart(text, description, name, figure)


def even_spread(count: int, width: float) -> np.ndarray:
    """Places of so many points around 0, even and the same every time: golden-ratio steps, not random numbers."""
    return ((np.arange(count) * 0.618034) % 1 - 0.5) * width


def save_png(figure: Figure, path: str | Path) -> None:
    """The figure on white paper."""
    figure.savefig(path, dpi=_DPI, facecolor="white", metadata={"Software": None})


def save_figure(figure: Figure, path: str | Path) -> None:
    """The figure as PNG, SVG and PDF; ``path`` is without suffix. Words stay words, and equal figures equal files."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_png(figure, path.with_suffix(".png"))
    undated: dict[str, dict[str, Any]] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": path.name, "pdf.fonttype": 42}):
        for suffix, metadata in undated.items():
            figure.savefig(path.with_suffix(f".{suffix}"), facecolor="white", metadata=metadata)
