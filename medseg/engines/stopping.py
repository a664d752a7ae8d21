"""When to stop before the last epoch: no better validation score for a while, or the time is up.

Both look at the end of each epoch, and when a run goes on (after ``Checkpoint`` has loaded its state), so that a run
that was over stays over.
"""

from __future__ import annotations

import logging
import math
from typing import Any

from ignite.engine import Events

from medseg.engines.ranks import agree

__all__ = ["EarlyStop", "TimeLimit"]

logger = logging.getLogger("medseg")


class EarlyStop:
    """Stops when ``patience`` validations in a row brought no better score; ``None`` never stops.

    It holds no state of its own: the evaluator's best epoch, which the checkpoint keeps, says it all.
    """

    def __init__(self, evaluator: Any, val_interval: int, patience: int | None = None) -> None:
        self.evaluator = evaluator
        self.val_interval = val_interval
        self.patience = patience

    def attach(self, engine: Any) -> None:
        if self.patience is not None:
            engine.add_event_handler(Events.STARTED, self._check)
            engine.add_event_handler(Events.EPOCH_COMPLETED, self._check)

    def _check(self, engine: Any) -> None:
        best = self.evaluator.state.best_metric_epoch
        if self.patience is None or best < 1 or math.isnan(self.evaluator.state.best_metric):
            return
        if engine.state.epoch - best >= self.patience * self.val_interval:
            logger.info("no better validation score since epoch %d: stopping at epoch %d", best, engine.state.epoch)
            engine.terminate()


class TimeLimit:
    """Ends training when ``minutes`` of it have passed, after the step or the validation case at hand; ``None`` is no
    limit.

    What is trained is kept; a validation that is cut short gives no score.
    """

    def __init__(self, minutes: float | None, checkpoint: Any) -> None:
        self.minutes = minutes
        self.checkpoint = checkpoint
        self.shared = 0

    def attach(self, engine: Any) -> None:
        if self.minutes is None:
            return
        engine.add_event_handler(Events.STARTED, self._check)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._after_step)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._check)
        if self.checkpoint.evaluator is not None:
            self.checkpoint.evaluator.add_event_handler(Events.STARTED, self._count_shared)
            self.checkpoint.evaluator.add_event_handler(Events.ITERATION_STARTED, self._before_case)

    def _is_over(self, engine: Any) -> bool:
        # Clocks differ between ranks; one that stopped alone would leave the others waiting.
        over = self.minutes is not None and self.checkpoint.elapsed_seconds > 60 * self.minutes
        return bool(agree(int(over), engine.state.device))

    def _check(self, engine: Any) -> None:
        state = engine.state
        if state.iteration > 0 and state.epoch < state.max_epochs and self._is_over(engine):
            logger.warning(
                "%g minutes are over in epoch %d of %d: stopping", self.minutes, state.epoch, state.max_epochs
            )
            engine.terminate()

    def _after_step(self, engine: Any) -> None:
        last = engine.state.iteration % engine.state.epoch_length == 0
        if not last and engine.steps_now() and self._is_over(engine):
            engine.terminate_epoch()  # which still validates, saves and logs it

    def _count_shared(self, evaluator: Any) -> None:
        # The ranks' shares of the cases differ by up to one, before which not all of them can be asked.
        self.shared = -agree(-evaluator.state.epoch_length, evaluator.state.device)

    def _before_case(self, evaluator: Any) -> None:
        if evaluator.state.iteration <= self.shared and self._is_over(evaluator):
            logger.warning("%g minutes are over: the validation is cut short and gives no score", self.minutes)
            evaluator.state.metrics = {}  # those of an earlier validation
            evaluator.terminate()
