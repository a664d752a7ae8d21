"""Write ``report.html`` into a run folder: result, curves, scores per label and case, overlays, facts and warnings."""

from __future__ import annotations

import logging
import math
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medseg import __version__
from medseg.data import Datalist, read_datalist
from medseg.engines.run_files import is_outdated
from medseg.errors import DataError
from medseg.metrics import Interval, background_cases, background_note, mean_interval
from medseg.reports import page
from medseg.reports.charts import curves_svg, scores_svg
from medseg.reports.colors import label_colors
from medseg.reports.overlays import load_view, overlay_jpeg
from medseg.reports.record import RunRecord, read_record
from medseg.reports.scored import scored_as
from medseg.reports.settings import setting_groups
from medseg.settings import Folder, takes
from medseg.storage import write_text

__all__ = ["ReportSettings", "write_report"]

logger = logging.getLogger("medseg")

_SHOWN = 3  # worst and best cases each
_MOST_WARNINGS = 30
_OF_SCORES = "Entirely background"  # logged by validation
_OTHER_COLOR = "#808080"  # of the background, where it is scored


@dataclass(frozen=True)
class ReportSettings:
    """The run that is reported.

    Attributes:
        run: run folder. Scores and overlays need `medseg validate` first; curves and facts do not.
        data_dir: folder of the images, where they were moved (default: as in training).
    """

    run: Folder
    _: KW_ONLY
    data_dir: Folder | None = None


@takes(ReportSettings)
def write_report(s: ReportSettings) -> Path:
    """Write the report of a run; one file that needs no other.

    Returns:
        ``<run>/report.html``.

    Raises:
        ConfigError: there is no run.
        DataError: a file of the run is damaged.
    """
    record = read_record(s.run)
    colors = label_colors([*record.label_space.labels, *record.label_space.regions])
    title = f"{record.network} on {record.dataset}"
    parts = [f"<h1>{page.escape(title)}</h1>"]
    notes: list[str] = []
    if record.metrics is None:
        parts.append(page.paragraph("Not validated yet: `medseg validate` has not been run on this run.", "lead"))
        notes.append(f"There are no scores: run `medseg validate --run {record.folder}`, then `medseg report` again.")
        scored: list[str] = []
    else:
        parts += _result(record)
        colors |= _target_colors(record, colors)
        scored = [_labels(record, colors), _overlays(record, colors, s.data_dir, notes), _cases(record)]
        notes += _score_warnings(record)
    notes += _data_warnings(record)
    if notes:
        parts.append(page.section("Warnings", page.warning_list(notes)))
    if len(record.curves["epoch"]):
        parts.append(page.section("Learning curves", curves_svg(record.curves)))
    parts += [part for part in scored if part]
    parts.append(page.section("The run", page.facts(setting_groups(record))))
    path = record.folder / "report.html"
    write_text(path, page.page(title, "\n".join(parts), f"Written by medseg {__version__}"))
    return path


# ---------------------------------------------------------------------- scores
def _result(record: RunRecord) -> list[str]:
    assert record.metrics is not None
    cases, dice = record.scores()
    overall = mean_interval(dice)
    line = f"Mean Dice {_with_bounds(overall)} over {scored_as(record.metrics)}"
    surface = mean_interval(record.scores("surface_dice")[1])
    distance = mean_interval(record.scores("hd95")[1])
    tiles = [
        (_digits(overall.mean), "mean Dice"),
        (f"{_digits(distance.mean, 2)} {record.unit}", "mean HD95"),
        (_digits(surface.mean), f"surface Dice at {_tolerance(record)}"),
        (
            str(len(cases)),
            f"{record.metrics.get('role', 'validation')} cases"
            + ("" if record.metrics.get("fold") is None else f", fold {record.metrics['fold']}"),
        ),
    ]
    return [page.paragraph(line + ".", "lead"), page.tiles(tile for tile in tiles if not tile[0].startswith("–"))]


