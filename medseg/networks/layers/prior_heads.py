"""Heads that read the posterior priors of all scales (Hermes, arXiv 2306.02416, section 3.4)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from medseg.networks.layers.prior_attention import mlp

__all__ = ["ModalityHead", "TaskHead"]


class TaskHead(nn.Module):
    """One prototype per task from its posterior priors; logits are the prototypes' products with the features.

    ``forward(priors (B, T, prior_channels), features (B, C, D, H, W)) -> logits (B, T, D, H, W)``.
    """

    def __init__(self, prior_channels: int, feature_channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(prior_channels)
        self.mlp = nn.Sequential(
            mlp(prior_channels, prior_channels, feature_channels),
            mlp(feature_channels, feature_channels, feature_channels),
        )
        for module in self.mlp.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def forward(self, priors: Tensor, features: Tensor) -> Tensor:
        prototypes = self.mlp(self.norm(priors))
        y: Tensor = torch.bmm(prototypes, features.flatten(2)).unflatten(2, features.shape[2:])
        return y


class ModalityHead(nn.Module):
    """Which modality the posterior modality priors ``(B, 10, prior_channels)`` are of: logits ``(B, modalities)``."""

    def __init__(self, prior_channels: int, modalities: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(prior_channels)
        self.mlp = mlp(prior_channels, prior_channels, modalities)

    def forward(self, priors: Tensor) -> Tensor:
        y: Tensor = self.mlp(self.norm(priors).mean(1))
        return y
