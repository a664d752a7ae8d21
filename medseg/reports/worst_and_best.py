"""Overlays of the worst, the median and the best of the scored cases."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from medseg.data import Case, read_datalist
from medseg.data.case_view import load_view
from medseg.errors import DataError
from medseg.reports.overlays import ERRORS, overlay_figure, overlay_jpeg
from medseg.reports.page import Picture
from medseg.reports.record import RunRecord
from medseg.reports.tables import digits, mean
from medseg.reports.viewer import Viewer

__all__ = ["CASE_FIGURE", "Overlays", "draw_overlays", "run_overlays"]

logger = logging.getLogger("medseg")

CASE_FIGURE = "case_"  # how the names of their files begin
_SHOWN = 2  # worst, median and best cases each


@dataclass(frozen=True)
class Overlays:
    """What a page shows of single cases.

    Attributes:
        colors: what is drawn -> its colour.
        explanation: how the overlays were cut.
        columns: heading -> overlays.
        problems: sentences on what could not be drawn.
    """

    colors: Mapping[str, str]
    explanation: str
    columns: Mapping[str, Sequence[Picture]]
    problems: Sequence[str]


def run_overlays(
    record: RunRecord, colors: Mapping[str, str], data_dir: str | Path | None, viewer: Viewer | None = None
) -> Overlays:
    """Those of a validated run.

    Args:
        record: the run.
        colors: label -> its colour.
        data_dir: where the images are now; default: as in training.
        viewer: takes the cases that are drawn.
    """
    try:
        datalist = read_datalist(record.folder / "configs" / "datalist.json", data_dir or record.config["dataset_dir"])
    except DataError as error:
        return Overlays(colors, "", {}, [f"No overlays: {error}"])
    cases = [case for section in datalist.sections.values() for case in section]
    files = {case.id: (case, path) for case in reversed(cases) if (path := record.prediction(case.id)) is not None}
    return draw_overlays(record, colors, files, viewer)


def draw_overlays(
    record: RunRecord,
    colors: Mapping[str, str],
    files: Mapping[str, tuple[Case, Path]],
    viewer: Viewer | None = None,
) -> Overlays:
    """Draw the cases with the lowest, the median and the highest mean Dice; without their files the columns are empty.

    Args:
        record: what was scored.
        colors: label -> its colour.
        files: case id -> the case, and its label map that was scored.
        viewer: takes the cases that are drawn.
    """
    volume = len(record.setting("roi_size", (0, 0, 0))) == 3 and record.unit == "mm"
    how = (
        "Contours of reference and prediction, and where they differ, in the slices with most foreground, cut to the "
        "region around it; below, surfaces from the feet, the front and the left. R, A, S: the patient's right, "
        "front and top."
        if volume
        else "Contours of reference and prediction, and where they differ, cut to the region around the foreground."
    )
    problems: list[str] = []
    columns: dict[str, list[Picture]] = {}
    cases, dice = record.scores()
    means = {case: mean(row) for case, row in zip(cases, dice, strict=True)}
    ranked = sorted((case for case in cases if math.isfinite(means[case])), key=lambda case: means[case])
    labels = {name: colors[name] for name in record.label_space.labels}
    shown = labels | ERRORS
    for heading, chosen in _chosen(ranked).items():
        drawn = [_draw(record, files, case, means[case], labels, viewer, problems) for case in chosen]
        if pictures := [picture for picture in drawn if picture is not None]:
            columns[heading] = pictures
    return Overlays(shown, how, columns, problems)


def _chosen(ranked: Sequence[str]) -> dict[str, Sequence[str]]:
    """Heading -> cases, of cases from the worst to the best."""
    number = len(ranked)
    if number < 3:
        return {"Worst": ranked[:1], "Best": ranked[1:]} if number == 2 else {"All": ranked}
    shown = min(_SHOWN, number // 3)
    middle = (number - shown) // 2
    return {"Worst": ranked[:shown], "Median": ranked[middle : middle + shown], "Best": ranked[-shown:][::-1]}


def _draw(
    record: RunRecord,
    files: Mapping[str, tuple[Case, Path]],
    case_id: str,
    dice: float,
    colors: Mapping[str, str],
    viewer: Viewer | None,
    problems: list[str],
) -> Picture | None:
    if case_id not in files:
        problems.append(f"No overlay of {case_id}: there is no label map of it that was scored.")
        return None
    case, prediction = files[case_id]
    normalization = record.setting("preprocess::normalization", ())
    try:
        view = load_view(case, prediction, record.label_space, record.channels, normalization)
        figure = overlay_figure(view, colors)
        title = f"{case_id} · Dice {digits(dice)}"
        if viewer is not None:
            viewer.add(title, view)
        return Picture(overlay_jpeg(figure), title, view.note, CASE_FIGURE + case_id, figure)
    except Exception as error:  # readers raise anything; a report does without one overlay
        logger.debug("overlay of %s", case_id, exc_info=True)
        problems.append(f"No overlay of {case_id}: {str(error).strip() or type(error).__name__}")
        return None
