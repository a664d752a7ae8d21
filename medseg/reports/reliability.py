"""Reliability curves: how often a voxel is right, over the probability that the network gave it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from medseg.reports.drawing import ACCENT, FAINT, INK, plain_axes

__all__ = ["reliability_figure"]

_COLORS = {"before": INK, "after": ACCENT}


def reliability_figure(curves: Mapping[str, Mapping[str, Sequence[float]]]) -> Figure:
    """The curves and, below, the share of the voxels in each bin.

    Args:
        curves: name (``before``, ``after``) -> ``voxels``, mean ``probability`` and share that is ``right`` per bin.
    """
    figure = Figure(figsize=(4.6, 5.4), layout="constrained")
    upper, lower = figure.subplots(2, 1, height_ratios=[4, 1], sharex=True)
    upper.plot([0, 1], [0, 1], color=FAINT, linewidth=1.2)
    for name, curve in curves.items():
        total = sum(curve["voxels"])
        shares = [number / total for number in curve["voxels"]]
        for axes, values in ((upper, curve["right"]), (lower, shares)):
            axes.plot(curve["probability"], values, color=_COLORS[name], linewidth=1.6, marker="o", markersize=3)
        upper.lines[-1].set_label(f"{name} the temperature")
    for axes in (upper, lower):
        plain_axes(axes)
    upper.set_ylabel("share of voxels that are right", fontsize=9, color=INK)
    lower.set_ylabel("share of voxels", fontsize=9, color=INK)
    lower.set_xlabel("largest probability of a foreground voxel", fontsize=9, color=INK)
    lower.set_xlim(0, 1)
    upper.set_ylim(0, 1)
    lower.set_ylim(0)
    upper.legend(frameon=False, fontsize=9, labelcolor=INK, loc="upper left")
    return figure
