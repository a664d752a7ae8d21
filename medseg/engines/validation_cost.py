"""What a validation costs on this machine, by doing some of its cases."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import torch
from monai.data import list_data_collate

from medseg.data.sampling import EpochSampler, turns
from medseg.engines.ranks import world_size

__all__ = ["case_seconds", "cases_of", "validation_seconds"]


def validation_seconds(evaluator: Any, most: float) -> float:
    """About what a validation takes that all processes share, found out in ``most`` seconds; 0 if that cannot be told
    before.
    """
    loader = evaluator.data_loader
    if not cases_of(evaluator):
        return 0.0
    sampler = getattr(loader, "sampler", None)
    costs = case_seconds(evaluator, most)
    chosen: Any = sampler.dataset if isinstance(sampler, EpochSampler) else range(len(costs))
    return math.fsum(costs[index] for index in chosen) / world_size()


def case_seconds(evaluator: Any, most: float) -> list[float]:
    """Seconds of each validation case with all that is done to it, in the data set's order.

    Measured from small cases to large ones for about ``most`` seconds; the others by their number of voxels, and those
    that there was no time to read by the mean of their data set.
    """
    cases = cases_of(evaluator)
    if not cases:
        return []
    began = time.perf_counter()
    voxels: dict[int, int] = {}
    for _, index in sorted((turn, index) for index, turn in enumerate(turns(cases))):
        if voxels and time.perf_counter() - began > most / 2:
            break
        voxels[index] = math.prod(evaluator.data_loader.dataset[index]["image"].shape[1:])
    smallest, *others = sorted(voxels, key=voxels.__getitem__)
    _seconds(evaluator, smallest)  # much is done for the first time
    measured = {smallest: _seconds(evaluator, smallest)}
    rate, began = measured[smallest] / voxels[smallest], time.perf_counter()
    for index in others:
        if time.perf_counter() - began + rate * voxels[index] > most / 2:
            break
        measured[index] = _seconds(evaluator, index)
        rate = sum(measured.values()) / sum(voxels[i] for i in measured)
    read: dict[str, list[int]] = {}
    for index, number in voxels.items():
        read.setdefault(cases[index].get("dataset", ""), []).append(number)
    usual = [*voxels.values()]
    sizes = [voxels.get(i, fmean(read.get(case.get("dataset", ""), usual))) for i, case in enumerate(cases)]
    return [measured.get(i, rate * size) for i, size in enumerate(sizes)]


def cases_of(evaluator: Any) -> Sequence[Mapping[str, Any]]:
    """The cases of an evaluator's data set, those of all ranks; none where it does not tell them."""
    dataset = getattr(evaluator.data_loader, "dataset", None)
    return getattr(dataset, "data", None) or []


def _seconds(evaluator: Any, index: int) -> float:
    before = time.perf_counter()
    evaluator.state.batch = list_data_collate([evaluator.data_loader.dataset[index]])
    evaluator._iteration(evaluator, evaluator.state.batch)
    _synchronize(evaluator)
    return time.perf_counter() - before


def _synchronize(engine: Any) -> None:
    if engine.state.device.type == "cuda":
        torch.cuda.synchronize(engine.state.device)
