"""Time, peak memory, parameters and multiply-adds of networks, side by side under one set of conditions.

Time: all networks take turns in one process, in alternating order; a ratio is the median over the turns of a network's
time over the baseline's in the same turn, so that a machine that slows down slows both. Memory: one fresh process per
network and step. Arithmetic: counted, not measured (``medseg.networks.cost``).
"""

from __future__ import annotations

import gc
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from monai.losses import DiceCELoss
from torch import nn

from medseg.bundle import accepts_roi, planned_arguments
from medseg.bundle.config_check import check_roi
from medseg.bundle.parts import device as choose_device
from medseg.data import Plan
from medseg.engines import SegmentationTrainer
from medseg.engines.memory import MEMORY_CONVENTION, PeakMemory
from medseg.errors import ConfigError, MedsegError, ResourceError, nearest
from medseg.metrics import median_interval
from medseg.networks import catalog, create_network
from medseg.networks.cost import CONVENTION, count_parameters, multiply_adds_of
from medseg.storage import write_json

__all__ = ["benchmark"]

_WARM_UP = 2  # steps before the first that counts: caches, kernels, the optimiser's state
_LEAST_REPEATS = 6  # an interval of 95 % for a median needs six values
_DTYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
_CLIP_NORM = 12.0  # as in generated bundles
STEPS = {
    "forward": "evaluation mode, without gradients",
    "train": "one step of medseg's trainer: forward, DiceCE loss, backward, gradients clipped, AdamW",
}


@dataclass(frozen=True)
class _Setup:
    """What all networks share; small enough to be sent to another process."""

    size: tuple[int, ...]
    in_channels: int
    out_channels: int
    batch_size: int
    device: str
    threads: int
    precision: str


def benchmark(
    networks: Mapping[str, str],
    *,
    size: Sequence[int],
    in_channels: int = 1,
    out_channels: int = 2,
    batch_size: int = 1,
    device: str | None = None,
    threads: int | None = None,
    precision: str = "fp32",
    repeats: int = 15,
    train: bool = False,
    published: bool = False,
    arguments: Mapping[str, Mapping[str, Any]] | None = None,
    output: str | Path | None = None,
) -> dict[str, Any]:
    """Measure networks; the first is the baseline.

    Args:
        networks: name in the result -> registered name, MONAI class or dotted path.
        size: of the input in voxels, ``(D, H, W)`` or ``(H, W)``.
        in_channels, out_channels, batch_size: of the input and the logits.
        device: ``cpu``, ``cuda`` or ``cuda:N``; default: a GPU where there is one.
        threads: of the CPU; default: torch's.
        precision: ``fp32``, ``bf16`` or ``fp16`` autocast.
        repeats: turns that count, at least 6.
        train: measure a training step as well as the forward pass.
        published: each network as published (its constructor's defaults); else as ``medseg train`` plans it for this
            size and device.
        arguments: name in the result -> constructor arguments.
        output: a JSON file for the result.

    Returns:
        ``conditions``, ``conventions`` and ``networks``; per network and step the ``seconds`` and the ``ratio`` to the
        baseline as ``[median, low, high]`` (95 %), ``multiply_adds`` and ``peak_memory_bytes``.

    Raises:
        ConfigError: a value out of range, or a network that does not take the size.
        ResourceError: no such device, or too little memory.
    """
    setup = _checked_setup(size, in_channels, out_channels, batch_size, device, threads, precision, repeats)
    built = _arguments(networks, setup, published, arguments or {})
    steps = ("forward", "train") if train else ("forward",)
    entries = [_on_paper(name, networks[name], built[name], setup, steps) for name in networks]
    conditions = _conditions(setup, repeats, published)
    for entry in entries:
        for step in steps:
            entry[step]["peak_memory_bytes"] = _peak_in_fresh_process(entry, setup, step)
    for step in steps:
        for entry, (seconds, ratio) in zip(entries, _times(entries, setup, step, repeats), strict=True):
            entry[step] |= {"seconds": seconds, "ratio": ratio}
    memory = MEMORY_CONVENTION[torch.device(setup.device).type]
    conventions = {
        "steps": {step: STEPS[step] for step in steps},
        "seconds": f"[median, low, high] over {repeats} turns in alternating order; bounds: 95 %, order statistics",
        "ratio": "seconds over the baseline's in the same turn, likewise",
        "multiply_adds": CONVENTION,
        "peak_memory_bytes": f"In a fresh process, network included: {memory}.",
    }
    content = {"conditions": conditions, "conventions": conventions, "networks": entries}
    if output is not None:
        write_json(output, content)
    return content


