"""Load weights when an engine starts for the first time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ignite.engine import Events
from torch import nn

from medseg.engines.ranks import unwrap
from medseg.errors import ModelError
from medseg.weights import load_weights

__all__ = ["LoadWeights"]


class LoadWeights:
    """Strictly load a state dict at the first ``STARTED``: an engine may run often.

    Raises:
        ModelError: the file is missing, damaged or of another network; the sentence says how to get weights.
    """

    def __init__(self, network: nn.Module, path: str | Path) -> None:
        self.network = network
        self.path = Path(path)
        self.loaded = False

    def attach(self, engine: Any) -> None:
        engine.add_event_handler(Events.STARTED, self._load)

    def _load(self, engine: Any) -> None:
        if self.loaded:
            return
        if not self.path.is_file():
            raise ModelError(
                f"No weights at {self.path}; train this bundle first, or put a state dict of its network there."
            )
        load_weights(unwrap(self.network), self.path)
        self.loaded = True