def _target_colors(record: RunRecord, colors: dict[str, str]) -> dict[str, str]:
    """Of what is scored: a label's own, also where it stands behind its data set (``amos: liver``)."""
    names = {target: target if target in colors else target.partition(": ")[2] for target in record.targets}
    return {target: colors.get(name, _OTHER_COLOR) for target, name in names.items()}


def _labels(record: RunRecord, colors: dict[str, str]) -> str:
    assert record.metrics is not None
    dice, distance, surface = (record.scores(score)[1] for score in ("dice", "hd95", "surface_dice"))
    rows = []
    for column, target in enumerate(record.targets):
        interval = mean_interval(dice[:, column])
        rows.append(
            [
                target,
                str(int(np.isfinite(dice[:, column]).sum())),
                _digits(interval.mean),
                _bounds(interval),
                _digits(_mean(distance[:, column]), 2),
                _digits(_mean(surface[:, column])),
                *(_undefined(record, target, score) for score in ("dice", "hd95")),
            ]
        )
    overall = mean_interval(dice)
    total = [
        "mean over labels",
        str(len(dice)),
        _digits(overall.mean),
        _bounds(overall),
        _digits(mean_interval(distance).mean, 2),
        _digits(mean_interval(surface).mean),
        "",
        "",
    ]
    header = [
        "label" if not record.label_space.regions else "region",
        "cases",
        "mean Dice",
        "95 % interval",
        f"HD95, {record.unit}",
        f"surface Dice, {_tolerance(record)}",
        "Dice undefined",
        "HD95 undefined",
    ]
    photo = record.unit == "px"
    if photo:
        header += ["pooled Dice", "pooled IoU"]
        for row in rows:
            row += [_digits(record.pooled(row[0], score)) for score in ("dice", "iou")]
        total += ["", ""]
    explained = (
        "Intervals: percentile bootstrap over cases, 2000 draws. Dice is undefined where the reference lacks the "
        "label, HD95 where the reference or the prediction does; undefined values are left out of the means."
        + (" Pooled scores take all images as one." if photo else "")
    )
    return page.section(
        "Scores per label",
        page.table(header, rows, colors=colors, total=total if len(rows) > 1 else None)
        + page.paragraph(explained, "soft")
        + scores_svg(record.targets, dice, colors),
    )


def _undefined(record: RunRecord, target: str, score: str) -> str:
    assert record.metrics is not None
    return str(record.metrics["labels"][target].get(score, {}).get("undefined", "–"))


def _cases(record: RunRecord) -> str:
    cases, dice = record.scores()
    distance = record.scores("hd95")[1]
    means = [_mean(row) for row in dice]
    order = sorted(range(len(cases)), key=lambda i: (math.isnan(means[i]), means[i]))
    several = len(record.targets) > 1
    header = [
        "case",
        *(["mean Dice"] if several else []),
        *record.targets,
        f"mean HD95, {record.unit}",
    ]
    rows, shades = [], []
    for i in order:
        values = [*([means[i]] if several else []), *dice[i]]
        rows.append([cases[i], *map(_digits, values), _digits(_mean(distance[i]), 2)])
        shades.append([None, *(v if math.isfinite(v) else None for v in values), None])
    return page.section("Dice per case, worst first", page.table(header, rows, shades=shades))


