"""The report of label maps that were scored without a run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from medseg.data.label_pairs import LabelPairs
from medseg.engines.run_facts import RunFacts
from medseg.labels import LabelSpace
from medseg.metrics import Scores
from medseg.reports import scores as shown
from medseg.reports.record import RunRecord
from medseg.reports.report import ReportPage, shown_scores, write_page
from medseg.reports.worst_and_best import Overlays, draw_overlays

__all__ = ["write_evaluation_report"]


def write_evaluation_report(
    folder: Path, title: str, scores: Scores, label_space: LabelSpace, facts: Mapping[str, str], pairs: LabelPairs
) -> Path:
    """Write ``report.html`` and its ``figures`` into the folder of the scores.

    Args:
        folder: folder of the scores.
        title: what was scored.
        scores: the scores.
        label_space: what was evaluated.
        facts: name -> value of what the evaluation was of.
        pairs: the cases with their predictions, which are drawn where they have images.
    """
    unit = {"training": [{"image": "image.png" if scores.definition.unit == "px" else "image.nii.gz"}]}
    record = RunRecord(folder, {}, RunFacts(), {}, unit, label_space, None, scores, [])
    definitions = {name: text for name, text in scores.to_table()["metrics"].items()}
    scored = shown_scores(record, lambda colors: _overlays(record, colors, pairs))
    page = ReportPage(
        title=title,
        lead=shown.headline(record),
        tiles=shown.tiles(record),
        warnings=[*scored.overlays.problems, *shown.score_warnings(record)],
        curves=(),
        scores=scored,
        calibration=None,
        settings={"Evaluation": facts, "Scores": definitions},
    )
    return write_page(page, folder)


def _overlays(record: RunRecord, colors: Mapping[str, str], pairs: LabelPairs) -> Overlays:
    if not all(case.images for case in pairs.cases):
        return Overlays(colors, "", {}, [])
    return draw_overlays(record, colors, {case.id: (case, pairs.predictions[case.id]) for case in pairs.cases})
