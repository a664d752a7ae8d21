"""Loaders of seeded data sets; their worker processes end when the loader is closed, at the latest with the process.

torch ends the workers when an iterator's memory is collected. After an error a traceback keeps it, and at the end of
the process torch leaves them to ``multiprocessing``, which asks each once and then waits for ever. So whoever iterates
over a loader for the last time calls ``close_loader``, and what is still open when the process ends is closed then.
"""

from __future__ import annotations

import atexit
import signal
import weakref
from collections.abc import Mapping
from typing import Any

import torch
from monai.data import DataLoader, SmartCacheDataset, worker_init_fn

from medseg.data.dataset import SeededDataset
from medseg.data.randomness import derive_seed
from medseg.data.sampling import EpochSampler, WeightedSampler, case_weights, turns
from medseg.errors import DataError

__all__ = ["close_loader", "make_loader"]

_loaders: weakref.WeakSet[_Loader] = weakref.WeakSet()


class _Loader(DataLoader):
    """MONAI's loader, which knows its iterators that have workers."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.open: weakref.WeakSet[Any] = weakref.WeakSet()
        _loaders.add(self)

    def _get_iterator(self) -> Any:
        iterator = super()._get_iterator()
        if self.num_workers > 0:
            self.open.add(iterator)
        return iterator


def close_loader(loader: Any) -> None:
    """End the worker processes of a loader; an object that is none has no workers to end."""
    kept = [getattr(loader, "_iterator", None)]  # that of torch's persistent workers
    if kept != [None]:
        loader._iterator = None
    for iterator in {*getattr(loader, "open", ()), *kept} - {None}:
        iterator._shutdown_workers()  # returns at once where they have ended


@atexit.register
def _close_all() -> None:
    for loader in list(_loaders):
        close_loader(loader)


def make_loader(
    dataset: SeededDataset,
    *,
    batch_size: int = 1,
    shuffle: bool = False,
    num_workers: int = 0,
    persistent_workers: bool = False,
    weights: Mapping[str, float] | None = None,
    iterations: int | None = None,
    per_dataset: int | None = None,
) -> DataLoader:
    """A loader with its own generator and an ``EpochSampler``; training (``shuffle``) drops the incomplete last batch.

    Validation (no shuffle) shards over ranks without repeating cases. With ``weights``, data set name -> weight of each
    of its cases, a ``WeightedSampler`` draws ``iterations`` batches per epoch and rank, by default as many as one pass
    over the cases has. Without, ``per_dataset`` takes the first so many cases of each data set only.
    A data set with ``RandForegroundCropd`` gets its share in every batch.

    Raises:
        ConfigError: a data set without a weight.
        DataError: fewer cases than processes under torchrun.
    """
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    world = torch.distributed.get_world_size() if distributed else 1
    if 0 < len(dataset) < world:
        raise DataError(
            f"{len(dataset)} {'training' if shuffle else 'validation'} cases cannot be shared by {world} processes; "
            f"start torchrun with --nproc_per_node={len(dataset)}, or add cases."
        )
    place: Any = {
        "num_replicas": world,
        "rank": torch.distributed.get_rank() if distributed else 0,
        "seed": derive_seed(dataset.seed) % 2**31,
    }
    if weights is not None:
        samples = batch_size * (iterations or max(1, len(dataset) // (batch_size * world)))
        sampler: EpochSampler = WeightedSampler(dataset, case_weights(dataset.data, weights), samples, **place)
    else:
        indices: Any = range(len(dataset))
        if per_dataset is not None:
            indices = [index for index, turn in enumerate(turns(dataset.data)) if turn < per_dataset]
        sampler = EpochSampler(indices, even_divisible=shuffle or not indices, shuffle=shuffle, **place)
    sampler.batch_size, sampler.foreground = batch_size, dataset.foreground
    generator = torch.Generator()
    generator.manual_seed(derive_seed(dataset.seed, 1))
    return _Loader(
        dataset,
        batch_size=batch_size,
        sampler=sampler,
        drop_last=shuffle and len(sampler) >= batch_size,
        num_workers=num_workers,
        # Workers that live on would keep their copy of a rolling cache.
        persistent_workers=persistent_workers
        and num_workers > 0
        and not isinstance(dataset.dataset, SmartCacheDataset),
        generator=generator,
        pin_memory=torch.cuda.is_initialized(),  # copies to a GPU then need no waiting; a CPU's training opens none
        worker_init_fn=_start_worker,
    )


def _start_worker(number: int) -> None:
    """MONAI's, and handlers of its own in place of the parent's: deaf to the first SIGTERM and to every SIGINT.
    Schedulers and torchrun signal whole groups of processes, and the training process needs its workers until the step
    is done and the state saved.
    """
    worker_init_fn(number)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.signal(signal.SIGTERM, signal.SIG_DFL))
