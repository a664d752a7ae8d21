"""Write ``report.html`` into a run folder: result, curves, scores per label and case, overlays, facts and warnings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path

import numpy as np

from medseg.engines.run_files import is_outdated
from medseg.errors import ConfigError
from medseg.labels.colors import label_colors, target_colors
from medseg.metrics import Scores
from medseg.reports import scores
from medseg.reports.agreement import Agreement, volume_agreement
from medseg.reports.calibrated import Calibration, ShownCalibration
from medseg.reports.charts import curves_charts, scores_chart
from medseg.reports.drawing import Chart, save_figure
from medseg.reports.page import Table, render
from medseg.reports.record import RunRecord, read_record
from medseg.reports.score_table import score_table
from medseg.reports.settings import setting_groups
from medseg.reports.tables import latex_table, markdown_table
from medseg.reports.viewer import Viewer
from medseg.reports.worst_and_best import CASE_FIGURE, Overlays, run_overlays
from medseg.settings import Folder, takes
from medseg.storage import write_text

__all__ = ["ReportPage", "ReportSettings", "ShownScores", "shown_scores", "write_page", "write_report"]

_MOST_WARNINGS = 30
_OF_SCORES = "Entirely background"  # logged by validation


@dataclass(frozen=True)
class ShownScores:
    """What the page shows of scores."""

    labels: Table
    explanation: str
    chart: Chart
    every: Table
    volumes: Agreement | None
    overlays: Overlays
    cases: Table


@dataclass(frozen=True)
class ReportPage:
    """What ``templates/report.html`` shows; what is empty or ``None`` has no section."""

    title: str
    lead: str
    tiles: Sequence[tuple[str, str]]
    warnings: Sequence[str]
    curves: Sequence[Chart]
    scores: ShownScores | None
    calibration: ShownCalibration | None
    settings: Mapping[str, Mapping[str, str]]
    not_recorded: str = ""  # sentence on what the curves lack


@dataclass(frozen=True)
class ReportSettings:
    """The run that is reported.

    Attributes:
        run: run folder. Scores and overlays need `medseg validate` first; curves and facts do not.
        data_dir: folder of the images, where they were moved (default: as in training).
        viewer: page viewer.html, of the same cases in three planes and 3D. For volumes; it needs no network.
    """

    run: Folder
    _: KW_ONLY
    data_dir: Folder | None = None
    viewer: bool = False


@takes(ReportSettings)
def write_report(settings: ReportSettings) -> Path:
    """Write a run's report: curves, scores with intervals, overlays of the worst and best cases, and all settings.

    One page that needs no other file, its scores as ``report.md`` and ``report.tex``, and each figure as PNG, SVG and
    PDF in ``figures``.

    Returns:
        ``<run>/report.html``.

    Raises:
        ConfigError: there is no run, or a viewer is asked for without scores or of 2D images.
        DataError: a file of the run is damaged.
    """
    record = read_record(settings.run)
    title = f"{record.network} on {record.dataset}"
    if settings.viewer and (record.metrics is None or record.unit == "px"):
        raise ConfigError(
            "--viewer shows volumes that `medseg validate` has scored; validate the run, or leave it out."
        )
    lead = "Not validated yet: `medseg validate` has not been run on this run."
    warnings = [f"There are no scores: run `medseg validate --run {record.folder}`, then `medseg report` again."]
    shown = None
    if record.metrics is not None:
        viewer = Viewer(title, label_colors(record.label_space.labels)) if settings.viewer else None
        shown = shown_scores(record, lambda colors: run_overlays(record, colors, settings.data_dir, viewer))
        if viewer is not None and viewer.cases:
            viewer.write(record.folder)
        lead = scores.headline(record)
        warnings = [*shown.overlays.problems, *scores.score_warnings(record)]
    calibration = Calibration.found(record.folder)
    warnings += _calibration_warnings(record, calibration)
    page = ReportPage(
        title=title,
        lead=lead,
        tiles=scores.tiles(record) if shown else [],
        warnings=[*warnings, *_data_warnings(record)],
        curves=_curves(record),
        scores=shown,
        calibration=None if calibration is None else ShownCalibration.of(calibration),
        settings=setting_groups(record),
        not_recorded=_not_recorded(record),
    )
    if shown is not None:
        table = shown.labels
        rows = [*table.rows, *([table.total] if table.total else [])]
        write_text(
            record.folder / "report.md", f"{lead}\n\n{markdown_table(table.header, rows)}\n\n{shown.explanation}\n"
        )
        write_text(record.folder / "report.tex", latex_table(table.header, rows, lead))
    return write_page(page, record.folder)


def write_page(page: ReportPage, folder: Path) -> Path:
    """Write ``report.html``, and its figures as files of their own in ``figures``."""
    for file in (folder / "figures").glob(f"{CASE_FIGURE}*"):
        file.unlink()
    shown = page.scores
    overlays = [picture for column in shown.overlays.columns.values() for picture in column] if shown else []
    calibration = page.calibration.chart if page.calibration else None
    charts = [*page.curves, calibration]
    charts += [shown.chart, shown.volumes.chart if shown.volumes else None] if shown else []
    for one in (*charts, *overlays):
        if one is not None:
            save_figure(one.figure, folder / "figures" / one.name)
    path = folder / "report.html"
    write_text(path, render("report.html", page))
    return path


def shown_scores(record: RunRecord, overlays: Callable[[Mapping[str, str]], Overlays]) -> ShownScores:
    """The scores of a record; ``overlays`` draws its worst and best cases in the labels' colours."""
    assert record.metrics is not None
    colors = target_colors(record.label_space, record.targets)
    return ShownScores(
        labels=scores.label_table(record, colors),
        explanation=scores.explanation(record),
        chart=scores_chart(record.targets, record.scores()[1], colors),
        every=score_table(record.metrics, colors),
        volumes=volume_agreement(record.metrics, colors),
        overlays=overlays(colors),
        cases=scores.case_table(record),
    )


def _curves(record: RunRecord) -> list[Chart]:
    if record.curves is None or not len(record.curves.epochs["epoch"]):
        return []
    return curves_charts(record.curves, target_colors(record.label_space, record.curves.labels))


def _not_recorded(record: RunRecord) -> str:
    if record.curves is None:
        return ""
    validated = np.isfinite(record.curves.epochs["mean_dice"]).any()
    lacking = [] if len(record.curves.losses) else ["the loss of each iteration"]
    lacking += ["the Dice of each label"] if validated and not record.curves.labels else []
    return f"This training did not record {' and '.join(lacking)}." if lacking else ""


def _calibration_warnings(record: RunRecord, calibration: Calibration | None) -> list[str]:
    scored = None if calibration is None else Scores.found(record.folder / "calibration")
    if scored is None or not is_outdated(record.folder, scored):
        return []
    return ["The run no longer has the weights that were calibrated; run `medseg calibrate` again."]


def _data_warnings(record: RunRecord) -> list[str]:
    found = []
    overlaps = record.table.get("known_overlaps") or []
    if overlaps:
        shown = ", ".join(map(str, overlaps[:10])) + (", …" if len(overlaps) > 10 else "")
        found.append(f"Known overlaps between training and validation, so results are biased: {shown}.")
    if record.facts.status not in (None, "finished"):
        found.append(f"The training is not finished (status: {record.facts.status}).")
    # What validation logged on predictions is told from the scores as they are now.
    logged = [text for text in record.warnings if not text.startswith(_OF_SCORES)]
    return found + logged[-_MOST_WARNINGS:]
