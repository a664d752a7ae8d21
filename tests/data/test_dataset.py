"""Data sets and loaders: random numbers by (seed, epoch, index), caches, sampling."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.data import PersistentDataset
from monai.transforms import Compose, Lambdad, MapTransform, RandScaleIntensityd, ScaleIntensityd

from medseg.data import EpochSampler, make_dataset, make_loader
from medseg.errors import ConfigError, DataError

READ: list[str] = []


class Readd(MapTransform):
    """A slow reader's stand-in: notes each reading; the value is the case's number times ``factor``."""

    def __init__(self, keys: Any, factor: float = 1.0) -> None:
        super().__init__(keys)
        self.factor = factor

    def __call__(self, data: Any) -> dict[Any, Any]:
        READ.append(data["case_id"])
        return dict(data) | {"image": torch.full((1, 2, 2), self.factor * int(data["image"]))}


def cases(count: int) -> list[dict[str, Any]]:
    return [{"image": str(i), "case_id": f"c{i}"} for i in range(count)]


def scaled(factor: float = 1.0) -> Compose:
    return Compose([Readd("image", factor), RandScaleIntensityd("image", factors=0.5, prob=1.0)])


def values(dataset: Any, epoch: int, **options: Any) -> list[float]:
    dataset.epoch.fill_(epoch)
    loader = make_loader(dataset, shuffle=True, **options)
    loader.sampler.set_epoch(epoch)
    return [float(v) for batch in loader for v in batch["image"].mean((1, 2, 3))]


@pytest.mark.parametrize("kind", ["cache", "persistent", "plain"])
def test_kinds_give_equal_batches(kind: str, tmp_path: Path) -> None:
    def dataset(kind: str) -> Any:
        return make_dataset(cases(5), scaled(), kind=kind, seed=3, repeats=2, cache_dir=tmp_path)

    assert len(dataset(kind)) == 10
    first = values(dataset(kind), 1)
    assert first == values(dataset("plain"), 1)
    assert len(set(first)) == 9  # case 0 is zero twice: passes of one epoch differ, too
    assert sorted(first) != sorted(values(dataset(kind), 2))


def test_workers_change_nothing_and_see_the_epoch() -> None:
    dataset = make_dataset(cases(6), scaled(), kind="cache", seed=1)
    alone = [values(dataset, epoch) for epoch in (1, 2)]
    loader = make_loader(dataset, shuffle=True, num_workers=2, persistent_workers=True)
    for epoch in (1, 2):
        dataset.epoch.fill_(epoch)
        loader.sampler.set_epoch(epoch)
        assert [float(batch["image"].mean()) for batch in loader] == alone[epoch - 1]
    loader._iterator = None


@pytest.mark.parametrize("used", [False, True])
def test_memory_is_pinned_for_a_gpu_in_use(used: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: used)
    assert make_loader(make_dataset(cases(2), scaled(), kind="plain")).pin_memory is used


def test_loader_leaves_torchs_generator_alone() -> None:
    dataset = make_dataset(cases(4), scaled(), kind="plain")
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    values(dataset, 1)
    assert torch.equal(torch.rand(1), expected)


def test_sampler_skips_once() -> None:
    sampler = EpochSampler(list(range(8)), num_replicas=1, rank=0, shuffle=True, seed=2)
    whole = list(sampler)
    sampler.skip = 3
    assert list(sampler) == whole[3:]
    assert list(sampler) == whole
    sampler.set_epoch(1)
    assert list(sampler) != whole and sorted(sampler) == list(range(8))


def test_ranks_share_without_repeating() -> None:
    """Validation: uneven shards, every case once; training: even shards."""
    shards = [
        list(EpochSampler(list(range(7)), even_divisible=False, num_replicas=3, rank=rank, shuffle=False))
        for rank in range(3)
    ]
    assert sorted(index for shard in shards for index in shard) == list(range(7))
    even = [list(EpochSampler(list(range(7)), num_replicas=3, rank=rank, shuffle=True, seed=1)) for rank in range(3)]
    assert {len(shard) for shard in even} == {3}
    assert {index for shard in even for index in shard} == set(range(7))


def test_fewer_cases_than_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = make_dataset(cases(2), scaled(), kind="plain")
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 3)
    with pytest.raises(DataError, match="2 training cases cannot be shared by 3 processes"):
        make_loader(dataset, shuffle=True)


def test_small_sets_keep_their_only_batch() -> None:
    dataset = make_dataset(cases(3), scaled(), kind="plain")
    assert len(make_loader(dataset, batch_size=2, shuffle=True)) == 1
    assert len(make_loader(dataset, batch_size=4, shuffle=True)) == 1
    assert len(make_loader(dataset, batch_size=2)) == 2


def test_no_cases_no_batches() -> None:
    assert len(make_loader(make_dataset([], scaled(), kind="cache"))) == 0


def test_persistent_cache_is_reused_and_follows_the_transforms(tmp_path: Path) -> None:
    def epoch(factor: float) -> list[float]:
        READ.clear()
        return values(make_dataset(cases(3), scaled(factor), kind="persistent", cache_dir=tmp_path), 1)

    first = epoch(1.0)
    assert len(READ) == 3
    assert epoch(1.0) == first and READ == []  # a second start of the program reads the cache
    assert epoch(10.0) == pytest.approx([10 * v for v in first], rel=1e-5) and len(READ) == 3


def test_persistent_key_ignores_random_transforms(tmp_path: Path) -> None:
    """Other augmentation, or a set that was used before, must not cost the preprocessing again."""
    used = make_dataset(cases(3), scaled(), kind="persistent", cache_dir=tmp_path)
    values(used, 1)
    READ.clear()
    other = Compose([Readd("image"), RandScaleIntensityd("image", factors=0.1, prob=0.5), Lambdad("image", torch.abs)])
    values(make_dataset(cases(3), other, kind="persistent", cache_dir=tmp_path), 1)
    assert READ == []
    assert isinstance(used.dataset, PersistentDataset)


def test_memory_cache_reads_once() -> None:
    READ.clear()
    dataset = make_dataset(cases(4), scaled(), kind="cache")
    values(dataset, 1)
    values(dataset, 2)
    assert sorted(READ) == ["c0", "c1", "c2", "c3"]


def test_rolling_cache_rolls_and_ends(tmp_path: Path) -> None:
    """Half of the cases at a time; the trainer's handler brings in the others and ends the thread."""
    from ignite.engine import Events
    from monai.engines import Workflow

    from medseg.engines import RandomStreams

    transform = Compose([Readd("image"), ScaleIntensityd("image", minv=None, maxv=None, factor=0.0)])
    dataset = make_dataset(cases(6), transform, kind="smart", cache_rate=0.5)
    loader = make_loader(dataset, shuffle=True, num_workers=0, persistent_workers=True)
    seen: list[str] = []

    class Engine(Workflow):
        def _iteration(self, engine: Any, batchdata: Any) -> dict:
            seen.extend(batchdata["case_id"])
            return {}

    engine = Engine("cpu", 12, loader, handlers=[RandomStreams(0)], decollate=False)
    engine.add_event_handler(Events.EPOCH_STARTED, lambda _: time.sleep(0.01))
    engine.run()
    assert len(seen) == 12 * 3
    assert set(seen) == {f"c{i}" for i in range(6)}
    assert not dataset.dataset.is_started()


def test_bad_kinds(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'fast' is unknown"):
        make_dataset(cases(2), scaled(), kind="fast")
    with pytest.raises(ConfigError, match="cache_dir"):
        make_dataset(cases(2), scaled(), kind="persistent")
