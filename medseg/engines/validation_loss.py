"""The training's loss on the validation cases, for publications that choose their model by it."""

from __future__ import annotations

import math
from typing import Any

import torch
from ignite.engine import Events
from ignite.metrics import Metric
from monai.engines.utils import IterationEvents
from monai.utils.enums import CommonKeys as Keys
from torch import nn

from medseg.engines.ranks import gather

__all__ = ["ValidationLoss", "lower_is_better"]


def lower_is_better(value: float, best: float) -> bool:
    """MONAI's ``metric_cmp_fn`` of an evaluator whose key metric is a loss."""
    return value < best


class ValidationLoss(Metric):
    """An ignite metric: mean over the batches of an evaluator of a loss of its logits, before any postprocessing.

    Less is better: where this is the key metric, the evaluator's ``metric_cmp_fn`` is ``lower_is_better``. Labels must
    be on the grid of the logits.

    Args:
        loss: ``(logits (B, C, *spatial), labels (B, 1, *spatial)) -> scalar``.
    """

    def __init__(self, loss: nn.Module) -> None:
        self.loss = loss
        super().__init__()

    def attach(self, engine: Any, name: str, usage: Any = None) -> None:
        engine.add_event_handler(Events.EPOCH_STARTED, self.started)
        engine.add_event_handler(IterationEvents.FORWARD_COMPLETED, self._add)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.completed, name)

    def reset(self) -> None:
        self.values: dict[str, float] = {}

    def update(self, output: Any) -> None:
        """Unused: postprocessing has changed the engine's output by then."""

    @torch.no_grad()
    def _add(self, engine: Any) -> None:
        output = engine.state.output
        value = self.loss(torch.as_tensor(output[Keys.PRED]).float(), torch.as_tensor(output[Keys.LABEL])).mean()
        self.values["|".join(map(str, engine.state.batch["case_id"]))] = float(value)

    def compute(self) -> float:
        """NaN without a case."""
        values = [value for _, value in sorted(gather(self.values).items())]
        return math.fsum(values) / len(values) if values else math.nan
