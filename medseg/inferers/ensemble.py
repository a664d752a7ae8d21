"""Ensembles of networks that differ in architecture, patch, spacing and normalisation.

A *member* maps an image on its source grid to probabilities on that grid: own preprocessing, own inferer, own
inverse. All members then share one contract, and an ensemble of them is one network more for an evaluator. Members of
one preprocessing are prepared once, and averaged on the grid of the network: the inverse is linear, so that one for
their mean equals one for each. Members of one architecture share one network, into which each loads its weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from monai.data import MetaTensor, decollate_batch
from monai.inferers import Inferer
from monai.transforms import Compose
from torch import nn

from medseg.errors import ConfigError
from medseg.inferers.forecast import require_memory
from medseg.inferers.saved import SavedMember, unprepared
from medseg.labels import LabelSpace
from medseg.transforms import LogitsToLabelsd, ToSourceGridd
from medseg.transforms.slabs import Slabs

__all__ = ["Ensemble", "Member"]


class Member(nn.Module):
    """One trained network with its preprocessing and inferer.

    Args:
        network: the network, weights loaded.
        preprocessing: the transforms that follow ``LoadImaged``.
        inferer: for example ``SlidingWindow``.
        label_space: softmax or sigmoid.
        grid: equal for members whose preprocessing is equal; ``None`` shares with nobody.
        load: puts this member's weights into the network, which others may share; ``None``: they are in it.
        temperature: divisor of the logits (``medseg calibrate``).

    ``forward(image (1, C, *source) MetaTensor) -> (1, K, *source)`` probabilities, float32, on the CPU. Outside a
    crop all are 0.
    """

    def __init__(
        self,
        network: nn.Module,
        preprocessing: Compose,
        inferer: Inferer,
        label_space: LabelSpace,
        grid: str | None = None,
        load: Callable[[], None] | None = None,
        temperature: float = 1.0,
    ) -> None:
        super().__init__()
        self.network = network
        self.preprocessing = preprocessing
        self.inferer = inferer
        self.label_space = label_space
        self.grid = grid
        self.load = load
        self.temperature = temperature
        self.to_source = ToSourceGridd("pred", preprocessing, label_space)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        prepared = self.prepare(image)
        return self.to_source.probabilities(self.slabs(prepared), prepared)[None]

    def prepare(self, image: torch.Tensor) -> MetaTensor:
        """``(1, C, *source)`` on any device -> ``(C, *model grid)`` on the CPU, with the record of how."""
        prepared: MetaTensor = self.preprocessing({"image": unprepared(image)})["image"]
        return prepared

    @torch.no_grad()
    def slabs(self, prepared: MetaTensor) -> Slabs:
        """Probabilities of an image ``(C, *model grid)``; each piece is made with this member's weights."""
        device = next(self.network.parameters()).device
        self.network.eval()
        inputs = prepared.as_tensor()[None].to(device)
        with self._own_weights():
            if hasattr(self.inferer, "slabs"):
                slabs: Slabs = self.inferer.slabs(inputs, self.network)
            else:
                slabs = Slabs.of(self.inferer(inputs, self.network)[0].float())
        return replace(slabs, pieces=self._pieces(slabs), head=None, probable=True, made=None)

    @torch.no_grad()
    def _pieces(self, slabs: Slabs) -> Iterator[torch.Tensor]:
        while True:
            with self._own_weights():
                piece = next(slabs.pieces, None)
            if piece is None:
                return
            logits = slabs.logits(piece)
            logits = logits if self.temperature == 1 else logits / self.temperature
            yield self.to_source.activated(logits).cpu()

    @contextmanager
    def _own_weights(self) -> Iterator[None]:
        """The network, where it runs in the meantime, does so with this member's weights."""

        def load(network: nn.Module, _: Any) -> None:
            if self.load is not None and getattr(network, "weights_of", None) != id(self):
                self.load()
                network.weights_of = id(self)  # type: ignore[assignment]

        hook = self.network.register_forward_pre_hook(load)
        try:
            yield
        finally:
            hook.remove()


