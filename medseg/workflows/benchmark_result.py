"""What a benchmark found: conditions, and figures per network and step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from medseg.metrics import MedianInterval

__all__ = ["Benchmark", "Circumstances", "Conventions", "NetworkFigures", "Published", "StepFigures"]


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
