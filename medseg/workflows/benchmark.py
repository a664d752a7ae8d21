"""Time, peak memory, parameters and multiply-adds of networks, side by side under one set of conditions.

Time: all networks take turns in one process, in alternating order; a ratio is the median over the turns of a network's
time over the baseline's in the same turn, so that a machine that slows down slows both. Memory: one fresh process per
network and step. Arithmetic: counted, not measured (``medseg.networks.cost``).
"""

from __future__ import annotations

import logging
import os
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from medseg.bundle import accepts_roi, planned_arguments, roi_remedy
from medseg.bundle.config_check import check_roi
from medseg.bundle.parts import device as choose_device
from medseg.bundle.plan_layer import LIGHT, check_recipe
from medseg.data import Plan
from medseg.data.plan_grid import check_configuration
from medseg.engines.memory import MEMORY_CONVENTION
from medseg.errors import ConfigError, nearest
from medseg.networks import catalog, create_network
from medseg.networks.cost import CONVENTION, MultiplyAdds, count_parameters, multiply_adds_of
from medseg.settings import File, Named, Size, takes
from medseg.storage import whole_file, write_json
from medseg.workflows.benchmark_commands import Work, command_figures, default_work
from medseg.workflows.benchmark_result import (
    Benchmark,
    Circumstances,
    CommandFigures,
    Conventions,
    NetworkFigures,
    Published,
    StepFigures,
)
from medseg.workflows.benchmark_steps import (
    PRECISIONS,
    STEPS,
    WARM_UP,
    Candidate,
    Conditions,
    failure,
    peak_memory,
    times,
)

__all__ = ["BenchmarkSettings", "benchmark"]


logger = logging.getLogger("medseg")

_REPEATS = {"networks": 15, "commands": 3}  # turns that count
_LEAST_REPEATS = 6  # an interval of 95 % for a median needs six values


@dataclass(frozen=True)
class BenchmarkSettings:
    """Which networks or command are measured, and under which conditions.

    Attributes:
        networks: name of `medseg networks`, MONAI class or dotted path; the first is the baseline. A name before it,
            name=network, tells two settings of one network apart in the result.
        command: whole command to measure against its network alone: infer, validate or train. On generated volumes,
            with each of the networks, or without a size with a small SegResNet on work of several kinds.
        recipe: with --command train: light, standard or nnunet.
        configuration: with --command: nnU-Net's 2d (slices of the volume), 3d_fullres or 3d_lowres.
        size: size of the input in voxels, such as 96,96,96 or 512,512; of a command, of the volume.
        empty: share of a command's volume that is constant, at least 0 and below 1.
        in_channels: number of channels of the input.
        out_channels: number of channels of the logits.
        batch_size: number of images per step.
        device: cpu, cuda or cuda:N (default: a GPU where there is one).
        threads: number of CPU threads (default: torch's).
        precision: fp32, bf16 or fp16.
        repeats: number of timed repetitions (default: 15 of networks, at least 6; 3 of a command).
        train: measure a training step too.
        published: networks as published (default: as `medseg train` plans them here).
        arguments: constructor arguments by the network's name, such as ssh_unet.gate_type=gsm.
        output: JSON file for the result.
    """

    networks: Named = field(default_factory=dict, metadata={"option": "network"})
    _: KW_ONLY
    command: Literal["infer", "validate", "train"] | None = None
    recipe: str = "light"
    configuration: str | None = None
    size: Size = ()
    empty: float = 0.0
    in_channels: int = 1
    out_channels: int = 2
    batch_size: int = 1
    device: str | None = None
    threads: int | None = None
    precision: str = "fp32"
    repeats: int | None = None
    train: bool = False
    published: bool = False
    arguments: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, metadata={"option": "set"})
    output: File | None = None

    @property
    def turns(self) -> int:
        """Number of timed repetitions."""
        return self.repeats or _REPEATS["networks" if self.command is None else "commands"]

    def conditions(self) -> Conditions:
        """What the networks share.

        Raises:
            ConfigError: a value out of range.
            ResourceError: no such device.
        """
        for name in ("in_channels", "out_channels", "batch_size", "threads", "repeats"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or value < 1):
                raise ConfigError(f"{name}: expected a positive integer, got {value!r}.")
        if len(self.size) not in (2, 3) or min(self.size) < 1:
            raise ConfigError(f"size {[*self.size]}: expected two or three positive integers, for example 64,64,64.")
        check_roi([*self.size], len(self.size))
        if self.precision not in PRECISIONS:
            raise ConfigError(f"precision '{self.precision}' is unknown; use {', '.join(PRECISIONS)}.")
        if self.command is None and self.turns < _LEAST_REPEATS:
            raise ConfigError(f"repeats: an interval of 95 % needs at least {_LEAST_REPEATS}, got {self.turns}.")
        if not 0 <= self.empty < 1:
            raise ConfigError(f"empty {self.empty} is outside [0, 1); use for example 0.9.")
        return Conditions(
            size=tuple(self.size),
            in_channels=self.in_channels,
            out_channels=self.out_channels,
            batch_size=self.batch_size,
            device=str(choose_device(self.device)),
            threads=self.threads or torch.get_num_threads(),
            precision=self.precision,
        )


