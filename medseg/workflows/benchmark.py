"""Time, peak memory, parameters and multiply-adds of networks, side by side under one set of conditions.

Time: all networks take turns in one process, in alternating order; a ratio is the median over the turns of a network's
time over the baseline's in the same turn, so that a machine that slows down slows both. Memory: one fresh process per
network and step. Arithmetic: counted, not measured (``medseg.networks.cost``).
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from medseg.bundle import accepts_roi, planned_arguments
from medseg.data import Plan
from medseg.engines.memory import MEMORY_CONVENTION
from medseg.errors import ConfigError, nearest
from medseg.networks import catalog, create_network
from medseg.networks.cost import CONVENTION, count_parameters, multiply_adds_of
from medseg.storage import write_json
from medseg.workflows.benchmark_steps import STEPS, WARM_UP, BenchmarkSettings, failure, peak_memory, times

__all__ = ["BenchmarkSettings", "benchmark"]


def benchmark(
    networks: Mapping[str, str],
    settings: BenchmarkSettings,
    *,
    arguments: Mapping[str, Mapping[str, Any]] | None = None,
    output: str | Path | None = None,
) -> dict[str, Any]:
    """Measure networks; the first is the baseline.

    Args:
        networks: name in the result -> registered name, MONAI class or dotted path.
        settings: conditions of the measurement.
        arguments: name in the result -> constructor arguments.
        output: a JSON file for the result.

    Returns:
        ``conditions``, ``conventions`` and ``networks``; per network and step the ``seconds`` and the ``ratio`` to the
        baseline as ``[median, low, high]`` (95 %), ``multiply_adds`` and ``peak_memory_bytes``.

    Raises:
        ConfigError: a network that is not known, or does not take the size.
        ResourceError: too little memory.
    """
    built = _arguments(networks, settings, arguments or {})
    entries = [_on_paper(name, networks[name], built[name], settings) for name in networks]
    conditions = _conditions(settings)
    for entry in entries:
        for step in settings.steps:
            entry[step]["peak_memory_bytes"] = peak_memory(entry, settings, step)
    for step in settings.steps:
        for entry, (seconds, ratio) in zip(entries, times(entries, settings, step), strict=True):
            entry[step] |= {"seconds": seconds, "ratio": ratio}
    memory = MEMORY_CONVENTION[torch.device(settings.device).type]
    conventions = {
        "steps": {step: STEPS[step] for step in settings.steps},
        "seconds": f"[median, low, high] over {settings.repeats} turns in alternating order; bounds: 95 %, order "
        "statistics",
        "ratio": "seconds over the baseline's in the same turn, likewise",
        "multiply_adds": CONVENTION,
        "peak_memory_bytes": f"In a fresh process, network included: {memory}.",
    }
    content = {"conditions": conditions, "conventions": conventions, "networks": entries}
    if output is not None:
        write_json(output, content)
    return content


def _arguments(
    networks: Mapping[str, str], setup: BenchmarkSettings, given: Mapping[str, Mapping[str, Any]]
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
        result[name] = planned_arguments(network, plan, given.get(name), published=setup.published)
        problem = accepts_roi(network, result[name], setup.size)
        if problem is not None:
            raise ConfigError(f"{name} does not take size {list(setup.size)} ({problem}); try a multiple of 32.")
    return result


def _plan(setup: BenchmarkSettings) -> Plan:
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


def _on_paper(name: str, network: str, arguments: dict[str, Any], setup: BenchmarkSettings) -> dict[str, Any]:
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
    for step in setup.steps:
        try:
            counted = multiply_adds_of(net, setup.shape, training=step == "train")
        except (RuntimeError, ValueError) as error:
            raise failure(error, name, setup, step) from error
        entry[step] = {
            "multiply_adds": counted.total,
            "by_operation": counted.by_operation,
            "not_counted": list(counted.not_counted),
        }
    return entry


def _conditions(setup: BenchmarkSettings) -> dict[str, Any]:
    cuda = setup.device.startswith("cuda")
    return {
        "size": list(setup.size),
        "in_channels": setup.in_channels,
        "out_channels": setup.out_channels,
        "batch_size": setup.batch_size,
        "arguments": "published" if setup.published else "planned",
        "precision": setup.precision,
        "device": setup.device,
        "device_name": torch.cuda.get_device_name(setup.device) if cuda else _cpu_name(),
        "threads": setup.threads,
        "cores": os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "repeats": setup.repeats,
        "warm_up": WARM_UP,
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
