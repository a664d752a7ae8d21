"""What a benchmark found: conditions, and figures per network and step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from medseg.metrics import MedianInterval

__all__ = [
    "Benchmark",
    "Circumstances",
    "CommandFigures",
    "Conventions",
    "NetworkFigures",
    "ProcessCost",
    "Published",
    "StepFigures",
]


@dataclass(frozen=True)
class StepFigures:
    """One step of one network.

    Attributes:
        multiply_adds: number of multiply-adds.
        by_operation: operator of torch -> its share.
        not_counted: operators that took part and have no formula.
        peak_memory_bytes: largest memory; ``None`` where the system does not say.
        seconds: time.
        ratio: time over the baseline's in the same turn.
    """

    multiply_adds: int
    by_operation: Mapping[str, int]
    not_counted: Sequence[str]
    peak_memory_bytes: int | None
    seconds: MedianInterval
    ratio: MedianInterval


@dataclass(frozen=True)
class Published:
    """Number of parameters of the published network, and the setting that has it."""

    parameters: int
    setting: str


@dataclass(frozen=True, kw_only=True)
class NetworkFigures:
    """One network.

    Attributes:
        name: name in the result.
        network: name of the network, MONAI class or dotted path.
        arguments: arguments of its constructor.
        parameters: number of its parameters.
        published: facts of the catalogue; ``None`` where it is not listed.
        forward, train: figures of the steps; ``None`` where no training step was measured.
    """

    name: str
    network: str
    arguments: Mapping[str, Any]
    parameters: int
    published: Published | None = None
    forward: StepFigures
    train: StepFigures | None = None

    @property
    def steps(self) -> dict[str, StepFigures]:
        """Name of a measured step -> its figures."""
        return {"forward": self.forward} | ({"train": self.train} if self.train else {})


@dataclass(frozen=True)
class Circumstances:
    """What was measured on, and how often; sizes in voxels, ``load_average`` of one minute at the start."""

    size: Sequence[int]
    in_channels: int
    out_channels: int
    batch_size: int
    arguments: str
    precision: str
    device: str
    device_name: str
    threads: int
    cores: int | None
    load_average: float | None
    repeats: int
    warm_up: int
    torch: str
    python: str
    platform: str
    measured: str


@dataclass(frozen=True)
class Conventions:
    """What each figure means, in words; ``steps``: name of a step -> what it is."""

    steps: Mapping[str, str]
    seconds: str
    ratio: str
    multiply_adds: str
    peak_memory_bytes: str


@dataclass(frozen=True)
class Benchmark:
    """Networks side by side under one set of conditions; the first is the baseline."""

    conditions: Circumstances
    conventions: Conventions
    networks: Sequence[NetworkFigures]


@dataclass(frozen=True)
class ProcessCost:
    """What a process and all that it started took; CPU seconds are of user and system mode."""

    cpu_seconds: float
    wall_seconds: float
    peak_bytes: float


@dataclass(frozen=True, kw_only=True)
class CommandFigures:
    """A whole command beside its network alone, all as medians over the turns.

    Attributes:
        name: name of the command and its work.
        patches: number of patches.
        command: cost of its processes.
        network_seconds: CPU seconds of the network alone on as many patches.
        import_seconds: CPU seconds of the import of torch.
        start_bytes: memory of a process that has imported what the command is made of.
        volume_bytes: size of the volume in float32.
    """

    name: str
    patches: int
    command: ProcessCost
    network_seconds: float
    import_seconds: float
    start_bytes: float
    volume_bytes: int

    @property
    def line(self) -> str:
        """What is said while other rows are measured."""
        peak = self.command.peak_bytes / 2**20
        return f"{self.name}: {self.command.cpu_seconds:.1f} CPU s, {self.ratio:.2f} of its network, {peak:.0f} MiB"

    @property
    def ratio(self) -> float:
        """CPU seconds of the command over those of the network alone and the import of torch."""
        return self.command.cpu_seconds / (self.network_seconds + self.import_seconds)

    @property
    def volumes(self) -> float:
        """Memory above the start, as a multiple of the volume in float32."""
        return (self.command.peak_bytes - self.start_bytes) / self.volume_bytes
