"""What scores are of, in sentences: which cases, which weights, raw or cleaned predictions, which definitions."""

from __future__ import annotations

import math
from collections.abc import Iterator

from medseg.metrics import FoldScores, Scores
from medseg.metrics.catalog import metric
from medseg.metrics.empty import rule_words
from medseg.metrics.estimate import FAILURE, Estimate
from medseg.reports.tables import share_of

__all__ = ["further_lines", "interval_note", "scored_as", "scored_lines"]

_SPACES = {"source": "in the original image space", "model": "in the model's space"}


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
    surfaces = [metric(name) for name in scores.metrics if name.startswith(("hd95_", "surface_dice"))]
    parts += [one.heading(definition.unit).removesuffix(f", {definition.unit}") for one in surfaces]
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


def further_lines(scores: Scores | FoldScores) -> Iterator[str]:
    """What means do not tell: per label the undefined and the penalised values, lesions by their size, and what was
    predicted in cases without the label.
    """
    ruled = False
    for label, row in scores.labels.items():
        known = {name: row[name] for name in scores.metrics if name in row}
        for what in ("undefined", "penalised"):
            if said := [f"{name} in {number}" for name, one in known.items() if (number := getattr(one, what))]:
                ruled = True
                yield f"{label}: {what} {', '.join(said)}"
    for label, sizes in scores.detection.items() if isinstance(scores, Scores) else ():
        for size, one in sizes.items():
            share = f", sensitivity {one.sensitivity:.3f}" if one.lesions else ""
            found = f"{one.found} of {one.lesions} lesions found{share}"
            yield f"{label}, {size}: {found}; {one.false_per_scan:.3g} false per scan"
    for label, free in scores.lesion_free.items() if isinstance(scores, Scores) else ():
        kept = free.kept_empty
        yield (
            f"{label}: {kept.of} cases without it, of which {kept.hits} kept empty; {free.false_positive_ml:.3g} ml "
            f"and {free.components:.3g} parts predicted per case"
        )
    if ruled and (words := rule_words(scores.definition.empty)):
        yield f"empty masks: {words}"
