"""When to stop before the last epoch: no better validation score for a while."""

from __future__ import annotations

import logging
import math
from typing import Any

from ignite.engine import Events

__all__ = ["EarlyStop"]

logger = logging.getLogger("medseg")


class EarlyStop:
    """Stops when ``patience`` validations in a row brought no better score; ``None`` never stops.

    It holds no state of its own: the evaluator's best epoch, which the checkpoint keeps, says it all. Under a time
    limit, where validations follow the clock, those after the best one are counted.
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
        if engine.limit is None:
            waited = (engine.state.epoch - best) // self.val_interval
        else:
            waited = sum(epoch > best for epoch, _ in engine.limit.checkpoint.validations)
        if waited >= self.patience:
            logger.info("no better validation score since epoch %d: stopping at epoch %d", best, engine.state.epoch)
            engine.terminate()
