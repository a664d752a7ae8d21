"""Sampling of cases for several data sets together: by weight, with epochs of an exact length."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from monai.data import DistributedSampler
from torch.utils.data import Dataset

from medseg.data.randomness import derive_seed
from medseg.errors import ConfigError, nearest
from medseg.transforms.patches import around_label

__all__ = ["EpochSampler", "WeightedSampler", "case_weights", "replay_weights", "turns"]


class EpochSampler(DistributedSampler):
    """MONAI's distributed sampler, also for one process, that can skip what an interrupted epoch has already seen.

    Its ``dataset`` is a sequence of indices, those that it gives.

    Attributes:
        skip: number of this rank's samples to skip on the next pass only.
        batch_size, foreground: a share, if any, of each batch's samples, its last ones, is to be around a label: their
            indices are given as ``~index``, which ``SeededDataset`` reads. The batches of all processes are one.
    """

    skip = 0
    batch_size = 1
    foreground: float | None = None

    def __iter__(self) -> Iterator[int]:
        skip, self.skip = self.skip, 0
        indices = self.indices()
        if self.foreground is not None:
            indices = [~index if self._around(n, self.foreground) else index for n, index in enumerate(indices)]
        return iter(indices[skip:])

    def _around(self, number: int, share: float) -> bool:
        """Whether a sample of this rank is to be around a label."""
        batch, place = divmod(number, self.batch_size)
        whole, place = self.batch_size * self.num_replicas, place + self.rank * self.batch_size
        if number_around := around_label(whole, share):
            return place >= whole - number_around
        before = batch * whole + place  # a batch too small for one: every so many samples
        return int((before + 1) * share) > int(before * share)

    def indices(self) -> list[int]:
        """This rank's samples of the epoch."""
        return [self.dataset[number] for number in super().__iter__()]


class WeightedSampler(EpochSampler):
    """Draws cases with replacement, each with a probability proportional to its weight.

    What is drawn is a function of seed and epoch; the ranks share one sequence, so that two processes with half the
    batch see what one process sees. The k-th draw of a case in an epoch has the index ``case + k * len(weights)``,
    which ``SeededDataset`` reads as the same case with random numbers of its own.

    Args:
        dataset: the data set, ``SeededDataset`` in a training.
        weights: one positive number per case.
        num_samples: number of samples of each rank in an epoch.
        num_replicas, rank: size of the process group, and number of this process in it.
        seed: random seed of the draws.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        weights: Sequence[float],
        num_samples: int,
        *,
        num_replicas: int = 1,
        rank: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(dataset, even_divisible=True, num_replicas=num_replicas, rank=rank, shuffle=True, seed=seed)
        self.weights = torch.as_tensor(weights, dtype=torch.float64)
        self.num_samples = num_samples
        self.total_size = num_samples * num_replicas

    def indices(self) -> list[int]:
        generator = torch.Generator()
        generator.manual_seed(derive_seed(self.seed, self.epoch))
        cases = torch.multinomial(self.weights, self.total_size, replacement=True, generator=generator).tolist()
        seen: Counter[int] = Counter()
        drawn = []
        for case in cases:
            drawn.append(case + seen[case] * len(self.weights))
            seen[case] += 1
        return drawn[self.rank :: self.num_replicas]


def case_weights(cases: Sequence[Mapping[str, Any]], weights: Mapping[str, float]) -> list[float]:
    """The weight of each case: that of its ``dataset``, not divided by the data set's size.

    Raises:
        ConfigError: a data set without a weight, or a weight that is not positive.
    """
    found = []
    for case in cases:
        name = str(case.get("dataset", ""))
        if name not in weights:
            raise ConfigError(f"Data set '{name}' has no sampling weight.{nearest(name, weights)} Add it to weights.")
        if not weights[name] > 0:
            raise ConfigError(f"The sampling weight of data set '{name}' is {weights[name]}; expected more than 0.")
        found.append(float(weights[name]))
    return found


def replay_weights(
    cases: Sequence[Mapping[str, Any]], weights: Mapping[str, float], old: Sequence[str], share: float
) -> dict[str, float]:
    """``weights`` such that a ``share`` of the cases that are drawn is of the ``old`` data sets.

    Raises:
        ConfigError: no cases of old data sets, or no others.
    """
    sums = {True: 0.0, False: 0.0}
    for case, weight in zip(cases, case_weights(cases, weights), strict=True):
        sums[case.get("dataset", "") in old] += weight
    if not all(sums.values()):
        there, missing = ("new", "old") if sums[False] else ("old", "new")
        raise ConfigError(f"All training cases are of {there} data sets: without {missing} ones there is no replay.")
    factors = {True: share / sums[True], False: (1 - share) / sums[False]}
    return {name: weight * factors[name in old] for name, weight in weights.items()}


def turns(cases: Sequence[Mapping[str, Any]]) -> list[int]:
    """For each case: how many cases of its ``dataset`` come before it."""
    seen: Counter[str] = Counter()
    found = []
    for case in cases:
        name = str(case.get("dataset", ""))
        found.append(seen[name])
        seen[name] += 1
    return found
