"""Data sets whose random numbers depend on (seed, epoch, index) alone.

MONAI's CacheDataset, PersistentDataset and SmartCacheDataset do the work. ``SeededDataset`` wraps one of them and
reseeds its random transforms before each item, so that batches do not depend on the number of workers and a run can
be resumed at any iteration.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import (
    CacheDataset,
    Dataset,
    PersistentDataset,
    SmartCacheDataset,
    pickle_hashing,
)
from monai.transforms import Compose
from monai.utils import TraceKeys

from medseg.data.content import content_hash
from medseg.data.progress import told
from medseg.data.randomness import derive_seed
from medseg.errors import ConfigError
from medseg.faults import unwrapped
from medseg.transforms.patches import RandForegroundCropd
from medseg.transforms.placed import Placed, placed

__all__ = ["SeededDataset", "make_dataset"]

logger = logging.getLogger("medseg")

_KINDS = ("cache", "device", "persistent", "smart", "plain")


class SeededDataset(torch.utils.data.Dataset[Any]):
    """A MONAI data set, passed through ``repeats`` times per epoch, with random transforms seeded per item.

    Args:
        dataset: a MONAI data set with a ``Compose``.
        seed: the run's seed.
        repeats: number of passes over the cases per epoch; small data sets get epochs of useful length.

    Attributes:
        epoch: a one-element tensor in shared memory, so that persistent workers see it change.
    """

    def __init__(self, dataset: Dataset, seed: int, repeats: int = 1) -> None:
        self.dataset = dataset
        self.seed = seed
        self.repeats = repeats
        self.epoch = torch.zeros(1, dtype=torch.int64).share_memory_()

    @property
    def data(self) -> Sequence[Any]:
        """The cases, as MONAI's bundle properties expect them."""
        return self.dataset.data

    @property
    def foreground(self) -> float | None:
        """Share of each batch's cases whose patch is around a label; ``None`` where patches are not drawn so."""
        return next((crop.share for crop in self._crops()), None)

    def _crops(self) -> list[RandForegroundCropd]:
        steps = getattr(self.dataset.transform, "transforms", ())
        crops = (step.step if isinstance(step, Placed) else step for step in steps)
        return [step for step in crops if isinstance(step, RandForegroundCropd)]

    def prepared(self) -> dict[str, Mapping[str, Any]]:
        """The prepared cases of a cache in memory by their ids."""
        assert isinstance(self.dataset, CacheDataset)
        return {item["case_id"]: item for item in self.dataset._cache}

    def __len__(self) -> int:
        return len(self.dataset) * self.repeats

    def __getitem__(self, index: int) -> Any:
        transform, around_label = self.dataset.transform, index < 0  # as ``EpochSampler`` says it
        index = ~index if around_label else index
        if isinstance(transform, Compose):
            transform.set_random_state(seed=derive_seed(self.seed, int(self.epoch.item()), index))
            for crop in self._crops():
                crop.foreground = around_label
        with unwrapped():  # here, because a worker process passes an error on as a string
            return self.dataset[index % len(self.dataset)]


# Where the metadata of a cached case come from: NumPy arrays and numbers, and MONAI's names of recorded operations.
_CACHED_TYPES: list[Any] = [
    TraceKeys,
    np.ndarray,
    np.dtype,
    np.zeros(1).__reduce__()[0],
    np.float64(0).__reduce__()[0],
    *(type(np.dtype(code)) for code in f"?{np.typecodes['AllInteger']}{np.typecodes['Float']}SU"),
]


class _MemoryDataset(CacheDataset):
    """MONAI's cache in memory, which tells how far it is."""

    def _fill_cache(self, indices: Sequence[int] | None = None) -> list[Any]:
        indices = range(self.cache_num) if indices is None else indices
        with ThreadPoolExecutor(self.num_workers) as pool:
            return list(told(pool.map(self._load_cache_item, indices), "prepared", len(indices)))


class _DiskDataset(PersistentDataset):
    """MONAI's cache on disk, keyed by what the files of a case hold and not by their paths alone: a corrected image is
    not taken from the cache. Its safe loading refuses the NumPy arrays in its own files (MONAI 1.6.1), takes them
    for damaged and makes every case again in every epoch; here they are allowed.
    """

    def _cachecheck(self, item_transformed: Any) -> Any:
        with torch.serialization.safe_globals(_CACHED_TYPES):
            return super()._cachecheck(item_transformed)  # type: ignore[no-untyped-call]  # MONAI's


def _hash_of_case(case: Mapping[str, Any]) -> bytes:
    """MONAI's hash of a case's dictionary, with the contents of its files."""
    values = [item for value in case.values() for item in (value if isinstance(value, (list, tuple)) else [value])]
    files = [value for value in values if isinstance(value, str) and Path(value).is_file()]
    return pickle_hashing({**case, "files": [content_hash(file) for file in files]})


def make_dataset(
    data: Sequence[dict[str, Any]],
    transform: Compose,
    *,
    kind: str = "cache",
    seed: int = 0,
    repeats: int = 1,
    cache_rate: float = 1.0,
    cache_dir: str | Path | None = None,
    num_workers: int = 2,
) -> SeededDataset:
    """Build a seeded data set.

    Args:
        data: cases from a datalist.
        transform: deterministic transforms, then random ones.
        kind: ``cache`` (memory), ``device`` (memory, and on the training's device, where
            ``medseg.engines.PrepareAugmented`` cuts the patches; memory alone where random changes are made before it),
            ``persistent`` (disk, keyed by files *and* transforms), ``smart`` (rolling part in memory; a run with it
            cannot be resumed exactly) or ``plain``.
        seed: the run's seed.
        repeats: number of passes over the cases per epoch.
        cache_rate: share of cases kept in memory.
        cache_dir: folder of the persistent cache.
        num_workers: threads that fill the cache.

    Raises:
        ConfigError: unknown kind, or ``persistent`` without ``cache_dir``.
    """
    if kind in ("cache", "device"):
        dataset: Dataset = _MemoryDataset(
            data,
            placed(transform) if kind == "device" and cache_rate == 1 else transform,
            cache_rate=cache_rate,
            num_workers=num_workers,
            progress=False,
            copy_cache=False,
        )
    elif kind == "persistent":
        if cache_dir is None:
            raise ConfigError("Data set kind 'persistent' needs a folder; set cache_dir.")
        dataset = _DiskDataset(
            data,
            transform,
            cache_dir=str(cache_dir),
            hash_func=_hash_of_case,
            hash_transform=pickle_hashing,
            track_meta=True,
        )
    elif kind == "smart":
        dataset = SmartCacheDataset(
            data, transform, cache_rate=cache_rate, num_init_workers=num_workers, progress=False
        )
    elif kind == "plain":
        dataset = Dataset(data, transform)
    else:
        raise ConfigError(f"Data set kind '{kind}' is unknown; use one of {', '.join(_KINDS)}.")
    return SeededDataset(dataset, seed, repeats)
