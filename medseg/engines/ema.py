"""Exponential moving average of the weights, by torch's ``AveragedModel``."""

from __future__ import annotations

from typing import Any

from ignite.engine import Events
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from medseg.engines.ranks import broadcast_buffers, unwrap

__all__ = ["UpdateAverage", "evaluated_network", "make_average"]


def make_average(network: nn.Module, decay: float | None, *, ramp: bool = False) -> AveragedModel | None:
    """An averaged copy of the network, buffers included, or ``None`` where ``decay`` is ``None``.

    With ``ramp`` the decay of update n (from 0) is at most 1 - 1 / (n + 1): the average of a short run then forgets
    where it began (as Hermes trains).
    """
    if decay is None:
        return None
    if not ramp:
        return AveragedModel(unwrap(network), multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)

    def rising(averages: Any, values: Any, count: Any) -> None:
        get_ema_multi_avg_fn(min(1 - 1 / (int(count) + 1), decay))(averages, values, count)

    return AveragedModel(unwrap(network), multi_avg_fn=rising, use_buffers=True)


def evaluated_network(network: nn.Module, average: AveragedModel | None) -> nn.Module:
    """The network that is validated and kept: the averaged one where there is one; never a distributed wrapper."""
    return unwrap(network) if average is None else average.module


class UpdateAverage:
    """Updates the average after each optimiser step, and makes all ranks validate the network that is saved.

    Belongs before the validation in the list of handlers.
    """

    def __init__(self, average: AveragedModel | None, network: nn.Module) -> None:
        self.average = average
        self.network = unwrap(network)

    def attach(self, engine: Any) -> None:
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._update)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._share)

    def _update(self, engine: Any) -> None:
        if self.average is not None and engine.steps_now():
            self.average.update_parameters(self.network)

    def _share(self, engine: Any) -> None:
        broadcast_buffers(evaluated_network(self.network, self.average))
