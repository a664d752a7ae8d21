"""Commands are functions of one frozen settings value, and are called with its fields.

A settings class stands beside its function and is the one home of the command's options: field, type and default, and
under ``Attributes:`` of its docstring the line of ``--help``, of which the first sentence is shown. The types below say
how the command line takes a value; a ``Sequence`` is given by repeating the option, one of numbers or sizes by several
words after it. A field's metadata says

* ``option``: how the command line calls it otherwise (a name; several names, of which one has to be given; ``None``:
  for Python alone; ``no_x`` of a field that is true by default: a switch that turns it off),
* ``positional``: that it is not an option, but shown by this word,
* ``or``: the other field or fields, where one of them has to be given.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, ParamSpec, Protocol, TypeAlias, TypeVar, cast

from medseg.errors import ConfigError, nearest

__all__ = ["Command", "File", "Folder", "Named", "Names", "Numbers", "Size", "takes"]

P = ParamSpec("P")
S = TypeVar("S")
R = TypeVar("R")

File: TypeAlias = str | Path
Folder: TypeAlias = str | Path
Named: TypeAlias = Mapping[str, str]  # "value" or "name=value", repeated
Names: TypeAlias = Sequence[str]  # "A,B"
Numbers: TypeAlias = Sequence[float]  # "0.3,0.7"
Size: TypeAlias = Sequence[int]  # "96,96,64"


class Command(Protocol[P, S, R]):
    """A function that is called with the fields of its settings, or by ``of`` with a settings value.

    Attributes:
        of: the function of the settings value.
    """

    of: Callable[[S], R]

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R: ...


def takes(settings: Callable[P, S]) -> Callable[[Callable[[S], R]], Command[P, S, R]]:
    """Decorator: the function of one settings value is called with the settings' fields.

    The function raises a ConfigError for a name that is not one of them, and for one without a default that is missing.
    """
    signature = inspect.signature(settings)

    def decorate(function: Callable[[S], R]) -> Command[P, S, R]:
        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            own, known = function.__name__, signature.parameters
            for name in kwargs:
                if name not in known:
                    raise ConfigError(
                        f"{own} has no setting '{name}'.{nearest(name, known)} It has: {', '.join(known)}."
                    )
            there = signature.bind_partial(*args, **kwargs).arguments
            missing = [name for name, one in known.items() if one.default is one.empty and name not in there]
            if missing:
                raise ConfigError(f"{own} needs {' and '.join(missing)}, without a default; add them to the call.")
            return function(settings(*args, **kwargs))

        given: Any = call
        given.of = function
        given.__signature__ = signature.replace(return_annotation=inspect.signature(function).return_annotation)
        classes = [one for one in reversed(inspect.getmro(cast("type", settings))) if is_dataclass(one)]
        given.__doc__ = "\n\n".join(map(str, map(inspect.getdoc, (function, *classes))))
        return cast("Command[P, S, R]", given)

    return decorate
