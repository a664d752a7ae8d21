"""What a system's module provides: how an original constructor and an original state dict read in our terms."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from medseg.errors import ConfigError, ModelError, nearest

__all__ = ["Architecture", "Conversion", "ImportReport", "Rules", "check_arguments", "renamed", "renaming"]

Rules = Sequence[tuple[str, str | Callable[[re.Match[str]], str]]]  # pattern -> replacement, of ``re.sub``, in order


@dataclass
class Conversion:
    """Original keys on their way to ours; every key is taken once, or dropped for a reason.

    Attributes:
        state: our key -> tensor.
        origin: our key -> the original key that it was taken from.
        dropped: original key -> reason.
        notes: what else the state dict says about itself, one sentence each.
    """

    state: dict[str, Tensor] = field(default_factory=dict)
    origin: dict[str, str] = field(default_factory=dict)
    dropped: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def take(self, key: str, ours: str, value: Tensor) -> None:
        """``value`` of the original ``key`` becomes ``ours``; a second key for it must hold the same and is dropped.

        Raises:
            ModelError: the two differ.
        """
        if ours not in self.state:
            self.state[ours], self.origin[ours] = value, key
        elif self.state[ours].shape == value.shape and torch.equal(self.state[ours], value):
            self.dropped[key] = f"the same tensor as {self.origin[ours]}"
        else:
            raise ModelError(
                f"Keys '{self.origin[ours]}' and '{key}' are two names of one tensor, but hold different values; "
                "use the checkpoint as the original program saved it."
            )


def renamed(key: str, rules: Rules) -> str:
    """A key after all rules."""
    for pattern, replacement in rules:
        key = re.sub(pattern, replacement, key)
    return key


def renaming(rules: Rules) -> Callable[[Mapping[str, Tensor], nn.Module], Conversion]:
    """The ``convert`` of an architecture whose tensors differ from ours by name alone."""

    def convert(state: Mapping[str, Tensor], network: nn.Module) -> Conversion:
        conversion = Conversion()
        for key, value in state.items():
            conversion.take(key, renamed(key, rules), value)
        return conversion

    return convert


@dataclass(frozen=True)
class Architecture:
    """One original network class.

    Attributes:
        network: original constructor arguments -> our registered name and the arguments of ``create_network``.
        convert: original state dict and our network -> ``Conversion``.
    """

    network: Callable[[dict[str, Any]], tuple[str, dict[str, Any]]]
    convert: Callable[[Mapping[str, Tensor], nn.Module], Conversion]


@dataclass(frozen=True)
class ImportReport:
    """What an import did.

    Attributes:
        system, architecture: names of the original's system and network.
        network, arguments: ours, for ``create_network``.
        parameters: number of trainable numbers.
        taken: our key -> original key.
        dropped: original key -> reason.
        notes: what else the state dict says about itself.
    """

    system: str
    architecture: str
    network: str
    arguments: dict[str, Any]
    parameters: int
    taken: dict[str, str] = field(default_factory=dict)
    dropped: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """The report in words, one line per dropped key."""
        return [
            f"{self.system} {self.architecture} -> {self.network}, {self.parameters:,} parameters",
            *(f"  {name}: {value}" for name, value in self.arguments.items()),
            f"{len(self.taken)} keys taken, {len(self.dropped)} dropped",
            *(f"  dropped {key}: {reason}" for key, reason in self.dropped.items()),
            *(f"  {note}" for note in self.notes),
        ]


def check_arguments(
    architecture: str, arguments: Mapping[str, Any], *, required: Iterable[str], defaults: Mapping[str, Any]
) -> dict[str, Any]:
    """The original's arguments, completed by its defaults.

    Raises:
        ConfigError: an unknown argument, or a required one that is missing.
    """
    required = tuple(required)
    for name in arguments:
        if name not in required and name not in defaults:
            raise ConfigError(
                f"The original {architecture} has no argument '{name}'.{nearest(str(name), (*required, *defaults))}"
            )
    missing = [name for name in required if name not in arguments]
    if missing:
        raise ConfigError(f"The original {architecture} needs {', '.join(missing)}; add it to its arguments.")
    return {**defaults, **arguments}
