"""Keyword arguments that a user gives to a data set's or a challenge's function."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from medseg.errors import ConfigError, nearest

__all__ = ["check_options"]


def check_options(owner: str, function: Callable[..., Any], given: Iterable[str]) -> None:
    """Refuse names that ``function`` does not take.

    Raises:
        ConfigError: with the nearest name.
    """
    known = list(getattr(function, "__kwdefaults__", None) or {})
    for name in given:
        if name not in known:
            raise ConfigError(
                f"{owner} has no option '{name}'.{nearest(name, known)} It has: {', '.join(known) or 'none'}."
            )
