"""Keep a part of a network as it is for the first epochs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ignite.engine import Events
from monai.engines import IterationEvents
from torch import nn

from medseg.engines.ranks import is_distributed, unwrap
from medseg.errors import ConfigError

__all__ = ["FreezePart", "frozen_epochs"]


def frozen_epochs(initial: Mapping[str, Any], epochs: int) -> int:
    """``epochs`` of a training that starts from weights (``initial["path"]``), 0 of one from scratch."""
    return epochs if initial["path"] else 0


class FreezePart:
    """No gradients for ``part`` during the first ``epochs`` epochs; a run that is continued knows where it stands.

    Its batch norms keep averaging their statistics, as in QTSeg's trainings (arXiv 2412.17241).

    Args:
        network: whose part it is.
        part: its path, such as ``encoder``.
        epochs: number of frozen epochs; 0 freezes nothing.

    Raises:
        ConfigError: the network has no such part.
    """

    def __init__(self, network: nn.Module, part: str = "encoder", epochs: int = 0) -> None:
        try:
            self.part = unwrap(network).get_submodule(part)
        except AttributeError as error:
            names = [name for name, _ in unwrap(network).named_children()]
            raise ConfigError(f"The network has no part '{part}'; name one of {', '.join(names)}.") from error
        self.epochs = epochs

    def attach(self, engine: Any) -> None:
        engine.add_event_handler(Events.EPOCH_STARTED, self._set)
        engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self._drop)

    def _set(self, engine: Any) -> None:
        if not is_distributed():  # ranks wait for the gradients that they counted on at the start
            self.part.requires_grad_(engine.state.epoch > self.epochs)

    def _drop(self, engine: Any) -> None:
        if engine.state.epoch <= self.epochs:
            for parameter in self.part.parameters():
                parameter.grad = None
