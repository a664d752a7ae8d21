"""Parameter groups with learning rates of their own, by patterns of names."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from medseg.errors import ConfigError

__all__ = ["parameter_groups"]


def parameter_groups(
    network: nn.Module, learning_rate: float, factors: Mapping[str, float] | None = None
) -> list[dict[str, Any]]:
    """Parameter groups for an optimiser: ``learning_rate`` times the factor of the first pattern that a name matches.

    Args:
        network: its parameters, under ``torchrun`` inside its wrapper.
        learning_rate: rate of parameters that no pattern matches.
        factors: pattern of names (``fnmatch``: ``*`` is any text) -> factor; with 0 a parameter stays as it is.

    Raises:
        ConfigError: a factor is negative, or a pattern decides over no parameter.
    """
    factors = dict(factors or {})
    named = [(name.removeprefix("module."), parameter) for name, parameter in network.named_parameters()]
    members: dict[str | None, list[nn.Parameter]] = {pattern: [] for pattern in (*factors, None)}
    for name, parameter in named:
        members[next((pattern for pattern in factors if fnmatchcase(name, pattern)), None)].append(parameter)
    for pattern, factor in factors.items():
        if factor < 0:
            raise ConfigError(f"Learning-rate factor {factor} of '{pattern}' is negative; use 0 to keep it fixed.")
        if not members[pattern]:
            raise ConfigError(
                f"Learning-rate factor of '{pattern}': no parameter is left for it; the network's first is "
                f"'{named[0][0]}', and an earlier pattern goes first."
            )
    return [
        {"params": parameters, "lr": learning_rate * (1.0 if pattern is None else factors[pattern])}
        for pattern, parameters in members.items()
        if parameters
    ]
