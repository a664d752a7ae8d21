"""Sliding windows conditioned on tasks: one pass per data set, with all its tasks at once (Hermes, arXiv 2306.02416).

The features attend to every task that is asked for in a forward pass, so what a task's map looks like depends on its
company. A pass therefore always holds the whole token set of one data set, as in training; asking for fewer tasks
leaves channels out and changes nothing in the others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from monai.inferers import Inferer
from torch import Tensor

from medseg.labels import LabelSpace

__all__ = ["TaskPasses"]


class TaskPasses(Inferer):
    """Logits ``(B, K, *spatial)`` of K tasks, in the order of ``LabelSpace.asked_labels``.

    A task comes from the pass of the image's own data set where that annotates it; else from the passes of all data
    sets that do, as the logit of their mean probability.

    Args:
        window: how a pass visits the image: ``SlidingWindow``, ``HalfStepWindow`` for the published protocol.
        label_space: gives the data sets and their tasks.
        tasks: names; ``None`` as in ``LabelSpace.asked_labels``.
        null_tasks: null tasks that end each pass; networks without ``mask_null`` were trained with 1, and want 1.

    Raises:
        DataError: a task that no data set annotates, or images of several data sets in one batch.
    """

    def __init__(
        self, window: Inferer, label_space: LabelSpace, tasks: Sequence[str] | None = None, null_tasks: int = 0
    ) -> None:
        super().__init__()
        self.window = window
        self.label_space = label_space
        self.tasks = tasks
        self.null_tasks = null_tasks
        label_space.asked_labels(tasks)  # a misspelt task is told before images are read

    def __call__(
        self,
        inputs: Tensor,
        network: Callable[..., Any],
        datasets: Sequence[str] = ("",),
        modality: Tensor | None = None,
        **kwargs: Any,
    ) -> Tensor:
        dataset = datasets[0]
        if any(other != dataset for other in datasets):
            parts = [
                self(inputs[i : i + 1], network, [name], modality if modality is None else modality[i : i + 1])
                for i, name in enumerate(datasets)
            ]
            return torch.cat(parts)
        asked = self.label_space.asked_labels(self.tasks, dataset)
        total: dict[int, Tensor] = {}
        count: dict[int, int] = {}
        passes = self.passes(asked, dataset)
        for own, wanted in passes.items():
            table = self.label_space.dataset_tasks(own)
            ids = torch.tensor([[*table, *[-1] * self.null_tasks]])
            logits = self.window(inputs, network, tasks=ids, modality=modality, **kwargs)
            channel = {index: number for number, index in enumerate(table.values())}
            for index in wanted:
                # A single pass keeps its logits as they are.
                found = logits[:, channel[index]]
                many = sum(index in others for others in passes.values()) > 1
                found = found.sigmoid() if many else found.clone()
                total[index] = total[index] + found if index in total else found
                count[index] = count.get(index, 0) + 1
        maps = [total[i] if count[i] == 1 else torch.logit(total[i] / count[i], eps=1e-7) for i in asked]
        return torch.stack(maps, 1)

    def passes(self, asked: Sequence[int], dataset: str = "") -> dict[str, list[int]]:
        """Data set -> the labels, among those asked for, that its pass is run for."""
        known = {name: set(self.label_space.dataset_tasks(name).values()) for name in self.label_space.fragments}
        own = known.get(dataset, set())
        found = {
            name: [i for i in asked if i in labels and (name == dataset or i not in own)]
            for name, labels in known.items()
        }
        return {name: wanted for name, wanted in found.items() if wanted}
