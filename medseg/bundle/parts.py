"""What bundle configs call by name: device, distribution under torchrun, cases of a datalist, start and end."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from torch import nn

from medseg.data import read_datalist, seed_everything
from medseg.engines.ranks import barrier, is_distributed
from medseg.errors import ConfigError, ResourceError
from medseg.networks.checkpointing import checkpointed
from medseg.networks.kernels.channels_last import lay_out
from medseg.networks.kernels.float32 import full_float32
from medseg.weights import transfer_weights

__all__ = [
    "cases",
    "device",
    "finalize",
    "initialize",
    "inside",
    "labelled",
    "network",
    "section",
]

logger = logging.getLogger("medseg")
_WAIT = timedelta(days=1)  # of one process for another


def device(name: str | None = None) -> torch.device:
    """The named device, or CUDA where there is one (under torchrun the process's own), else the CPU.

    A GPU becomes the process's current one: free memory and pinned memory are then its.

    Raises:
        ConfigError: there are no such devices.
        ResourceError: this machine has no such device, or it cannot be used.
    """
    local_rank = int(os.environ.get("LOCAL_RANK", 0))
    if name is None:
        name = f"cuda:{local_rank}" if torch.cuda.is_available() else "cpu"
    try:
        found = torch.device(f"cuda:{local_rank}" if name == "cuda" else name)
    except (RuntimeError, TypeError) as error:
        raise ConfigError(f"Device {name!r} is unknown; use cpu, cuda or cuda:N.") from error
    if found.type not in ("cpu", "cuda", "mps", "xpu"):
        raise ConfigError(f"Device '{name}' cannot be used for training; use cpu, cuda or cuda:N.")
    try:
        torch.zeros(1, device=found)
        if found.type == "cuda":
            torch.cuda.set_device(found)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        build = "" if torch.version.cuda else " (CPU build)"
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise ResourceError(
            f"Device '{name}' asked for, but torch {torch.__version__}{build} {_count(found.type)} ({reason}). "
            "Use --device cpu."
        ) from error
    return found


def _count(kind: str) -> str:
    number = torch.cuda.device_count() if kind == "cuda" else 0
    return f"sees {number or 'none'}" if number != 1 else "sees 1, cuda:0"


def device_component(name: str) -> dict[str, str]:
    """What a config says for the named device.

    Raises:
        ConfigError, ResourceError: as ``device``.
    """
    device(name)
    return {"_target_": "medseg.workflows.device", "name": name}


def inside(root: str | Path, name: str | Sequence[str]) -> str:
    """The path of something in a folder.

    Args:
        root: the folder.
        name: relative path in it, or its parts.

    Raises:
        ConfigError: it leads out of the folder.
    """
    parts = [name] if isinstance(name, str) else [str(part) for part in name]
    path = PurePosixPath(*parts)
    if path.is_absolute() or ".." in path.parts or "\\" in str(path):
        raise ConfigError(f"{path} leads out of {root}; expected a relative path without '..'. Rename it.")
    return str(Path(root, path))


def inside_of(root: str, name: str) -> dict[str, str]:
    """What a config says for ``inside`` of the folder under the id ``root``."""
    return {"_target_": "medseg.workflows.inside", "root": f"@{root}", "name": name}


def network(
    definition: nn.Module,
    device: torch.device | str,
    initial: Mapping[str, Any] | None = None,
    *,
    distributed: bool = False,
    checkpointing: bool = False,
) -> nn.Module:
    """The network of a run on its device.

    Args:
        definition: the network as it was created.
        device: where it computes.
        initial: weights that a training starts from: ``path`` of the file (``None`` from scratch), ``reinitialize`` and
            ``partial`` as of ``medseg.weights.transfer_weights``.
        distributed: a training: under torchrun the network is wrapped for data-parallel training.
        checkpointing: a training in less memory (``medseg.networks.checkpointed``).

    Raises:
        ConfigError: the network has no block to compute again.
    """
    how = dict(initial or {})
    path = how.pop("path", None)
    if path is not None:
        for line in transfer_weights(definition, path, **how).lines():
            logger.info("start from %s: %s", path, line)
    if checkpointing:
        checkpointed(definition)
    return _distribute(definition, device) if distributed else definition.to(device)


def _distribute(network: nn.Module, device: torch.device | str) -> nn.Module:
    """The network on its device, wrapped for data-parallel training under torchrun."""
    start_distributed()
    network = lay_out(network.to(device))
    if torch.distributed.is_initialized():
        if torch.device(device).type == "cuda":
            return nn.parallel.DistributedDataParallel(network, device_ids=[torch.device(device).index])
        # The wrapper keeps its group alive, whose threads ``finalize`` could not end: it has one of its own.
        own = torch.distributed.new_group(timeout=_WAIT)
        return nn.parallel.DistributedDataParallel(network, process_group=own)
    return network


def start_distributed() -> None:
    """Join the process group under torchrun; a no-op otherwise and when called again."""
    if int(os.environ.get("WORLD_SIZE", 1)) < 2 or torch.distributed.is_initialized():
        return
    # A tensor's device decides, so that objects, and trainings on a CPU, need no GPU. The first process may read and
    # check cases for long while the others wait; torchrun itself ends them with one that fails.
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    torch.distributed.init_process_group(backend, timeout=_WAIT)
    import ignite.distributed as idist

    idist.sync()  # ignite's first collective would otherwise hang where only rank 0 makes it


def cases(json_list: str, dataset_dir: str, fold: int | None, section: str) -> list[dict[str, Any]]:
    """Training or validation cases after the split by fold (``Datalist.split``)."""
    return [case.to_dict() for case in read_datalist(json_list, dataset_dir).cases(section, fold)]


def labelled(json_list: str, dataset_dir: str, dataset: str) -> list[dict[str, Any]]:
    """All labelled cases of a list, as an external test set; the label table's ``dataset`` explains its values."""
    sections = read_datalist(json_list, dataset_dir).sections.values()
    return [{**case.to_dict(), "dataset": dataset} for cases in sections for case in cases if case.label]


def section(json_list: str, dataset_dir: str, name: str) -> list[dict[str, Any]]:
    """The cases of a section as it stands, images only."""
    return [case.to_dict(label=False) for case in read_datalist(json_list, dataset_dir).sections.get(name, [])]


def initialize(seed: int) -> None:
    """Before a run: seed everything, choose deterministic kernels in full float32, join the process group."""
    start_distributed()
    seed_everything(seed)
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
    full_float32()


def finalize() -> None:
    """After a run: leave the process group, all ranks together.

    The group's end waits for gloo's threads: one that still lets go of the last gathered tensors while Python shuts
    down aborts the process.
    """
    if is_distributed():
        barrier()
        torch.distributed.destroy_process_group()
