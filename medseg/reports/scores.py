"""The scores of a run for its report: headline, tables per label and case, and what warns of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from medseg.engines.mirrored import mirrored_note
from medseg.metrics import background_cases, background_note
from medseg.metrics.catalog import DEFAULT_METRICS, metric
from medseg.metrics.estimate import FAILURE, Estimate, estimate
from medseg.metrics.subjects import FEWEST_SUBJECTS
from medseg.reports.page import Table
from medseg.reports.record import RunRecord
from medseg.reports.scored import further_lines, interval_note, scored_as
from medseg.reports.tables import digits, mean, share_of

__all__ = ["case_table", "explanation", "headline", "label_table", "score_warnings", "tiles"]

_FEW = 10  # subjects


def headline(record: RunRecord) -> str:
    """The mean with its interval, and what it is of."""
    assert record.metrics is not None
    found = estimate(record.metrics)
    return f"Mean Dice {digits(found.score.mean)}{interval_note(found)} over {scored_as(record.metrics)}."


def tiles(record: RunRecord) -> list[tuple[str, str]]:
    """Large figures with what they mean: (figure, meaning)."""
    assert record.metrics is not None
    dice, distance, surface = (estimate(record.metrics, score).score.mean for score in DEFAULT_METRICS)
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
    assert record.metrics is not None
    scores = record.metrics
    header = ["region" if record.label_space.regions else "label", "cases", "mean Dice", "95 % interval",
              f"Dice < {FAILURE:g}", _heading(record, "hd95"), _heading(record, "surface_dice"), "Dice undefined",
              "HD95 undefined"]  # fmt: skip
    rows = []
    for target in record.targets:
        row = _means(target, [estimate(scores, score, target) for score in DEFAULT_METRICS])
        row += [_undefined(record, target, score) for score in ("dice", "hd95")]
        rows.append(row + [digits(record.pooled(target, score)) for score in _pooled(record)])
    header += [f"pooled {name}" for name in _pooled(record).values()]
    total = [*_means("mean over labels", [estimate(scores, score) for score in DEFAULT_METRICS]), "", ""]
    total += [""] * len(_pooled(record))
    return Table(header, rows, colors, total if len(rows) > 1 else ())


def _means(name: str, found: Sequence[Estimate]) -> list[str]:
    """A row: Dice with its interval and failures, HD95 and surface Dice."""
    dice, distance, surface = found
    return [name, str(dice.score.cases), digits(dice.score.mean), _bounds(dice), share_of(dice.failures),
            digits(distance.score.mean, 2), digits(surface.score.mean)]  # fmt: skip


def explanation(record: RunRecord) -> str:
    """What the columns of ``label_table`` mean."""
    assert record.metrics is not None
    unit = "subjects" if record.metrics.facts.subjects else "cases"
    return (
        f"Intervals: studentised bootstrap over {unit}, 9999 draws, none with fewer than six. Beside them, the cases "
        f"in which the Dice of a label is below {FAILURE:g}, with the exact upper bound of their share. Undefined "
        "values are ignored in the means. "
        + " ".join(f"{line.removesuffix('.')}." for line in further_lines(record.metrics))
        + (" Pooled scores take all images as one." if _pooled(record) else "")
        + "".join(f" {text}" for text in [*(record.metrics.facts.chosen or ()), mirrored_note(record.folder)] if text)
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
    units = len(set(record.metrics.units))
    if units < _FEW:
        unit = f"{'subject' if record.metrics.facts.subjects else 'case'}{'' if units == 1 else 's'}"
        few = "an interval needs six" if units < FEWEST_SUBJECTS else "the interval is wide"
        found.append(f"Only {units} {unit} scored: {few}.")
    return found


def _pooled(record: RunRecord) -> dict[str, str]:
    """Scores of all images taken as one, which photographs have, with their names."""
    return {"dice": "Dice", "iou": "IoU"} if record.unit == "px" else {}


def _undefined(record: RunRecord, target: str, score: str) -> str:
    assert record.metrics is not None
    row, name = record.metrics.labels[target], record.metrics.named(score)
    return str(row[name].undefined) if name in row else "–"


def _bounds(found: Estimate) -> str:
    return f"{found.score.low:.3f} – {found.score.high:.3f}" if math.isfinite(found.score.low) else "–"


def _heading(record: RunRecord, score: str) -> str:
    assert record.metrics is not None
    return metric(record.metrics.named(score)).heading(record.unit)
