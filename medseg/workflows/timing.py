"""Choose how many cases a validation goes over, where one of all of them would take too much of a limited time."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from medseg.bundle.compose import command
from medseg.bundle.document import rewrite_training
from medseg.data.sampling import turns
from medseg.engines.ranks import world_size
from medseg.engines.run_facts import RunFacts, write_facts
from medseg.engines.validation_cost import case_seconds, cases_of

__all__ = ["fit_validation"]

logger = logging.getLogger("medseg")

# Shares of the time:
_LONG = 0.3  # a validation that takes longer goes over fewer cases
_MEASURING = 0.05


def fit_validation(workflow: Any, run: Path, seconds: float, facts: RunFacts) -> tuple[RunFacts, bool]:
    """Measure validation cases, then set ``validation_cases`` in the run's config where it has them.

    Returns:
        The facts of the run, and whether its config changed.
    """
    config = workflow.parser.get()
    if "validation_cases" not in config:
        return facts, False
    evaluator = workflow.parser.get_parsed_content("validate::evaluator")
    costs, numbers = case_seconds(evaluator, _MEASURING * seconds), turns(cases_of(evaluator))
    asked = few = config["validation_cases"]
    most = few or max(numbers, default=0) + 1
    while _seconds(costs, numbers, few) > _LONG * seconds and most > 1:
        most -= 1
        few = most
    facts = write_facts(run, RunFacts(fitted_to_time=True), facts)
    if few == asked:
        return facts, False
    logger.warning("a validation of all cases would take too long; it goes over %d of each data set", few)
    rewrite_training(run, command({"validation_cases": few}, "fitted to --max_minutes"))
    return facts, True


def _seconds(costs: list[float], numbers: list[int], few: int | None) -> float:
    """Of a validation of the first ``few`` cases of each data set, or of all, that all processes share."""
    chosen = (cost for cost, number in zip(costs, numbers, strict=True) if few is None or number < few)
    return sum(chosen) / world_size()
