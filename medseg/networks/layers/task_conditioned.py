"""What all task-conditioned networks share: task and modality ids in, one logit map per task out."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medseg.errors import ConfigError
from medseg.networks.kernels.channels_last import channels_last
from medseg.networks.layers.prior_heads import ModalityHead
from medseg.networks.layers.priors import MODALITY_TOKENS, Chosen, PriorTable, choose
from medseg.networks.layers.unet_blocks import Triple

__all__ = ["FixedTasks", "TaskConditioned", "planned_scales", "triples"]


class TaskConditioned(nn.Module):
    """A network whose output channels are the tasks that it is asked for.

    ``forward(x (B, C, *spatial), tasks=None, modality=None, return_modality=False)``: ``tasks (B or 1, T)`` holds ids
    from 0 to ``out_channels - 1``, -1 for the null task that pads a batch; ``modality (B or 1,)`` ids from 0 to
    ``num_modalities - 1``, -1 where it is not known. Ids on a GPU are not checked. The result has a channel per given
    task, logits ``(B, T, *spatial)``; those of null tasks mean nothing. ``tasks=None`` asks for all tasks, so that
    ``network(x)`` is a network like any other. Training with deep supervision returns a list, all heads at full size.
    With ``return_modality`` the result is the pair (logits, modality logits ``(B, num_modalities + 1)``).

    Planes ``(B, C, H, W)`` are volumes of one slice.

    Args:
        spatial_dims: 2 or 3.
        out_channels: number of tasks.
        num_modalities: known modalities; 0 for data of a single kind, then without a modality head.
        mask_null: hide null tasks from the others, so that results do not depend on padding. The published weights
            were trained without, and need ``False``.
        prior_channels: channels of the posterior priors of all scales together.

    Raises:
        ConfigError: dimensions, ids or shapes that do not fit.
    """

    def __init__(
        self, spatial_dims: int, out_channels: int, num_modalities: int, mask_null: bool, prior_channels: int
    ) -> None:
        super().__init__()
        if spatial_dims not in (2, 3):
            raise ConfigError(f"spatial_dims is {spatial_dims}, expected 2 or 3.")
        self.spatial_dims = spatial_dims
        self.num_tasks = out_channels
        self.num_modalities = num_modalities
        self.mask_null = mask_null
        self.modality_tokens = MODALITY_TOKENS
        self.modality_head = ModalityHead(prior_channels, num_modalities + 1) if num_modalities else None

    @abstractmethod
    def padded_size(self, size: list[int]) -> list[int]:
        """The size (D, H, W) that an image of ``size`` is padded to."""

    @abstractmethod
    def predict(self, x: Tensor, chosen: Chosen) -> tuple[list[Tensor], Tensor]:
        """Heads ``(B, T, D, H, W)`` at the size of ``x``, finest first (the others in training only), and the
        posterior priors ``(B, T + 10, prior_channels)``.
        """

    def add_tasks(self, count: int, like: int | None = None) -> range:
        """Room for ``count`` more tasks, freshly drawn or like the task ``like``; returns their ids. Optimisers made
        before hold the old tables.

        Raises:
            ConfigError: fewer than one, or no task ``like``.
        """
        if count < 1 or (like is not None and not 0 <= like < self.num_tasks):
            raise ConfigError(
                f"add_tasks({count}, like={like}): expected 1 or more, like a task below {self.num_tasks}."
            )
        for part in self.modules():
            if isinstance(part, PriorTable):
                part.add_tasks(count, like)
        self.num_tasks += count
        return range(self.num_tasks - count, self.num_tasks)

    def forward(
        self, x: Tensor, tasks: Tensor | None = None, modality: Tensor | None = None, return_modality: bool = False
    ) -> Tensor | list[Tensor] | tuple[Tensor | list[Tensor], Tensor]:
        if return_modality and self.modality_head is None:
            raise ConfigError("The network has num_modalities 0 and tells no modality; build it with at least 1.")
        volume = x if self.spatial_dims == 3 else x[:, :, None]
        size = [int(n) for n in volume.shape[2:]]
        padded = self.padded_size(size)
        if padded != size:
            d, h, w = [new - old for old, new in zip(size, padded)]
            volume = F.pad(volume, [0, w, 0, h, 0, d])
        chosen = choose(
            volume,
            tasks,
            modality,
            self.num_tasks,
            self.num_modalities,
            mask_null=self.mask_null,
            modality_tokens=self.modality_tokens,
        )
        heads, priors = self.predict(channels_last(volume), chosen)
        count = self.num_tasks if tasks is None else tasks.shape[1]
        d, h, w = size
        heads = [head[:, :count, :d, :h, :w] for head in heads]
        if self.spatial_dims == 2:
            heads = [head[:, :, 0] for head in heads]
        logits: Tensor | list[Tensor] = heads
        if len(heads) == 1:
            logits = heads[0]
        if self.modality_head is not None and return_modality:
            return logits, self.modality_head(priors[:, -self.modality_tokens :])
        return logits


class FixedTasks(nn.Module):
    """A task-conditioned network that is always asked the same: ``x -> logits (B, len(tasks), *spatial)``.

    For inference on one data set, and for export. Networks without ``mask_null`` get one null task more, dropped from
    the result, as the published evaluation does.
    """

    tasks: Tensor
    modality: Tensor

    def __init__(self, network: TaskConditioned, tasks: Sequence[int], modality: int = -1) -> None:
        super().__init__()
        self.network = network
        self.count = len(tasks)
        ids = [*tasks] if network.mask_null else [*tasks, -1]
        self.register_buffer("tasks", torch.tensor([ids]), persistent=False)
        self.register_buffer("modality", torch.tensor([modality]), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        logits = self.network(x, self.tasks, self.modality)
        finest = logits if isinstance(logits, Tensor) else logits[0]
        return finest[:, : self.count]


def triples(name: str, values: Sequence[Sequence[int] | int], count: int, spatial_dims: int) -> list[Triple]:
    """One (D, H, W) per entry from whole numbers, pairs (2D: D is 1) or triples.

    Raises:
        ConfigError: another number of entries or of axes.
    """
    flat = (1,) * (3 - spatial_dims)
    result = []
    for value in values:
        axes = (*flat, *((value,) * spatial_dims if isinstance(value, int) else value))
        if len(axes) != 3 or min(axes) < 1:
            raise ConfigError(f"{name} is {values}, expected positive numbers, one or {spatial_dims} per level.")
        result.append(axes)
    if len(result) != count:
        raise ConfigError(f"{name} has {len(result)} entries, expected {count}, one per level.")
    return result


def planned_scales(roi_size: Sequence[int], spacing: Sequence[float] | None, levels: int = 4) -> list[list[int]]:
    """Factors per level: an axis is halved while its spacing is within twice the finest and it keeps four voxels."""
    size = list(roi_size)
    mm = list(spacing) if spacing is not None else [1.0] * len(size)
    scales = []
    for _ in range(levels):
        scale = [2 if m <= 2 * min(mm) and n >= 8 else 1 for n, m in zip(size, mm, strict=True)]
        size = [math.ceil(n / s) for n, s in zip(size, scale, strict=True)]
        mm = [m * s for m, s in zip(mm, scale, strict=True)]
        scales.append(scale)
    return scales