@takes(BenchmarkSettings)
def benchmark(settings: BenchmarkSettings) -> Benchmark | list[CommandFigures]:
    """Measure time, peak memory, parameters and multiply-adds of networks side by side, with intervals.

    Or, with ``command``, time and memory of a whole command beside those of its network alone.

    Raises:
        ConfigError: a value out of range, or a network that does not take the size.
        ResourceError: no such device, too little memory, or an output that cannot be written.
    """
    check_recipe(settings.recipe)
    if settings.recipe != LIGHT and settings.command != "train":
        raise ConfigError("--recipe says how a network is trained; use it with --command train, or leave it out.")
    check_configuration(settings.configuration)
    if settings.configuration is not None and settings.command is None:
        raise ConfigError("--configuration says what a command plans; use it with --command, or leave it out.")
    if settings.train and settings.command is not None:
        raise ConfigError("--train measures a step of networks; use --command train for the command, or leave it out.")
    measured = _benchmark_networks if settings.command is None else _benchmark_commands
    if settings.output is None:
        return measured(settings)
    with whole_file(settings.output) as temporary:
        temporary.touch()  # a folder that cannot be written is refused before minutes of measuring
        result = measured(settings)
        write_json(temporary, result)
    return result


def _benchmark_networks(settings: BenchmarkSettings) -> Benchmark:
    setup = settings.conditions()
    steps = ("forward", "train") if settings.train else ("forward",)
    built = _arguments(settings.networks, setup, settings.arguments, published=settings.published)
    candidates = [Candidate(name, network, built[name]) for name, network in settings.networks.items()]
    on_paper = [_on_paper(candidate, setup, steps) for candidate in candidates]
    conditions = _conditions(setup, settings)
    memory = [{step: peak_memory(candidate, setup, step) for step in steps} for candidate in candidates]
    timed = {step: times(candidates, setup, step, settings.turns) for step in steps}
    figures = []
    for number, (candidate, (parameters, counts)) in enumerate(zip(candidates, on_paper, strict=True)):
        measured = {
            step: StepFigures(
                multiply_adds=counts[step].total,
                by_operation=counts[step].by_operation,
                not_counted=counts[step].not_counted,
                peak_memory_bytes=memory[number][step],
                seconds=timed[step][number][0],
                ratio=timed[step][number][1],
            )
            for step in steps
        }
        listed = catalog().get(candidate.network)
        figures.append(
            NetworkFigures(
                **vars(candidate),
                parameters=parameters,
                published=None if listed is None else Published(listed.parameters, listed.setting),
                forward=measured["forward"],
                train=measured.get("train"),
            )
        )
    peak = MEMORY_CONVENTION[torch.device(setup.device).type]
    conventions = Conventions(
        steps={step: STEPS[step] for step in steps},
        seconds=f"[median, low, high] over {settings.turns} alternating turns; bounds: 95 %, order statistics",
        ratio="seconds over the baseline's in the same turn, likewise",
        multiply_adds=CONVENTION,
        peak_memory_bytes=f"In a fresh process, network included: {peak}.",
    )
    return Benchmark(conditions, conventions, figures)


