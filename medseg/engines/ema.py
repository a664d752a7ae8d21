"""Exponential moving average of the weights, by torch's ``AveragedModel``."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import torch
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
    return _Average(unwrap(network), decay, ramp=ramp)


class _Average(AveragedModel):
    """Torch's copies its count to the device for each update, and a GPU waits for that."""

    def __init__(self, network: nn.Module, decay: float, *, ramp: bool) -> None:
        super().__init__(network, use_buffers=True)
        self.decay = decay
        self.ramp = ramp

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        count = int(self.n_averaged)  # on the CPU
        decay = min(1 - 1 / (count + 1), self.decay) if self.ramp else self.decay
        update = get_ema_multi_avg_fn(decay if count else 0.0)
        pairs: dict[torch.dtype, list[tuple[torch.Tensor, torch.Tensor]]] = {}
        for pair in zip(_tensors(self.module), _tensors(model), strict=True):
            pairs.setdefault(pair[0].dtype, []).append(pair)
        for group in pairs.values():
            update(*map(list, zip(*group, strict=True)), None)
        self.n_averaged += 1


def _tensors(network: nn.Module) -> Iterator[torch.Tensor]:
    """Parameters and buffers."""
    return itertools.chain(network.parameters(), network.buffers())


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
