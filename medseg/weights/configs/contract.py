"""What a system's module gives of a config, and how its settings find their homes."""

from __future__ import annotations

import inspect
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch

from medseg.errors import ConfigError

__all__ = ["Homes", "OriginalConfig", "flags_in", "homed", "optimizer"]

# Setting of the original -> config id, or what it becomes: config id -> value; empty where it changes nothing here.
Homes: TypeAlias = Mapping[str, str | Callable[[Any], Mapping[str, Any]]]


@dataclass(frozen=True)
class OriginalConfig:
    """A config of an original system.

    Attributes:
        system, architecture, arguments: what names the network, as ``import_original`` takes them.
        settings: config id -> value.
        homeless: names of settings that have no home here.
        iterations: length of the training in batches, where it is not told in epochs.
        iterations_per_validation: likewise.
    """

    system: str
    architecture: str
    arguments: Mapping[str, Any]
    settings: Mapping[str, Any]
    homeless: Sequence[str]
    iterations: int | None = None
    iterations_per_validation: int | None = None


def homed(given: Mapping[str, Any], homes: Homes) -> tuple[dict[str, Any], list[str]]:
    """Settings here, and the names of those without a home."""
    settings: dict[str, Any] = {}
    homeless = []
    for name, value in given.items():
        home = homes.get(name)
        if home is None:
            homeless.append(name)
        else:
            settings |= {home: value} if isinstance(home, str) else home(value)
    return settings, homeless


def optimizer(name: str, place: str, arguments: Mapping[str, Any], at: str = "optimizer") -> dict[str, Any]:
    """An optimiser of torch by its class name, with torch's own weight decay where the original names none.

    Args:
        name: name of the class.
        place: place of the setting, for the sentence.
        arguments: arguments of the original, without the parameters and the learning rate.
        at: id of the optimiser.

    Raises:
        ConfigError: torch has none of the name.
    """
    kind = getattr(torch.optim, name, None)
    if not (isinstance(kind, type) and issubclass(kind, torch.optim.Optimizer)):
        raise ConfigError(f"{place}: '{name}' is not an optimiser of torch; correct it there.")
    decay = arguments.get("weight_decay", inspect.signature(kind).parameters["weight_decay"].default)
    others = {f"{at}::{key}": value for key, value in arguments.items() if key != "weight_decay"}
    return {f"{at}::_target_": f"torch.optim.{name}", "weight_decay": decay, **others}


def flags_in(text: str, source: str) -> dict[str, list[str]]:
    """Options of a shell command: name -> words after it; nothing is run.

    Raises:
        ConfigError: a quotation mark is not closed.
    """
    try:
        words = shlex.split(text.replace("\\\n", " "), comments=True)
    except ValueError as error:
        raise ConfigError(f"Config {source} is not a command line ({error}); correct it there.") from error
    found: dict[str, list[str]] = {}
    name = ""
    for word in words:
        if word.startswith("--"):
            name, separator, value = word.removeprefix("--").partition("=")
            found[name] = [value] if separator else []
        elif name:
            found[name].append(word)
    return found
