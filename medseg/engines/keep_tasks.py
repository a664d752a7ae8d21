"""Learn new tasks without moving anything that old ones depend on."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from ignite.engine import Events
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from medseg.engines.ranks import is_distributed, unwrap
from medseg.errors import ConfigError
from medseg.networks.layers.priors import PriorTable

__all__ = ["KeepOldTasks"]


class KeepOldTasks:
    """Trains the prior rows of ``new_tasks`` alone; every other number of a task-conditioned network stays as it is, to
    the last bit, so that predictions of old tasks do (asked for in the same company). With ``learn_also`` other tensors
    learn as well, and old predictions move with them.

    Optimiser steps move whole tensors (weight decay, trust ratios, moments), and averaging rounds: what is kept is
    written back after each step, into the network and its average.

    Args:
        network, average: what is trained.
        new_tasks: ids; ``None`` trains everything.
        learn_also: patterns of parameter names, such as ``head.*``.

    Raises:
        ConfigError: the network has no such task, or no tensor of such a name.
    """

    def __init__(
        self,
        network: nn.Module,
        average: AveragedModel | None = None,
        new_tasks: Sequence[int] | None = None,
        learn_also: Sequence[str] = (),
    ) -> None:
        self.network = unwrap(network)
        self.average = average
        self.rows = torch.tensor(list(new_tasks or ()), dtype=torch.long)
        count = getattr(self.network, "num_tasks", 0)
        if new_tasks is not None and not (new_tasks and all(0 <= task < count for task in new_tasks)):
            raise ConfigError(f"new_tasks is {list(new_tasks)}; expected ids below {count}, the network's tasks.")
        self.kept: dict[str, Tensor] = {}
        names = [*self.network.state_dict()]
        for pattern in learn_also:
            if not any(fnmatchcase(name, pattern) for name in names):
                raise ConfigError(f"learn_also: no parameter is named '{pattern}'; the last is '{names[-1]}'.")
        self.free = {name for name in names if any(fnmatchcase(name, pattern) for pattern in learn_also)}

    def attach(self, engine: Any) -> None:
        if len(self.rows):
            engine.add_event_handler(Events.STARTED, self._start)
            engine.add_event_handler(Events.ITERATION_COMPLETED, self._restore)

    def _start(self, engine: Any) -> None:
        """After a resumed state is loaded."""
        self.kept = {name: value.detach().clone() for name, value in self.network.state_dict().items()}
        tables = self._tables()
        for name, parameter in self.network.named_parameters():
            if not is_distributed():  # ranks wait for the gradients that they counted on at the start
                parameter.requires_grad_(name in tables or name in self.free)

    def _tables(self) -> set[str]:
        return {f"{name}.task" for name, part in self.network.named_modules() if isinstance(part, PriorTable)}

    @torch.no_grad()
    def _restore(self, engine: Any) -> None:
        tables = self._tables()
        for owner in (self.network, *(() if self.average is None else (self.average.module,))):
            for name, value in owner.state_dict().items():
                if name in self.free:
                    continue
                if name not in tables:
                    value.copy_(self.kept[name])
                    continue
                rows = self.rows.to(value.device)
                learned = value[rows].clone()
                value.copy_(self.kept[name])
                value[rows] = learned
