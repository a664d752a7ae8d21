"""Fit the number of epochs, and with it the learning-rate schedule, to a time budget by measuring a few steps."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

from medseg.bundle import dump_yaml
from medseg.data.sampling import turns
from medseg.engines.ranks import world_size
from medseg.workflows.compose import merged_config
from medseg.workflows.measuring import case_seconds, cases_of, step_seconds
from medseg.workflows.run_folder import write_facts

__all__ = ["fit_epochs"]

logger = logging.getLogger("medseg")

# Shares of the time:
_VALIDATION = 0.12  # all validations together
_LONG = 0.3  # a validation that takes longer goes over fewer cases
_TOO_LONG = 0.5  # one that still takes longer does not take place
_MEASURING = 0.05  # of steps, and again of validation cases
_MARGIN = 0.92  # the rest is for checkpoints and a machine that slows down


def fit_epochs(workflow: Any, run: Path, seconds: float) -> int:
    """Measure training steps and validation cases, then write ``epochs`` and ``val_interval`` into the run's config.

    Where a validation would take long, its ``validation_cases`` are set, if it has them; where not even one epoch would
    end in time, its ``iterations``. The steps are real ones: the workflow is of no use afterwards.
    """
    began = time.monotonic()
    parser = workflow.parser
    trainer = parser.get_parsed_content("train::trainer")
    evaluator = parser.get_parsed_content("validate::evaluator")
    step = step_seconds(trainer, _MEASURING * seconds)
    costs, numbers = case_seconds(evaluator, _MEASURING * seconds), turns(cases_of(evaluator))
    left = max(1.0, (seconds - (time.monotonic() - began)) * _MARGIN)

    path = run / "configs" / "train.yaml"
    config = merged_config([path])
    few = config.get("validation_cases")
    validation = _seconds(costs, numbers, few)
    most = few or max(numbers, default=0) + 1
    while "validation_cases" in config and validation > _LONG * left and most > 1:
        most -= 1
        few = config["validation_cases"] = most
        validation = _seconds(costs, numbers, few)
    too_long = validation
    if validation > _TOO_LONG * left:
        validation = 0.0
    length = trainer.state.epoch_length
    if config.get("iterations") and step * length > left - validation:
        length = config["iterations"] = max(1, int((left - validation) / step))
    epochs, interval = _plan(left, step * length, validation)
    config |= {"epochs": epochs, "val_interval": interval if validation or not costs else epochs + 1}
    dump_yaml(config, path, f"epochs and val_interval fitted to {seconds / 60:.3g} minutes.")
    write_facts(run, fitted_epochs=epochs, seconds_per_step=round(step, 4), seconds_per_validation=round(validation, 2))
    logger.info("fitted to the time: %d epochs of %d steps (%.2f s each)", epochs, length, step)
    if validation:
        some = f" of {few} cases per data set" if few else ""
        logger.info("validation%s every %d epochs (%.1f s)", some, interval, validation)
    elif costs:
        logger.warning("no validation while training: it would take %.0f s; the last weights are kept", too_long)
    return epochs


def _plan(left: float, epoch: float, validation: float) -> tuple[int, int]:
    """Epochs and their number per validation, the last one validated: as many validations as their share allows and
    the epochs do not suffer from.
    """
    most = min(20, max(1, int(_VALIDATION * left / validation))) if validation else 1
    intervals = {rounds: int((left - rounds * validation) / epoch) // rounds for rounds in range(1, most + 1)}
    longest = max(rounds * interval for rounds, interval in intervals.items())
    rounds = max(rounds for rounds, interval in intervals.items() if rounds * interval >= 0.95 * longest)
    interval = intervals[rounds]
    return (rounds * interval, interval) if longest else (1, 1)


def _seconds(costs: list[float], numbers: list[int], few: int | None) -> float:
    """Of a validation of the first ``few`` cases of each data set, or of all, that all processes share."""
    chosen = (cost for cost, number in zip(costs, numbers, strict=True) if few is None or number < few)
    return sum(chosen) / world_size()
