"""The scores of a run for its report: headline, tables per label and case, and what warns of them."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from medseg.metrics import Interval, background_cases, background_note, mean_interval
from medseg.metrics.catalog import metric
from medseg.reports.page import Table
from medseg.reports.record import RunRecord
from medseg.reports.scored import further_lines, scored_as
from medseg.reports.tables import digits, mean

__all__ = ["case_table", "explanation", "headline", "label_table", "score_warnings", "tiles"]


def headline(record: RunRecord) -> str:
    """The mean with its interval, and what it is of."""
    assert record.metrics is not None
    overall = mean_interval(record.scores()[1])
    bounds = f" (95 % interval {_bounds(overall)})" if math.isfinite(overall.low) else ""
    return f"Mean Dice {digits(overall.mean)}{bounds} over {scored_as(record.metrics)}."


def tiles(record: RunRecord) -> list[tuple[str, str]]:
    """Large figures with what they mean: (figure, meaning)."""
    assert record.metrics is not None
    dice, distance, surface = (mean_interval(table).mean for table in _tables(record))
    fold = "" if record.metrics.facts.fold is None else f", fold {record.metrics.facts.fold}"
    found = [
        (digits(dice), "mean Dice"),
        (f"{digits(distance, 2)} {record.unit}", f"mean {_heading(record, 'hd95').partition(',')[0]}"),
        (digits(surface), _heading(record, "surface_dice")),
        (str(len(record.metrics.cases)), f"{record.metrics.facts.role or 'validation'} cases{fold}"),
    ]
    return [tile for tile in found if not tile[0].startswith("–")]


def label_table(record: RunRecord, colors: Mapping[str, str]) -> Table:
    """A row per label or region, and one of the means over them."""
    dice, distance, surface = _tables(record)
    overall = mean_interval(dice)
    total = ["mean over labels", str(len(dice)), digits(overall.mean), _bounds(overall),
             digits(mean_interval(distance).mean, 2), digits(mean_interval(surface).mean), "", ""]  # fmt: skip
    header = ["region" if record.label_space.regions else "label", "cases", "mean Dice", "95 % interval",
              _heading(record, "hd95"), _heading(record, "surface_dice"), "Dice undefined",
              "HD95 undefined"]  # fmt: skip
    rows = []
    for column, target in enumerate(record.targets):
        interval = mean_interval(dice[:, column])
        row = [target, str(int(np.isfinite(dice[:, column]).sum())), digits(interval.mean), _bounds(interval),
               digits(mean(distance[:, column]), 2), digits(mean(surface[:, column]))]  # fmt: skip
        row += [_undefined(record, target, score) for score in ("dice", "hd95")]
        rows.append(row + [digits(record.pooled(target, score)) for score in _pooled(record)])
    header += [f"pooled {name}" for name in _pooled(record).values()]
    total += [""] * len(_pooled(record))
    return Table(header, rows, colors, total if len(rows) > 1 else ())


def explanation(record: RunRecord) -> str:
    """What the columns of ``label_table`` mean, and what empty masks counted."""
    assert record.metrics is not None
    return (
        "Intervals: percentile bootstrap over cases, 2000 draws. Undefined values are ignored in the means. "
        + " ".join(f"{line}." for line in further_lines(record.metrics))
        + (" Pooled scores take all images as one." if _pooled(record) else "")
    )


def case_table(record: RunRecord) -> Table:
    """A row per case, the worst first; cells are shaded by their Dice."""
    cases, dice = record.scores()
    distance = record.scores("hd95")[1]
    means = [mean(row) for row in dice]
    several = len(record.targets) > 1
    rows, shades = [], []
    for i in sorted(range(len(cases)), key=lambda i: (math.isnan(means[i]), means[i])):
        values = [*([means[i]] if several else []), *dice[i]]
        rows.append([cases[i], *map(digits, values), digits(mean(distance[i]), 2)])
        shades.append([None, *(float(v) if math.isfinite(v) else None for v in values), None])
    header = ["case", *(["mean Dice"] if several else []), *record.targets, f"mean HD95, {record.unit}"]
    return Table(header, rows, shades=shades)


def score_warnings(record: RunRecord) -> list[str]:
    """Sentences on what makes the scores less sure."""
    assert record.metrics is not None
    scored = record.metrics.cases
    note = background_note(background_cases(scored), len(scored))
    found = [*(record.metrics.facts.biases or ()), *([note] if note else [])]
    if record.outdated:
        found.append("The run no longer has the weights that were scored; run `medseg validate` again.")
    lacking = [t for t, row in record.metrics.labels.items() if "dice" not in row or not row["dice"].cases]
    if lacking:
        found.append(f"In no validation case: {', '.join(lacking)}.")
    if len(scored) < 10:
        number = f"{len(scored)} case{'' if len(scored) == 1 else 's'}"
        found.append(f"Only {number} scored: intervals over so few cases are too narrow.")
    return found


def _tables(record: RunRecord) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Dice, HD95 and surface Dice, each ``(cases, targets)``."""
    dice, distance, surface = (record.scores(score)[1] for score in ("dice", "hd95", "surface_dice"))
    return dice, distance, surface


def _pooled(record: RunRecord) -> dict[str, str]:
    """Scores of all images taken as one, which photographs have, with their names."""
    return {"dice": "Dice", "iou": "IoU"} if record.unit == "px" else {}


def _undefined(record: RunRecord, target: str, score: str) -> str:
    assert record.metrics is not None
    row, name = record.metrics.labels[target], record.metrics.named(score)
    return str(row[name].undefined) if name in row else "–"


def _bounds(interval: Interval) -> str:
    return f"{interval.low:.3f} – {interval.high:.3f}" if math.isfinite(interval.low) else "–"


def _heading(record: RunRecord, score: str) -> str:
    assert record.metrics is not None
    return metric(record.metrics.named(score)).heading(record.unit)
