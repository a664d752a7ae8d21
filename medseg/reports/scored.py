"""What scores are of, in sentences: which cases, which weights, raw or cleaned predictions, which definitions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from medseg.metrics import ScoreDefinition

__all__ = ["scored_as", "scored_lines"]

_SPACES = {"source": "in the original image space", "model": "in the model's space"}
_SURFACES = {"voxels": "border voxels", "area": "surface area"}


def scored_as(content: Mapping[str, Any]) -> str:
    """One sentence without its full stop, of what a ``metrics.json`` or ``folds.json`` records."""
    definition = ScoreDefinition.read(content)
    number = content.get("scored_cases", len(content.get("cases", ())))
    role, section = content.get("role"), content.get("section")
    named = [word for word in dict.fromkeys((role, section)) if word]
    parts = [f"{number} case{'' if number == 1 else 's'}" + (f" ({', '.join(named)})" if named else "")]
    if content.get("fold") is not None:
        parts.append(f"fold {content['fold']}")
    if content.get("checkpoint"):
        parts.append(f"checkpoint {content['checkpoint']}")
    written = content.get("predictions")
    parts.append(f"{definition.postprocessing} predictions" + (f" in {written['folder']}" if written else ""))
    if definition.space in _SPACES:
        parts.append(_SPACES[definition.space])
    if definition.surface_measure in _SURFACES and _has_surfaces(content):
        tolerance = definition.surface_dice_tolerance_mm
        shown = f"{tolerance:g} {definition.unit}" if isinstance(tolerance, (int, float)) else "the mean voxel size"
        parts.append(f"surfaces by {_SURFACES[definition.surface_measure]}, surface Dice at {shown}")
    return ", ".join(parts)


def scored_lines(content: Mapping[str, Any]) -> list[str]:
    """That sentence, and those on what makes the scores better than on new cases."""
    return [f"scored: {scored_as(content)}", *(f"note: {text}" for text in content.get("biases", ()))]


def _has_surfaces(content: Mapping[str, Any]) -> bool:
    return any("hd95" in row or "surface_dice" in row for row in content.get("labels", {}).values())