def _benchmark_commands(settings: BenchmarkSettings) -> list[CommandFigures]:
    """A row for each network, or of each kind of work."""
    name = str(settings.command)
    work = default_work(name)
    threads = settings.threads or torch.get_num_threads()
    if settings.size:
        setup = settings.conditions()
        threads = setup.threads
        networks = settings.networks or {"SegResNet": "SegResNet"}
        given = {one: settings.arguments.get(one, {}) for one in networks}
        usual = Work("", setup.size, setup.out_channels, empty=settings.empty)
        work = [replace(usual, network=network, arguments=given[one]) for one, network in networks.items()]
    work = [replace(one, recipe=settings.recipe, configuration=settings.configuration) for one in work]
    rows = []
    for one in work:
        rows.append(command_figures(name, one, threads, settings.turns))
        logger.info("%s", rows[-1].line)
    return rows


def _arguments(
    networks: Mapping[str, str], setup: Conditions, given: Mapping[str, Mapping[str, Any]], *, published: bool
) -> dict[str, dict[str, Any]]:
    """The constructor arguments of each network, after a trial on torch's meta device."""
    if not networks:
        raise ConfigError("Nothing to measure; name a network with --network.")
    for name in given:
        if name not in networks:
            raise ConfigError(f"Arguments are given for '{name}', which is not measured.{nearest(name, networks)}")
    result = {}
    for name, network in networks.items():
        facts = catalog().get(network)
        if facts is not None and len(setup.size) not in facts.spatial_dims:
            known = " or ".join(f"{dims}" for dims in facts.spatial_dims)
            raise ConfigError(f"{network} takes {known} spatial axes; size {list(setup.size)} has {len(setup.size)}.")
        planned = partial(_planned, network, setup, given.get(name), published)
        result[name] = planned(setup.size)
        problem = accepts_roi(network, result[name], setup.size)
        if problem is not None:
            remedy = roi_remedy(network, planned, setup.size)
            raise ConfigError(f"{name} does not take size {list(setup.size)} ({problem}); {remedy}.")
    return result


def _planned(
    network: str, setup: Conditions, given: Mapping[str, Any] | None, published: bool, size: Sequence[int]
) -> dict[str, Any]:
    return planned_arguments(network, _plan(replace(setup, size=tuple(size))), given, published=published)


def _plan(setup: Conditions) -> Plan:
    """The plan of isotropic data whose patch is the size."""
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


def _on_paper(candidate: Candidate, setup: Conditions, steps: Sequence[str]) -> tuple[int, dict[str, MultiplyAdds]]:
    """What needs no clock: the number of parameters, and the multiply-adds of each step."""
    with torch.device("cpu"):
        net = create_network(candidate.network, **candidate.arguments)
    counts = {}
    for step in steps:
        try:
            counts[step] = multiply_adds_of(net, setup.shape, training=step == "train")
        except (RuntimeError, ValueError) as error:
            raise failure(error, candidate.name, setup, step) from error
    return count_parameters(net), counts


def _conditions(setup: Conditions, settings: BenchmarkSettings) -> Circumstances:
    cuda = setup.device.startswith("cuda")
    return Circumstances(
        size=list(setup.size),
        in_channels=setup.in_channels,
        out_channels=setup.out_channels,
        batch_size=setup.batch_size,
        arguments="published" if settings.published else "planned",
        precision=setup.precision,
        device=setup.device,
        device_name=torch.cuda.get_device_name(setup.device) if cuda else _cpu_name(),
        threads=setup.threads,
        cores=os.cpu_count(),
        load_average=round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        repeats=settings.turns,
        warm_up=WARM_UP,
        torch=torch.__version__,
        python=platform.python_version(),
        platform=platform.platform(),
        measured=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    )


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()