# ---------------------------------------------------------------------- pictures
def _overlays(record: RunRecord, colors: dict[str, str], data_dir: str | Path | None, notes: list[str]) -> str:
    cases, dice = record.scores()
    means = {case: _mean(row) for case, row in zip(cases, dice, strict=True)}
    ranked = sorted((case for case in cases if math.isfinite(means[case])), key=lambda case: means[case])
    worst = ranked[: min(_SHOWN, (len(ranked) + 1) // 2)]
    best = ranked[len(worst) :][-_SHOWN:][::-1]
    try:
        datalist = read_datalist(record.folder / "configs" / "datalist.json", data_dir or record.config["dataset_dir"])
    except DataError as error:
        notes.append(f"No overlays: {error}")
        return ""
    columns = []
    for heading, chosen in (("Worst" if best else "All", worst), ("Best", best)):
        figures = [_figure(record, datalist, case, means[case], colors, notes) for case in chosen]
        if any(figures):
            columns.append(f"<div><h3>{heading}</h3>{''.join(figures)}</div>")
    if not columns:
        return ""
    how = (
        "Each picture shows the slices with most foreground, cut to the region around it. "
        "R, A, S: the patient's right, front and top."
        if len(record.setting("roi_size", (0, 0, 0))) == 3
        else "Each picture is cut to the region around the foreground."
    )
    labels = {name: colors[name] for name in record.label_space.labels}
    return page.section(
        "Worst and best cases",
        page.legend(labels) + page.paragraph(how, "soft") + f'<div class="cases">{"".join(columns)}</div>',
    )


def _figure(
    record: RunRecord, datalist: Datalist, case_id: str, mean: float, colors: dict[str, str], notes: list[str]
) -> str:
    sections = datalist.sections.values()
    case = next((case for section in sections for case in section if case.id == case_id), None)
    prediction = record.prediction(case_id)
    if case is None or prediction is None:
        notes.append(f"No overlay of {case_id}: there is no label map of it that was scored.")
        return ""
    try:
        view = load_view(
            case,
            prediction,
            record.label_space,
            record.channels,
            record.setting("preprocess::normalization", ()),
        )
        picture = overlay_jpeg(view, [colors[name] for name in record.label_space.labels])
    except Exception as error:  # readers raise anything; a report does without one picture
        logger.debug("overlay of %s", case_id, exc_info=True)
        notes.append(f"No overlay of {case_id}: {str(error).strip() or type(error).__name__}")
        return ""
    return page.jpeg(picture, f"{case_id} · Dice {_digits(mean)}", view.note)


# ---------------------------------------------------------------------- warnings
def _score_warnings(record: RunRecord) -> list[str]:
    assert record.metrics is not None
    scored = record.metrics["cases"]
    note = background_note(background_cases(scored), len(scored))
    found = [*record.metrics.get("biases", ()), *([note] if note else [])]
    if is_outdated(record.folder, record.metrics):
        found.append("The run no longer has the weights that were scored; run `medseg validate` again.")
    lacking = [t for t in record.targets if not record.metrics["labels"][t].get("dice", {}).get("cases")]
    if lacking:
        found.append(f"In no validation case: {', '.join(lacking)}.")
    if len(record.metrics["cases"]) < 10:
        found.append(
            f"Only {_count(len(record.metrics['cases']), 'case')} scored: intervals over so few cases are too narrow."
        )
    return found


def _data_warnings(record: RunRecord) -> list[str]:
    found = []
    overlaps = record.table.get("known_overlaps") or []
    if overlaps:
        shown = ", ".join(map(str, overlaps[:10])) + (", …" if len(overlaps) > 10 else "")
        found.append(f"Known overlaps between training and validation, so results are biased: {shown}.")
    if record.facts.get("status") not in (None, "finished"):
        found.append(f"The training is not finished (status: {record.facts['status']}).")
    # What validation logged on predictions is told from the scores as they are now.
    logged = [text for text in record.warnings if not text.startswith(_OF_SCORES)]
    return found + logged[-_MOST_WARNINGS:]


# ---------------------------------------------------------------------- numbers
def _mean(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else math.nan


def _digits(value: float, digits: int = 3) -> str:
    return f"{value:.{digits}f}" if math.isfinite(value) else "–"


def _bounds(interval: Interval) -> str:
    return f"{interval.low:.3f} – {interval.high:.3f}" if math.isfinite(interval.low) else "–"


def _with_bounds(interval: Interval) -> str:
    bounds = f" (95 % interval {_bounds(interval)})" if math.isfinite(interval.low) else ""
    return _digits(interval.mean) + bounds


def _tolerance(record: RunRecord) -> str:
    tolerance: Any = (record.metrics or {}).get("surface_dice_tolerance_mm")
    return f"{tolerance:g} {record.unit}" if isinstance(tolerance, (int, float)) else "unknown tolerance"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")
