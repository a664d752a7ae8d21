"""What a reader has to know of scores, in sentences beside them: on which cases things were chosen, what is biased."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from medseg.engines.run_facts import RunFacts
from medseg.engines.run_files import scored_weights

__all__ = ["biases", "choices"]

logger = logging.getLogger("medseg")


def choices(
    config: Mapping[str, Any], facts: RunFacts, checkpoint: str, *, cleaned: bool, validation: bool
) -> list[str]:
    """Sentences on what was chosen for the scores of a run; none on weights of which that is not recorded.

    Args:
        config: config of the training.
        facts: facts of the training.
        checkpoint: name of the weights.
        cleaned: whether rules of post-processing are applied.
        validation: whether the run's own validation cases are scored.
    """
    found = []
    here = ", which are scored here" if validation else ""
    checkpoint = scored_weights(config, facts, checkpoint)
    if checkpoint == "last":
        found.append("The final weights are scored: no cases chose them.")
    elif checkpoint.startswith("best"):
        of = f"{facts.validations} validations" if (facts.validations or 1) > 1 else "a validation"
        cases = "the" if facts.validation_cases is None else f"{len(facts.validation_cases)}"
        found.append(f"Checkpoint {checkpoint} was chosen by {of} on {cases} validation cases{here}.")
    if cleaned:
        found.append(f"The rules of post-processing were chosen on validation cases{here}.")
    return found


def biases(seen: Iterable[tuple[str, int]], cases: int, *, cleaned: bool, calibrated: bool = False) -> list[str]:
    """Why scores are better than those of new cases, in sentences; logged as well.

    Args:
        seen: names of networks, and on how many of the cases each was trained.
        cases: number of scored cases.
        cleaned: whether rules are applied that were chosen on these cases.
        calibrated: whether members are joined by probabilities whose temperatures were fitted on these cases.
    """
    found = [
        f"{name} was trained on {number} of these {cases} cases: the scores are optimistically biased."
        for name, number in seen
        if number
    ]
    if cleaned:
        found.append(
            "The rules of post-processing were chosen on validation cases: scores of cleaned predictions on them are "
            "optimistically biased."
        )
    if calibrated:
        found.append(
            "The temperatures of the members were fitted on validation cases: the scores of the ensemble on them are "
            "optimistically biased."
        )
    for text in found:
        logger.warning("%s", text)
    return found