class Ensemble(nn.Module):
    """Members joined into one module with the same contract; memory does not grow with their number, only with that of
    their architectures.

    Args:
        members: two or more, of one label space.
        method: ``mean`` (weighted mean of probabilities) or ``vote`` (weighted majority; the lower class wins a tie).
        weights: one per member, normalised to sum 1; default equal.

    ``forward(image (1, C, *source)) -> (1, K, *source)``: mean probabilities, or shares of votes.

    Raises:
        ConfigError: no member, different label spaces, or weights that do not fit.
    """

    def __init__(
        self, members: Sequence[Member | SavedMember], method: str = "mean", weights: Sequence[float] | None = None
    ) -> None:
        super().__init__()
        if not members:
            raise ConfigError("An ensemble needs at least one member.")
        if method not in ("mean", "vote"):
            raise ConfigError(f"Ensemble method '{method}' is unknown; use 'mean' or 'vote'.")
        if len({member.label_space.channels for member in members}) > 1:
            channels = " and ".join(str(member.label_space.channels) for member in members)
            raise ConfigError(f"The members have different labels ({channels}); ensemble runs of one label space.")
        weights = [1.0] * len(members) if weights is None else list(weights)
        if len(weights) != len(members) or not all(0 <= w < math.inf for w in weights) or sum(weights) <= 0:
            raise ConfigError(
                f"{len(weights)} weights {weights} for {len(members)} members; expected one each, some positive."
            )
        self.members = nn.ModuleList(members)
        self.method = method
        self.weights = [weight / sum(weights) for weight in weights]
        self.label_space = members[0].label_space

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return _weighted_sum(share for group in self._groups() for share in self._shares(group, image))

    def _groups(self) -> list[list[tuple[float, Member]]]:
        """Weights and members, those of one grid together."""
        groups: dict[Any, list[tuple[float, Any]]] = {}
        for index, (weight, member) in enumerate(zip(self.weights, self.members, strict=True)):
            groups.setdefault(index if member.grid is None else member.grid, []).append((weight, member))
        return list(groups.values())

    @torch.no_grad()
    def labels(self, image: torch.Tensor) -> MetaTensor:
        """Label indices ``(1, *source)``; without an array of probabilities for a mean on one grid."""
        groups = self._groups()
        first = groups[0][0][1]
        if self.method == "mean" and len(groups) == 1:
            prepared = first.prepare(image)
            slabs = self._mean(groups[0], prepared)
            require_memory(slabs, prepared)
            return first.to_source.labels(slabs, prepared)
        (source,) = decollate_batch(image) if isinstance(image, MetaTensor) else [MetaTensor(image[0])]
        probabilities = MetaTensor(self(image)[0], meta=source.meta)
        labels: MetaTensor = LogitsToLabelsd("pred", self.label_space, 0.5)({"pred": probabilities})["pred"]
        return labels

    def _shares(self, group: list[tuple[float, Member]], image: torch.Tensor) -> Iterator[tuple[float, torch.Tensor]]:
        """What a group adds on the source grid, with its weight."""
        first = group[0][1]
        prepared = first.prepare(image)
        if self.method == "mean":
            yield 1.0, first.to_source.probabilities(self._mean(group, prepared), prepared)[None]
            return
        for weight, member in group:
            yield weight, self._votes(first.to_source.probabilities(member.slabs(prepared), prepared)[None])

    def _mean(self, group: list[tuple[float, Member]], prepared: MetaTensor) -> Slabs:
        """The weighted sum of the members of one grid, whose pieces come in step."""
        parts = [member.slabs(prepared) for _, member in group]
        weights = [weight for weight, _ in group]
        steps = zip(*(part.pieces for part in parts), strict=True)
        pieces = (_weighted_sum(zip(weights, step, strict=True)) for step in steps)
        return replace(parts[0], pieces=pieces, held=sum(part.held for part in parts))

    def _votes(self, probabilities: torch.Tensor) -> torch.Tensor:
        if self.label_space.mode == "sigmoid":
            return (probabilities > 0.5).float()
        winner = probabilities.argmax(1, keepdim=True)
        return torch.zeros_like(probabilities).scatter_(1, winner, 1.0)


def _weighted_sum(terms: Iterable[tuple[float, torch.Tensor]]) -> torch.Tensor:
    """In place of the first term, so that no more than two are in memory."""
    iterator = iter(terms)
    weight, total = next(iterator)
    total = total.mul_(weight)
    for weight, term in iterator:
        total.add_(term, alpha=weight)
    return total
