"""Every score of every label: mean, median, and on how many cases they stand."""

from __future__ import annotations

from collections.abc import Mapping

from medseg.metrics import FoldScores, Scores
from medseg.metrics.catalog import metric
from medseg.reports.page import Table
from medseg.reports.tables import digits

__all__ = ["score_table"]


def score_table(scores: Scores | FoldScores, colors: Mapping[str, str]) -> Table:
    """A row per label and score; means of distances also without the values that the rule for empty masks gave."""
    header = ["label", "score", "mean", "median", "cases", "undefined", "penalised", "mean without penalties"]
    rows = []
    for label, row in scores.labels.items():
        for name in (name for name in scores.metrics if name in row):
            one = row[name]
            rows.append(
                [label, metric(name).heading(scores.definition.unit), digits(one.mean), digits(one.median)]
                + [str(one.cases), str(one.undefined or 0), str(one.penalised or 0)]
                + [digits(one.without_penalties) if metric(name).kind == "distance" else "–"]
            )
    return Table(header, rows, colors)
