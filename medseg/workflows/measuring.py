"""What a training costs on this machine: seconds of its steps and of its validation cases, by doing some of them."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from statistics import fmean, median
from typing import Any

import torch
from monai.data import list_data_collate

from medseg.data.sampling import turns
from medseg.engines.ranks import unwrap

__all__ = ["case_seconds", "cases_of", "step_seconds"]


def step_seconds(trainer: Any, most: float, warm: int = 2, least: float = 6.0) -> float:
    """Median seconds of an iteration with its batch, over at least 5 of them and ``least`` seconds; over fewer where
    those would take longer than ``most``. The ``warm`` ones before, in which much is done for the first time, do not
    count. The steps are real ones.
    """
    trainer.network = unwrap(trainer.network)  # one process measures, without the others
    trainer.state.iteration = 1
    times: list[float] = []

    def enough() -> bool:
        measured = times[warm:]
        return (len(measured) >= 5 and sum(measured) >= least) or (len(measured) > 0 and sum(measured) > most)

    while not enough():
        before = time.perf_counter()
        for batch in trainer.data_loader:
            trainer._iteration(trainer, batch)
            _synchronize(trainer)
            times.append(time.perf_counter() - before)
            if enough():
                break
            before = time.perf_counter()
    return median(times[warm:])


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
    """The cases that an evaluator goes through, those of all ranks."""
    return evaluator.data_loader.dataset.data if evaluator.data_loader is not None else []


def _seconds(evaluator: Any, index: int) -> float:
    before = time.perf_counter()
    evaluator.state.batch = list_data_collate([evaluator.data_loader.dataset[index]])
    evaluator._iteration(evaluator, evaluator.state.batch)
    _synchronize(evaluator)
    return time.perf_counter() - before


def _synchronize(engine: Any) -> None:
    if engine.state.device.type == "cuda":
        torch.cuda.synchronize(engine.state.device)
