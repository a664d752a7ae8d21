"""Ensembles of networks that differ in architecture, window, spacing and normalisation.

A *member* maps an image on its source grid to probabilities on that grid: own preprocessing, own inferer, own
inverse. All members then share one contract, so that they can be averaged here, or handed to MONAI's
``EnsembleEvaluator`` with ``MeanEnsembled``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from monai.data import MetaTensor, decollate_batch
from monai.inferers import Inferer
from monai.transforms import Compose, Invertd
from torch import nn

from medseg.errors import ConfigError
from medseg.labels import LabelSpace

__all__ = ["Ensemble", "Member"]


class Member(nn.Module):
    """One trained network with its preprocessing and inferer.

    Args:
        network: the network, weights loaded.
        preprocessing: the transforms that follow ``LoadImaged``.
        inferer: for example ``SlidingWindow``.
        label_space: softmax or sigmoid.

    ``forward(image (1, C, *source) MetaTensor) -> (1, K, *source)`` probabilities, float32, on the CPU. Outside a
    crop all are 0.
    """

    def __init__(self, network: nn.Module, preprocessing: Compose, inferer: Inferer, label_space: LabelSpace) -> None:
        super().__init__()
        self.network = network
        self.preprocessing = preprocessing
        self.inferer = inferer
        self.label_space = label_space
        self.inverse = Invertd("pred", transform=preprocessing, orig_keys="image", nearest_interp=False)

    @torch.no_grad()
    def forward(self, image: torch.Tensor) -> torch.Tensor:
        source = decollate_batch(image)[0] if isinstance(image, MetaTensor) else MetaTensor(image[0])
        source.applied_operations = []
        prepared = self.preprocessing({"image": source})["image"]
        device = next(self.network.parameters()).device
        self.network.eval()
        logits = self.inferer(prepared[None].as_tensor().to(device), self.network)[0].float().cpu()
        probabilities = logits.softmax(0) if self.label_space.mode == "softmax" else logits.sigmoid()
        pred = MetaTensor(probabilities, meta=prepared.meta)
        return self.inverse({"pred": pred, "image": prepared})["pred"].as_tensor()[None]


class Ensemble(nn.Module):
    """Members joined into one module with the same contract; memory does not grow with their number.

    Args:
        members: two or more, of one label space.
        method: ``mean`` (weighted mean of probabilities) or ``vote`` (weighted majority; the lower class wins a tie).
        weights: one per member, normalised to sum 1; default equal.

    ``forward(image (1, C, *source)) -> (1, K, *source)``: mean probabilities, or shares of votes.

    Raises:
        ConfigError: no member, different label spaces, or weights that do not fit.
    """

    def __init__(self, members: Sequence[Member], method: str = "mean", weights: Sequence[float] | None = None) -> None:
        super().__init__()
        if not members:
            raise ConfigError("An ensemble needs at least one member.")
        if method not in ("mean", "vote"):
            raise ConfigError(f"Ensemble method '{method}' is unknown; use 'mean' or 'vote'.")
        if len({member.label_space.channels for member in members}) > 1:
            channels = " and ".join(str(member.label_space.channels) for member in members)
            raise ConfigError(f"The members have different labels ({channels}); ensemble runs of one label space.")
        weights = [1.0] * len(members) if weights is None else list(weights)
        if len(weights) != len(members) or min(weights) < 0 or sum(weights) <= 0:
            raise ConfigError(
                f"{len(weights)} weights {weights} for {len(members)} members; give one positive number each."
            )
        self.members = nn.ModuleList(members)
        self.method = method
        self.weights = [weight / sum(weights) for weight in weights]
        self.label_space = members[0].label_space

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        total: Any = 0.0
        for weight, member in zip(self.weights, self.members, strict=True):
            share = member(image) if self.method == "mean" else self._votes(member(image))
            total = share.mul_(weight) if isinstance(total, float) else total.add_(share, alpha=weight)
        return total

    def _votes(self, probabilities: torch.Tensor) -> torch.Tensor:
        if self.label_space.mode == "sigmoid":
            return (probabilities > 0.5).float()
        winner = probabilities.argmax(1, keepdim=True)
        return torch.zeros_like(probabilities).scatter_(1, winner, 1.0)
