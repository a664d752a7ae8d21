"""Agreement of volumes (Bland and Altman 1986): a table per label and a chart of differences against means."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from medseg.metrics import Scores
from medseg.metrics.agreement import BlandAltman, bland_altman
from medseg.reports.drawing import INK, Chart, plain_axes, shortened, to_chart
from medseg.reports.page import Table
from medseg.reports.tables import digits

__all__ = ["Agreement", "volume_agreement"]

_SIZES = (("reference_ml", "volume_ml"), ("reference_area", "area"))
_COLUMNS = 2


@dataclass(frozen=True)
class Agreement:
    """What a page shows of volumes."""

    table: Table
    chart: Chart
    explanation: str


def volume_agreement(scores: Scores, colors: Mapping[str, str]) -> Agreement | None:
    """Bias and limits of agreement of each label; ``None`` where the scores have no ``volume_difference``."""
    if "volume_difference" not in scores.metrics:
        return None
    pairs = {label: _sizes(scores, label) for label in scores.labels}
    found = {label: bland_altman(*sizes) for label, sizes in pairs.items()}
    volumes = any("volume_ml" in row for rows in scores.cases.values() for row in rows.values())
    unit = "ml" if volumes else "mm²" if scores.definition.unit == "mm" else "pixels"
    rows = [
        [label, digits(one.bias, sign=True), f"{digits(one.bias_low)} to {digits(one.bias_high)}", digits(one.sd)]
        + [f"{digits(one.lower)} to {digits(one.upper)}"]
        for label, one in found.items()
    ]
    header = ["label", f"bias, {unit}", "95 % interval", "sd", "limits of agreement"]
    said = f"Prediction minus reference in {unit}; limits: bias ± 1.96 sd. The interval takes cases as independent."
    return Agreement(Table(header, rows, colors), _chart(pairs, found, colors, unit), said)


def _sizes(scores: Scores, label: str) -> np.ndarray:
    """Reference and prediction, ``(2, cases)``."""
    rows = [rows[label] for rows in scores.cases.values() if label in rows]
    keys = next((keys for keys in _SIZES if rows and keys[0] in rows[0]), _SIZES[0])
    return np.array([[row[key] for row in rows] for key in keys], dtype=float)


def _chart(
    pairs: Mapping[str, np.ndarray], found: Mapping[str, BlandAltman], colors: Mapping[str, str], unit: str
) -> Chart:
    lines = -(-len(pairs) // _COLUMNS)
    figure = Figure(figsize=(6.2, 2.6 * lines), layout="constrained")
    grid = np.ravel(figure.subplots(lines, _COLUMNS, squeeze=False))
    for axes in grid[len(pairs) :]:
        axes.set_visible(False)
    for axes, (label, (reference, prediction)) in zip(grid, pairs.items(), strict=False):
        one = found[label]
        axes.plot((reference + prediction) / 2, prediction - reference, "o", color=colors[label], markersize=4)
        for height, style in ((one.bias, "-"), (one.lower, "--"), (one.upper, "--")):
            if np.isfinite(height):
                axes.axhline(height, color=INK, linewidth=1.0, linestyle=style)
        plain_axes(axes)
        axes.set_title(shortened(label), loc="left", fontsize=10, color=INK, parse_math=False)
        axes.set_xlabel(f"mean of both, {unit}", fontsize=9, color=INK)
    grid[0].set_ylabel(f"difference, {unit}", fontsize=9, color=INK)
    return to_chart(figure, "volumes", "Differences of volume against their mean, with bias and limits of agreement")