# ---------------------------------------------------------------------- what is measured
def _checked_setup(
    size: Sequence[int],
    in_channels: int,
    out_channels: int,
    batch_size: int,
    device: str | None,
    threads: int | None,
    precision: str,
    repeats: int,
) -> _Setup:
    counts = {"in_channels": in_channels, "out_channels": out_channels, "batch_size": batch_size, "threads": threads}
    for name, value in counts.items():
        if value is not None and (not isinstance(value, int) or value < 1):
            raise ConfigError(f"{name}: expected a positive integer, got {value!r}.")
    if len(size) not in (2, 3) or min(size) < 1:
        raise ConfigError(f"size {list(size)}: expected two or three positive integers, for example 64,64,64.")
    check_roi(list(size), len(size))
    if precision not in _DTYPES:
        raise ConfigError(f"precision '{precision}' is unknown; use {', '.join(_DTYPES)}.")
    if repeats < _LEAST_REPEATS:
        raise ConfigError(f"repeats: an interval of 95 % needs at least {_LEAST_REPEATS} turns, got {repeats}.")
    return _Setup(
        tuple(size),
        in_channels,
        out_channels,
        batch_size,
        str(choose_device(device)),
        threads or torch.get_num_threads(),
        precision,
    )


def _arguments(
    networks: Mapping[str, str], setup: _Setup, published: bool, given: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """The constructor arguments of each network, after a trial on torch's meta device."""
    if not networks:
        raise ConfigError("Nothing to measure; name a network with --network.")
    for name in given:
        if name not in networks:
            raise ConfigError(f"Arguments are given for '{name}', which is not measured.{nearest(name, networks)}")
    plan = _plan(setup)
    result = {}
    for name, network in networks.items():
        facts = catalog().get(network)
        if facts is not None and len(setup.size) not in facts.spatial_dims:
            known = " or ".join(f"{dims}" for dims in facts.spatial_dims)
            raise ConfigError(f"{network} takes {known} spatial axes; size {list(setup.size)} has {len(setup.size)}.")
        result[name] = planned_arguments(network, plan, given.get(name), published=published)
        problem = accepts_roi(network, result[name], setup.size)
        if problem is not None:
            raise ConfigError(f"{name} does not take size {list(setup.size)} ({problem}); try a multiple of 32.")
    return result


def _plan(setup: _Setup) -> Plan:
    """The plan of isotropic data whose window is the size."""
    dims = len(setup.size)
    return Plan(
        spatial_dims=dims,
        in_channels=setup.in_channels,
        out_channels=setup.out_channels,
        spacing=(1.0,) * dims,
        roi_size=setup.size,
        median_shape=setup.size,
        normalization=[],
        crop_foreground=False,
        flip_axes=[],
        rotate=[],
        batch_size=setup.batch_size,
        samples_per_case=1,
        repeats=1,
        cache="plain",
        cache_gib=0.0,
        learning_rate=0.001,
        light=setup.device == "cpu",
    )


def _on_paper(
    name: str, network: str, arguments: dict[str, Any], setup: _Setup, steps: Sequence[str]
) -> dict[str, Any]:
    """What needs no clock: parameters, and the multiply-adds of each step."""
    with torch.device("cpu"):
        net = create_network(network, **arguments)
    entry: dict[str, Any] = {
        "name": name,
        "network": network,
        "arguments": arguments,
        "parameters": count_parameters(net),
    }
    facts = catalog().get(network)
    if facts is not None:
        entry["published"] = {"parameters": facts.parameters, "setting": facts.setting}
    shape = (setup.batch_size, setup.in_channels, *setup.size)
    for step in steps:
        try:
            counted = multiply_adds_of(net, shape, training=step == "train")
        except (RuntimeError, ValueError) as error:
            raise _failure(error, name, setup, step) from error
        entry[step] = {
            "multiply_adds": counted.total,
            "by_operation": counted.by_operation,
            "not_counted": list(counted.not_counted),
        }
    return entry


def _conditions(setup: _Setup, repeats: int, published: bool) -> dict[str, Any]:
    cuda = setup.device.startswith("cuda")
    return {
        "size": list(setup.size),
        "in_channels": setup.in_channels,
        "out_channels": setup.out_channels,
        "batch_size": setup.batch_size,
        "arguments": "published" if published else "planned",
        "precision": setup.precision,
        "device": setup.device,
        "device_name": torch.cuda.get_device_name(setup.device) if cuda else _cpu_name(),
        "threads": setup.threads,
        "cores": os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "repeats": repeats,
        "warm_up": _WARM_UP,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "measured": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()


# ---------------------------------------------------------------------- steps
def _make_step(entry: Mapping[str, Any], setup: _Setup, step: str) -> Callable[[], object]:
    """Build a network and its input; the result runs one step of it."""
    torch.manual_seed(0)
    device = torch.device(setup.device)
    network = create_network(entry["network"], **entry["arguments"]).to(device)
    image = torch.randn(setup.batch_size, setup.in_channels, *setup.size, device=device)
    if step == "forward":
        return _forward(network.eval(), image, setup.precision)
    label = torch.randint(0, setup.out_channels, (setup.batch_size, 1, *setup.size), device=device)
    trainer = SegmentationTrainer(
        device=device,
        max_epochs=1,
        train_data_loader=[{"image": image, "label": label}],
        network=network,
        optimizer=torch.optim.AdamW(network.parameters(), lr=1e-5),
        loss_function=DiceCELoss(to_onehot_y=True, softmax=True),
        precision=setup.precision,
        clip_norm=_CLIP_NORM,
    )
    return trainer.run


def _forward(network: nn.Module, image: torch.Tensor, precision: str) -> Callable[[], object]:
    dtype = _DTYPES[precision]

    def run() -> object:
        with torch.no_grad(), torch.autocast(image.device.type, dtype=dtype, enabled=dtype is not None):
            return network(image)

    return run


# ---------------------------------------------------------------------- time
def _times(
    entries: Sequence[Mapping[str, Any]], setup: _Setup, step: str, repeats: int
) -> list[tuple[list[float], list[float]]]:
    """Per network: seconds, and ratio to the first, each as ``[median, low, high]``."""
    before = torch.get_num_threads()
    torch.set_num_threads(setup.threads)
    try:
        runs = [_make_step(entry, setup, step) for entry in entries]
        for run in runs * _WARM_UP:
            run()
        turns = _turns(runs, repeats, torch.device(setup.device))
    except (RuntimeError, ValueError) as error:
        raise _failure(error, "Together, the networks", setup, step) from error
    finally:
        torch.set_num_threads(before)
    return [
        (list(median_interval(turn)), list(median_interval([a / b for a, b in zip(turn, turns[0], strict=True)])))
        for turn in turns
    ]


def _turns(runs: Sequence[Callable[[], object]], repeats: int, device: torch.device) -> list[list[float]]:
    """Seconds per run and turn; every other turn goes backwards, so that no run always follows the same one."""
    seconds: list[list[float]] = [[] for _ in runs]
    gc.collect()
    gc.disable()  # a collection in the middle would be charged to one of them
    try:
        for turn in range(repeats):
            for index in range(len(runs))[:: 1 if turn % 2 == 0 else -1]:
                _synchronize(device)
                began = time.perf_counter()
                runs[index]()
                _synchronize(device)
                seconds[index].append(time.perf_counter() - began)
    finally:
        gc.enable()
    return seconds


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


# ---------------------------------------------------------------------- memory
def _peak_in_fresh_process(entry: Mapping[str, Any], setup: _Setup, step: str) -> int | None:
    try:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            return pool.submit(_peak, entry, setup, step).result()
    except BrokenProcessPool as error:
        raise ResourceError(
            f"The process that measured {entry['name']} ({step}) was killed: the system ran out of memory. "
            "Use a smaller size or batch_size."
        ) from error


def _peak(entry: Mapping[str, Any], setup: _Setup, step: str) -> int | None:
    """The largest memory of building a network and of two steps, above that of a process with torch at work."""
    torch.set_num_threads(setup.threads)
    device = torch.device(setup.device)
    layer = nn.Conv3d(4, 4, 3).to(device)  # the libraries' own memory comes with their first use
    layer(torch.zeros(1, 4, 16, 16, 16, device=device)).sum().backward()
    del layer
    gc.collect()
    peak = PeakMemory(device)
    try:
        run = _make_step(entry, setup, step)
        run()
        run()  # the optimiser's state is there from the second step on
    except (RuntimeError, ValueError) as error:
        raise _failure(error, entry["name"], setup, step) from error
    return peak.read()


def _failure(error: Exception, name: str, setup: _Setup, step: str) -> MedsegError:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if isinstance(error, torch.OutOfMemoryError) or "allocate memory" in reason:
        return ResourceError(f"{name} ({step}) need more memory than {setup.device} has; use a smaller size.")
    shape = (setup.batch_size, setup.in_channels, *setup.size)
    return ConfigError(f"{name} cannot run '{step}' on an input of {shape} ({reason}); use another size or batch_size.")
