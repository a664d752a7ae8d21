"""WeightedSampler: probabilities, exact epochs, ranks, resume, random numbers of repeated cases."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from monai.transforms import Compose, RandomizableTransform

from medseg.data import WeightedSampler, make_dataset, make_loader
from medseg.data.sampling import case_weights
from medseg.errors import ConfigError

CASES = list(range(5))


class Noise(RandomizableTransform):
    def __call__(self, data: dict[str, Any]) -> dict[str, Any]:
        return data | {"noise": self.R.random()}


def sampler(weights: list[float], count: int, **options: int) -> WeightedSampler:
    return WeightedSampler(torch.utils.data.TensorDataset(torch.zeros(5)), weights, count, **options)


def test_probabilities_are_the_weights() -> None:
    drawn = Counter(index % 5 for index in sampler([1, 1, 2, 4, 0.5], 17_000))
    shares = [drawn[case] / 17_000 for case in CASES]
    assert shares == pytest.approx([w / 8.5 for w in (1, 1, 2, 4, 0.5)], abs=0.02)


def test_every_draw_has_an_index_of_its_own() -> None:
    drawn = list(sampler([1.0] * 5, 50))
    assert len(set(drawn)) == 50
    counts = Counter(index % 5 for index in drawn)
    assert all({case + 5 * k for k in range(counts[case])} <= set(drawn) for case in CASES)


def test_ranks_share_one_sequence() -> None:
    whole = list(sampler([1, 2, 3, 4, 5], 12, seed=3))
    parts = [list(sampler([1, 2, 3, 4, 5], 6, seed=3, num_replicas=2, rank=rank)) for rank in range(2)]
    assert len(parts[0]) == len(parts[1]) == 6
    assert [index for pair in zip(*parts, strict=True) for index in pair] == whole


def test_epochs_and_seeds_differ_and_repeat() -> None:
    one = sampler([1.0] * 5, 20, seed=1)
    first = list(one)
    one.set_epoch(1)
    second = list(one)
    assert first != second and len(second) == len(one) == 20
    one.set_epoch(0)
    one.skip = 7
    assert list(one) == first[7:] and list(one) == first
    assert list(sampler([1.0] * 5, 20, seed=2)) != first


def test_loader() -> None:
    cases = [{"dataset": "a" if i < 3 else "b", "value": i} for i in range(5)]
    dataset = make_dataset(cases, Compose([Noise()]), kind="plain", seed=4)
    loader = make_loader(dataset, batch_size=2, shuffle=True, weights={"a": 1.0, "b": 1e-9}, iterations=9)
    batches = list(loader)
    assert len(batches) == len(loader) == 9
    assert all(batch["dataset"] == ["a", "a"] for batch in batches)
    noises = torch.cat([batch["noise"] for batch in batches]).tolist()
    assert len(set(noises)) == 18  # a case that is drawn again gets other random numbers
    assert len(make_loader(dataset, batch_size=2, shuffle=True, weights={"a": 1, "b": 1})) == 2


@pytest.mark.parametrize(
    ("weights", "words"),
    [({"lit": 1.0}, "Data set 'lits' has no sampling weight. Did you mean 'lit'"), ({"lits": 0.0}, "is 0.0; expected")],
)
def test_bad_weights(weights: dict[str, float], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        case_weights([{"dataset": "lits"}], weights)
