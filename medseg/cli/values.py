"""What the command line makes of the strings that a user types, by the name of a field's type."""

from __future__ import annotations

import argparse
import ast
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from medseg.cli.options import Option
from medseg.errors import ConfigError

__all__ = ["form", "metavar", "repeated", "values"]


def _path(text: str) -> Path:
    if not text.strip():  # as of a shell variable that is not set; as a path it is the working directory
        raise ValueError
    return Path(text).expanduser()


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(float(number) for number in text.split(","))


def _size(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.replace("x", ",").split(","))


def _assignments(option: str, items: Sequence[str]) -> dict[str, Any]:
    from medseg.bundle.compose import parse_assignments

    return parse_assignments(items)


def _arguments(option: str, items: Sequence[str]) -> dict[str, dict[str, Any]]:
    """``["a.b.Net.width=3"]`` -> ``{"a.b.Net": {"width": 3}}``."""
    found: dict[str, dict[str, Any]] = {}
    for key, value in _assignments(option, items).items():
        owner, dot, name = key.rpartition(".")
        if not dot:
            raise ConfigError(f"{option} {key}: expected NAME.argument=value with a measured network.")
        found.setdefault(owner, {})[name] = value
    return found


def _patterns(option: str, items: Sequence[str]) -> dict[str, str]:
    if wrong := [item for item in items if "=" not in item]:
        raise ConfigError(f"{option} {wrong[0]!r}: expected NAME=PATTERN, such as 'T1={{case}}_t1'.")
    return _named(option, items)


def _named(option: str, items: Sequence[str]) -> dict[str, str]:
    """``["ssh_unet", "gsm=ssh_unet"]`` -> name -> value; a value without a name is its own name."""
    found: dict[str, str] = {}
    for item in items:
        name, separator, value = item.partition("=")
        if not name or name in found:
            raise ConfigError(f"{option} {item!r}: expected a new name, such as {option} other={value or name}.")
        found[name] = value if separator else name
    return found


# Name of a type -> what makes it of a string, and how that is shown; "" stands for the option's initial.
_TYPES: dict[str, tuple[Callable[[str], Any], str]] = {
    "str": (str, ""),
    "int": (int, ""),
    "float": (float, ""),
    "File": (_path, "FILE"),
    "Folder": (_path, "DIR"),
    "Names": (_names, "A,B"),
    "Numbers": (_numbers, "A,B"),
    "Size": (_size, "A,B,C"),
}
# Mappings are made of all that is given.
_MAPPINGS: dict[str, tuple[Callable[[str, Sequence[str]], Any], str]] = {
    "Mapping[str, Any]": (_assignments, "ID=VALUE"),
    "Mapping[str, Mapping[str, Any]]": (_arguments, "NAME.KEY=VALUE"),
    "Mapping[str, str]": (_patterns, "NAME=PATTERN"),
    "Named": (_named, "[NAME=]VALUE"),
}


def _type(option: Option) -> str:
    return option.annotation.removesuffix(" | None")


def repeated(option: Option) -> bool:
    """Whether a field takes several values."""
    return _type(option).startswith("Sequence[")


def _kinds(option: Option) -> list[str]:
    """The types of one value."""
    text = _type(option)
    return (text[len("Sequence[") : -1] if repeated(option) else text).split(" | ")


def _words(option: Option) -> list[str]:
    """The words that ``Literal`` allows."""
    texts = [kind.removeprefix("Literal") for kind in _kinds(option) if kind.startswith("Literal[")]
    return [word for text in texts for word in ast.literal_eval(text)]


def metavar(option: Option) -> str:
    """How a value is shown."""
    if _type(option) in _MAPPINGS:
        return _MAPPINGS[_type(option)][1]
    shown = [_TYPES[kind][1] or option.names[0][0].upper() for kind in _kinds(option) if kind in _TYPES]
    return "|".join([*shown, *_words(option)]) if shown else f"{{{','.join(_words(option))}}}"


def form(option: Option) -> dict[str, Any]:
    """What argparse is told of an option's values."""
    kinds = _kinds(option)
    if kinds == ["bool"]:
        if "option" in option.metadata:
            return {"action": "store_false"}
        return {"action": argparse.BooleanOptionalAction if option.default else "store_true"}
    if _type(option) in _MAPPINGS:
        return {"action": "append", "metavar": metavar(option)}
    known = next((kind for kind in kinds if kind in _TYPES), None)
    if known is None:
        if not (words := _words(option)):
            raise TypeError(
                f"{option.name} has the type {option.annotation}, which no option has; use {', '.join(_TYPES)}, bool, "
                "Literal, a Sequence of these, or a Mapping as in medseg.cli.values."
            )
        return {"choices": words}
    several = {"nargs": "+"} if known in ("float", "Size") else {"action": "append"}
    return {"type": _converter(option, known), "metavar": metavar(option)} | (several if repeated(option) else {})


def _converter(option: Option, known: str) -> Callable[[str], Any]:
    convert, words = _TYPES[known][0], _words(option)
    if not words and known in ("int", "float"):
        return convert  # argparse names these itself

    def converted(text: str) -> Any:
        try:
            return text if text in words else convert(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"{text!r} is not a valid {metavar(option)}") from error

    return converted


def values(options: Iterable[Option], args: argparse.Namespace) -> dict[str, Any]:
    """The fields that are given.

    Raises:
        ConfigError: not a valid assignment.
    """
    found = {}
    for option in options:
        value = getattr(args, option.name, None)
        if value is not None:
            mapping = _MAPPINGS.get(_type(option))
            found[option.name] = mapping[0](f"--{option.names[0]}", value) if mapping else value
    return found
