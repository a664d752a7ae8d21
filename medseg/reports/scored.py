"""What scores are of, in sentences: which cases, which weights, raw or cleaned predictions, which definitions."""

from __future__ import annotations

from medseg.metrics import FoldScores, Scores

__all__ = ["scored_as", "scored_lines"]

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
    parts = [f"{cases} case{'' if cases == 1 else 's'}" + (f" ({', '.join(named)})" if named else "")]
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
    return [f"scored: {scored_as(scores)}", *(f"note: {text}" for text in scores.facts.biases or ())]


def _has_surfaces(scores: Scores | FoldScores) -> bool:
    return any("hd95" in row or "surface_dice" in row for row in scores.labels.values())
