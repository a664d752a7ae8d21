"""A weighted sum of losses, for combinations that MONAI has no class for."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from medseg.errors import ConfigError

__all__ = ["WeightedSum"]


class WeightedSum(nn.Module):
    """``sum_i weights[i] * losses[i](input, target)``.

    Args:
        losses: each takes logits and targets; say ``softmax=True`` in every one that needs it.
        weights: one per loss; ``None`` for ones.

    Raises:
        ConfigError: no loss, or another number of weights.
    """

    def __init__(self, losses: Sequence[nn.Module], weights: Sequence[float] | None = None) -> None:
        super().__init__()
        self.weights = [1.0] * len(losses) if weights is None else list(weights)
        if not losses or len(self.weights) != len(losses):
            raise ConfigError(
                f"{len(losses)} losses have {len(self.weights)} weights; give at least one, as many of each."
            )
        self.losses = nn.ModuleList(losses)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        terms = [weight * loss(input, target) for weight, loss in zip(self.weights, self.losses, strict=True)]
        return torch.stack(terms).sum(0)
