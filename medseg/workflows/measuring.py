"""What `medseg benchmark` does: networks and their arguments, as the command line names them, are measured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

from medseg.errors import ConfigError, nearest
from medseg.settings import File, Size, takes
from medseg.workflows.benchmark import benchmark

__all__ = ["MeasureSettings", "measure", "named_networks", "split_arguments"]


@dataclass(frozen=True)
class MeasureSettings:
    """Which networks are measured, and how.

    Attributes:
        networks: [NAME=]network of each: a name of `medseg networks`, a MONAI class or a dotted path; the first is the
            baseline; NAME= tells two settings of one network apart.
        size: size of the input in voxels, such as 96,96,96 or 512,512.
        in_channels: number of channels of the input.
        out_channels: number of channels of the logits.
        batch_size: number of images per pass.
        device: cpu, cuda or cuda:N (default: a GPU where there is one).
        threads: number of CPU threads (default: torch's).
        precision: fp32, bf16 or fp16.
        repeats: number of turns that count, at least 6.
        train: measurement of a training step too.
        published: networks as published (default: as `medseg train` plans them here).
        arguments: arguments of a network by its name, such as ssh_unet.gate_type=gsm.
        output: JSON file for the result.
    """

    networks: Sequence[str] = field(metadata={"option": "network"})
    size: Size
    _: KW_ONLY
    in_channels: int = 1
    out_channels: int = 2
    batch_size: int = 1
    device: str | None = None
    threads: int | None = None
    precision: str = "fp32"
    repeats: int = 15
    train: bool = False
    published: bool = False
    arguments: Mapping[str, Any] | None = field(default=None, metadata={"option": "set"})
    output: File | None = None


@takes(MeasureSettings)
def measure(s: MeasureSettings) -> dict[str, Any]:
    """Measure time, peak memory, parameters and multiply-adds of networks side by side, with intervals.

    Raises:
        ConfigError: a name that comes twice, or an argument of a network that is not measured.
    """
    networks = named_networks(s.networks)
    return benchmark(
        networks,
        size=s.size,
        in_channels=s.in_channels,
        out_channels=s.out_channels,
        batch_size=s.batch_size,
        device=s.device,
        threads=s.threads,
        precision=s.precision,
        repeats=s.repeats,
        train=s.train,
        published=s.published,
        arguments=split_arguments(s.arguments or {}, networks),
        output=s.output,
    )


def named_networks(texts: Iterable[str]) -> dict[str, str]:
    """``["ssh_unet", "gsm=ssh_unet"]`` -> name in the table -> network.

    Raises:
        ConfigError: a name that comes twice.
    """
    networks: dict[str, str] = {}
    for text in texts:
        name, separator, network = text.partition("=")
        if name in networks:
            raise ConfigError(
                f"'{name}' is measured already; tell two settings apart by --network other={network or name}."
            )
        networks[name] = network if separator else name
    return networks


def split_arguments(assignments: Mapping[str, Any], networks: Iterable[str]) -> dict[str, dict[str, Any]]:
    """``{"ssh_unet.gate_type": "gsm"}`` -> arguments per name; names may hold dots themselves.

    Raises:
        ConfigError: a name that is not measured.
    """
    found: dict[str, dict[str, Any]] = {}
    for key, value in assignments.items():
        owners = [name for name in networks if key.startswith(f"{name}.")]
        if not owners:
            hint = nearest(key.partition(".")[0], networks)
            raise ConfigError(f"--set {key}: expected NAME.argument=value with a measured network.{hint}")
        owner = max(owners, key=len)
        found.setdefault(owner, {})[key.removeprefix(f"{owner}.")] = value
    return found
