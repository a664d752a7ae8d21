"""Learning without forgetting: beside its own tasks, each image is asked for old ones, as an earlier network answers
(spirit of Li and Hoiem 2016, arXiv 1606.09282, for task-conditioned networks).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any

import torch
from monai.inferers import Inferer
from torch import Tensor, nn

from medseg.engines.ranks import unwrap
from medseg.errors import ConfigError
from medseg.labels import LabelSpace

__all__ = ["DistillingInferer"]


class DistillingInferer(Inferer):
    """``(logits, heads of old tasks, the earlier network's logits of them)``, and the modality's where it is asked for.

    Each step asks for all tasks of one of the old data sets, drawn at random: features attend to the tasks that are
    asked for together, and these are the companies that old tasks are asked for in.

    Args:
        network: as it is now; a copy of it answers for the old tasks. It is asked for no modality of theirs.
        label_space: gives the data sets' tasks.
        datasets: the old ones.
        null_tasks: null tasks that end each row, see ``medseg.engines.PrepareTasks``.

    Raises:
        ConfigError: no old data set.
    """

    def __init__(
        self, network: nn.Module, label_space: LabelSpace, datasets: Sequence[str], null_tasks: int = 0
    ) -> None:
        super().__init__()
        if not datasets:
            raise ConfigError(
                "Distillation needs a data set whose tasks the earlier network knows; name it in the list."
            )
        self.teacher = deepcopy(unwrap(network)).eval().requires_grad_(False)
        self.tables = [[*label_space.dataset_tasks(name)] for name in datasets]
        self.null_tasks = null_tasks

    def __call__(
        self, inputs: Tensor, network: Callable[..., Any], *args: Any, modality: Tensor | None = None, **kwargs: Any
    ) -> tuple[Any, ...]:
        own = network(inputs, *args, modality=modality, **kwargs)
        logits, *kind = own if isinstance(own, tuple) else (own,)
        table = self.tables[int(torch.randint(len(self.tables), ()))]
        tasks = torch.tensor([[*table, *[-1] * self.null_tasks]])
        with torch.no_grad():
            answers = self.teacher(inputs, tasks=tasks, modality=modality)[:, : len(table)]
        old = network(inputs, tasks=tasks, modality=modality)
        heads = old if isinstance(old, list) else [old]
        return logits, [head[:, : len(table)] for head in heads], answers, *kind
