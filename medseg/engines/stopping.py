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
    """Ends training after the epoch in which ``minutes`` of training have passed; ``None`` is no limit."""

    def __init__(self, minutes: float | None, checkpoint: Any) -> None:
        self.minutes = minutes
        self.checkpoint = checkpoint

    def attach(self, engine: Any) -> None:
        if self.minutes is not None:
            engine.add_event_handler(Events.STARTED, self._check)
            engine.add_event_handler(Events.EPOCH_COMPLETED, self._check)

    def _check(self, engine: Any) -> None:
        if self.minutes is None or not 0 < engine.state.epoch < engine.state.max_epochs:
            return
        # Clocks differ between ranks; one that stopped alone would leave the others waiting.
        if agree(int(self.checkpoint.elapsed_seconds > 60 * self.minutes), engine.state.device):
            logger.warning(
                "%g minutes are over in epoch %d of %d: stopping",
                self.minutes,
                engine.state.epoch,
                engine.state.max_epochs,
            )
            engine.terminate()
