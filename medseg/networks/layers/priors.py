"""Context priors (Hermes, arXiv 2306.02416, section 3): learned tokens per task and per modality, and their choice.

A table has one row per task and a last one for the null task, which pads batches of images with different numbers of
tasks; and ten rows per modality and a last ten for an unknown one.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from medseg.errors import ConfigError
from medseg.networks.kernels.queued_copy import queued_copy
from medseg.networks.recording import recording

__all__ = ["MODALITY_TOKENS", "Chosen", "PriorTable", "choose"]

MODALITY_TOKENS = 10  # per modality, as published


class Chosen:
    """The rows that every table of a network selects in one forward pass.

    Attributes:
        tasks: ``(B, T)`` rows of the task tables.
        modality: ``(B,)`` rows of the modality tables.
        keys: ``(B, 1, 1, T + 10)``, which tokens attention may read; ``None`` for all.
    """

    def __init__(self, tasks: Tensor, modality: Tensor, keys: Tensor | None) -> None:
        self.tasks = tasks
        self.modality = modality
        self.keys = keys


def choose(
    x: Tensor,
    tasks: Tensor | None,
    modality: Tensor | None,
    num_tasks: int,
    num_modalities: int,
    *,
    mask_null: bool,
    modality_tokens: int,
) -> Chosen:
    """Rows for the images ``x: (B, ...)`` from ids ``tasks: (B or 1, T)`` and ``modality: (B or 1,)``.

    -1 is the null task and the unknown modality. ``None`` means all tasks, and an unknown modality. Null tokens are
    hidden from attention with ``mask_null``; without it, all tasks are followed by one of them, as published.

    Ids belong on the CPU, on whatever device the network is: there they can be checked without waiting for a GPU.

    Raises:
        ConfigError: an id on the CPU that the tables do not have, or a shape that does not fit the batch.
    """
    batch, device = x.shape[0], x.device
    keys: Tensor | None = None
    if tasks is None:
        rows = torch.arange(num_tasks if mask_null else num_tasks + 1, device=device).expand(batch, -1)
    else:
        _check("tasks", tasks, 2, x, num_tasks)
        rows = queued_copy(torch.where(tasks < 0, num_tasks, tasks), device).expand(batch, -1)
        if mask_null:
            others = torch.ones(batch, modality_tokens, dtype=torch.bool, device=device)
            keys = torch.cat((rows != num_tasks, others), 1)[:, None, None]
    if modality is None:
        return Chosen(rows, torch.full([batch], num_modalities, device=device), keys)
    _check("modality", modality, 1, x, num_modalities)
    rows_of_modality = queued_copy(torch.where(modality < 0, num_modalities, modality), device)
    return Chosen(rows, rows_of_modality.expand(batch), keys)


def _check(name: str, ids: Tensor, dims: int, x: Tensor, count: int) -> None:
    if torch.jit.is_scripting():
        return
    if ids.dim() != dims or ids.shape[0] not in (1, x.shape[0]):
        expected = "(batch, tasks)" if dims == 2 else "(batch,)"
        raise ConfigError(
            f"{name} has shape {tuple(ids.shape)} for {x.shape[0]} images; expected {expected}, with a batch of 1 or "
            "one row per image."
        )
    if recording() or ids.device.type != "cpu" or ids.numel() == 0:
        return
    if int(ids.max()) >= count:
        raise ConfigError(
            f"{name} holds id {int(ids.max())}, but the network has {count}, from 0; build it with more, or use the "
            "label table it was made for."
        )


class PriorTable(nn.Module):
    """The tokens of one scale: ``(num_tasks + 1, channels)`` and ``(num_modalities + 1, 10, channels)``.

    ``forward(chosen) -> (B, T + 10, channels)``, tasks first.
    """

    def __init__(self, num_tasks: int, num_modalities: int, channels: int) -> None:
        super().__init__()
        self.task = nn.Parameter(torch.empty(num_tasks + 1, channels))
        self.modality = nn.Parameter(torch.empty(num_modalities + 1, MODALITY_TOKENS, channels))
        nn.init.xavier_uniform_(self.task)
        nn.init.xavier_uniform_(self.modality)

    @torch.no_grad()
    def add_tasks(self, count: int, like: int | None = None) -> None:
        """``count`` rows more, before the null task's: freshly drawn, or copies of the row ``like``; old rows stay."""
        anew = torch.empty(len(self.task) + count, self.task.shape[1], device=self.task.device, dtype=self.task.dtype)
        nn.init.xavier_uniform_(anew)
        anew[: len(self.task) - 1], anew[-1] = self.task[:-1], self.task[-1]
        if like is not None:
            anew[len(self.task) - 1 : -1] = self.task[like]
        self.task = nn.Parameter(anew)

    def forward(self, chosen: Chosen) -> Tensor:
        return torch.cat((self.task[chosen.tasks], self.modality[chosen.modality]), 1)
