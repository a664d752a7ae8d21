"""Exponential moving average of the weights, by torch's ``AveragedModel``."""

from __future__ import annotations

from ignite.engine import Engine, Events
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

__all__ = ["UpdateAverage", "evaluated_network", "make_average"]


def make_average(network: nn.Module, decay: float | None) -> AveragedModel | None:
    """An averaged copy of the network, buffers included, or ``None`` where ``decay`` is ``None``."""
    if decay is None:
        return None
    return AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)


def evaluated_network(network: nn.Module, average: AveragedModel | None) -> nn.Module:
    """The network that is validated and kept: the averaged one where there is one."""
    return network if average is None else average.module


class UpdateAverage:
    """Updates the average after each optimiser step."""

    def __init__(self, average: AveragedModel | None, network: nn.Module) -> None:
        self.average = average
        self.network = network

    def attach(self, engine: Engine) -> None:
        if self.average is not None:
            engine.add_event_handler(Events.ITERATION_COMPLETED, self._update)

    def _update(self, engine: Engine) -> None:
        if self.average is not None and engine.steps_now():  # type: ignore[attr-defined]
            self.average.update_parameters(self.network)
