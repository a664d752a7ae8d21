"""What the processes of one training under ``torchrun`` must do together; without torchrun each call is a no-op."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import distributed, nn

from medseg.errors import MedsegError

__all__ = [
    "agree",
    "barrier",
    "broadcast_buffers",
    "cores",
    "gather",
    "is_distributed",
    "is_main",
    "on_main",
    "on_this_machine",
    "rank",
    "share",
    "unwrap",
    "world_size",
]

_Result = TypeVar("_Result")
_Item = TypeVar("_Item")


def is_distributed() -> bool:
    """Whether a process group exists."""
    return distributed.is_available() and distributed.is_initialized()


def world_size() -> int:
    """The number of processes."""
    return distributed.get_world_size() if is_distributed() else 1


def on_this_machine() -> int:
    """The number of processes that share this machine's memory and cores."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", world_size())) if is_distributed() else 1


def cores() -> int:
    """The number of CPU cores for this process: those that it may use, shared by the processes of this machine."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, usable // on_this_machine())


def rank() -> int:
    """The number of this process."""
    return distributed.get_rank() if is_distributed() else 0


def is_main() -> bool:
    """Whether this is the process that writes files (rank 0)."""
    return rank() == 0


def agree(number: int) -> int:
    """The largest ``number`` over all ranks: what one rank has seen (a signal, the time, a bad loss) holds for all.

    It travels between CPUs, by gloo: no GPU is waited for.
    """
    if not is_distributed():
        return number
    largest = torch.tensor(number)
    distributed.all_reduce(largest, distributed.ReduceOp.MAX)
    return int(largest)


def barrier() -> None:
    """Wait for all ranks."""
    if is_distributed():
        distributed.barrier()


def on_main(function: Callable[[], _Result]) -> _Result:
    """Call on rank 0 only; every rank gets its result, or raises its ``MedsegError``, so that none waits for ever."""
    if not is_distributed():
        return function()
    outcome: list[Any] = [None, None]
    if is_main():
        try:
            outcome[0] = function()
        except MedsegError as error:
            outcome[1] = error
    distributed.broadcast_object_list(outcome)
    if outcome[1] is not None:
        raise outcome[1]
    result: _Result = outcome[0]
    return result


def share(items: Sequence[_Item]) -> list[_Item]:
    """This rank's part of a list: every world-size-th item."""
    return list(items[distributed.get_rank() :: distributed.get_world_size()] if is_distributed() else items)


def gather(table: Mapping[str, _Item]) -> dict[str, _Item]:
    """The tables of all ranks as one, on every rank."""
    parts: list[Any] = [table]
    if is_distributed():
        parts = [None] * distributed.get_world_size()
        distributed.all_gather_object(parts, dict(table))
    return {key: value for part in parts for key, value in part.items()}


def broadcast_buffers(network: nn.Module) -> None:
    """Give every rank rank 0's buffers (running statistics of batch norm), which are the ones that are saved."""
    if is_distributed():
        for buffer in network.buffers():
            distributed.broadcast(buffer, 0)


def unwrap(network: nn.Module) -> nn.Module:
    """The network inside a ``DistributedDataParallel`` wrapper.

    Validation and files use it: the wrapper's forward synchronises buffers, and ranks with different numbers of
    patches would wait for each other.
    """
    return network.module if isinstance(network, nn.parallel.DistributedDataParallel) else network
