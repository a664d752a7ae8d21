"""What scores are of, in sentences: which cases, which weights, raw or cleaned predictions, which definitions."""

from __future__ import annotations

import math

from medseg.metrics import FoldScores, Scores
from medseg.metrics.estimate import FAILURE, Estimate
from medseg.reports.tables import share_of

__all__ = ["interval_note", "scored_as", "scored_lines"]

_SPACES = {"source": "in the original image space", "model": "in the model's space"}
_SURFACES = {
    "voxels": "border voxels",
    "pooled": "border voxels, both directions pooled",
    "area": "surface area",
    "area_opened": "surface area after opening the prediction",
}


def scored_as(scores: Scores | FoldScores) -> str:
    """One sentence without its full stop, of what scores record."""
    cases = len(scores.cases) if isinstance(scores, Scores) else scores.scored_cases
    facts, definition = scores.facts, scores.definition
    named = [word for word in dict.fromkeys((facts.role, facts.section)) if word]
    of = ""
    if isinstance(scores, Scores) and facts.subjects:
        subjects = len(set(scores.units))
        of = f" of {subjects} subject{'' if subjects == 1 else 's'}"
    parts = [f"{cases} case{'' if cases == 1 else 's'}{of}" + (f" ({', '.join(named)})" if named else "")]
    if facts.fold is not None:
        parts.append(f"fold {facts.fold}")
    if facts.checkpoint:
        parts.append(f"checkpoint {facts.checkpoint}")
    written = scores.predictions if isinstance(scores, Scores) else None
    place = f" in {written.folder}" if written is not None and written.sha256 else ""
    parts.append(f"{definition.postprocessing} predictions{place}")
    if definition.space in _SPACES:
        parts.append(_SPACES[definition.space])
    if definition.surface_measure in _SURFACES and _has_surfaces(scores):
        tolerance = definition.surface_dice_tolerance_mm
        shown = f"{tolerance:g} {definition.unit}" if isinstance(tolerance, (int, float)) else "the mean voxel size"
        parts.append(f"surfaces by {_SURFACES[definition.surface_measure]}, surface Dice at {shown}")
    return ", ".join(parts)


def scored_lines(scores: Scores | FoldScores) -> list[str]:
    """That sentence, and those on what makes the scores better than on new cases."""
    notes = (*(scores.facts.chosen or ()), *(scores.facts.biases or ()))
    return [f"scored: {scored_as(scores)}", *(f"note: {text}" for text in notes)]


def interval_note(found: Estimate) -> str:
    """The interval of a mean in brackets, and the failures; with fewer than six subjects the failures alone."""
    interval = found.score
    failed = f"cases with a Dice < {FAILURE:g}: {share_of(found.failures)}"
    if not math.isfinite(interval.low):
        return f" ({failed})"
    few = ", few subjects" if interval.few_subjects else ""
    return f" (95 % interval {interval.low:.3f} – {interval.high:.3f}{few}; {failed})"


def _has_surfaces(scores: Scores | FoldScores) -> bool:
    return any("hd95" in row or "surface_dice" in row for row in scores.labels.values())
