"""What processes do together, in a group of one, which goes through the same calls."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
import torch
from torch import distributed, nn

from medseg.bundle.parts import start_distributed
from medseg.engines import evaluated_network, make_average
from medseg.engines.ranks import agree, barrier, broadcast_buffers, cores, is_main, on_main, unwrap
from medseg.errors import DataError


@pytest.fixture
def group() -> Iterator[None]:
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def check_calls() -> None:
    assert is_main()
    assert agree(3) == 3
    barrier()
    assert on_main(lambda: {"a": 1}) == {"a": 1}

    def fail() -> None:
        raise DataError("nothing to train")

    with pytest.raises(DataError, match="nothing to train"):
        on_main(fail)


def test_alone() -> None:
    check_calls()


def test_tensors_on_gpus_go_by_nccl_and_the_rest_by_gloo(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(distributed, "init_process_group", lambda backend, timeout: asked.append((backend, timeout)))
    monkeypatch.setattr("ignite.distributed.sync", lambda: None)
    for gpu in (False, True):
        monkeypatch.setattr(torch.cuda, "is_available", lambda gpu=gpu: gpu)
        start_distributed()
    assert [backend for backend, _ in asked] == ["gloo", "cpu:gloo,cuda:nccl"]
    assert min(timeout for _, timeout in asked) >= timedelta(days=1)  # the first process reads and checks for long


def test_cores_are_those_of_the_job_and_shared(group: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(6)), raising=False)
    assert cores() == 6
    for processes, own in ((2, 3), (8, 1)):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
        assert cores() == own


def test_in_a_group(group: None) -> None:
    check_calls()
    network = nn.BatchNorm3d(2)
    broadcast_buffers(network)
    wrapped = nn.parallel.DistributedDataParallel(network)
    assert unwrap(wrapped) is network


def test_wrapper_is_neither_averaged_nor_validated(group: None) -> None:
    """A validation through the wrapper would wait for ranks that have fewer windows; a run keeps its file layout."""
    network = nn.Sequential(nn.Conv3d(1, 2, 1), nn.BatchNorm3d(2))
    wrapped = nn.parallel.DistributedDataParallel(network)
    assert evaluated_network(wrapped, None) is network
    average = make_average(wrapped, 0.9)
    assert average is not None
    assert list(evaluated_network(wrapped, average).state_dict()) == list(network.state_dict())
    assert torch.equal(average.module[0].weight, network[0].weight)
