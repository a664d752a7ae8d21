"""Options that a part of its own adds to a command: the keyword arguments of a data set's or a challenge's function."""

from __future__ import annotations

import argparse
import inspect
import textwrap
from collections.abc import Callable
from typing import Any

__all__ = ["add_nnunet", "add_options", "describe_options", "options_given"]


def _parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    parameters = inspect.signature(function).parameters.values()
    return [p for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is not p.empty]


def add_nnunet(parser: argparse.ArgumentParser) -> None:
    """Options of commands that plan."""
    parser.add_argument(
        "--nnunet_plans",
        metavar="FILE",
        help="nnUNetPlans.json of nnU-Net 2, whose spacing, patch size and normalisation are taken over",
    )
    parser.add_argument(
        "--nnunet_configuration", metavar="C", help="of the plans (default 3d_fullres; of 2D images 2d)"
    )


def add_options(parser: argparse.ArgumentParser, function: Callable[..., Any]) -> None:
    """One option per keyword-only argument with a default, of the default's type; ``None`` stands for a text,
    a list is given with commas. What they mean is read from the docstring.
    """
    summary, described = _documentation(function)
    group = parser.add_argument_group(f"options of {function.__module__.rpartition('.')[2]}", summary)
    for p in _parameters(function):
        form: dict[str, Any] = {"type": str if p.default is None else type(p.default), "metavar": p.name[0].upper()}
        if isinstance(p.default, bool):
            form = {"action": argparse.BooleanOptionalAction}
        elif isinstance(p.default, (tuple, list)):
            form = {"type": lambda text: tuple(text.split(",")), "metavar": "A,B"}
        default = ",".join(map(str, p.default)) if isinstance(p.default, (tuple, list)) else p.default
        text = f"{described.get(p.name, '').rstrip('.')} (default {default})".replace("%", "%%").strip()
        group.add_argument(f"--{p.name}", default=argparse.SUPPRESS, help=text, **form)


def _documentation(function: Callable[..., Any]) -> tuple[str, dict[str, str]]:
    """The text above ``Args:``, and argument -> what is said of it there; without the marks of code."""
    text = (inspect.getdoc(function) or "").replace("``", "")
    summary, _, rest = text.partition("Args:\n")
    described: dict[str, str] = {}
    names: list[str] = []
    for line in textwrap.dedent(rest.partition("\n\n")[0]).splitlines():
        if line.startswith(" "):
            described |= {name: f"{described[name]} {line.strip()}" for name in names}
        else:
            name, _, said = line.partition(": ")
            names = name.split(", ")
            described |= {name: said for name in names}
    return summary.strip(), described


def options_given(args: argparse.Namespace, function: Callable[..., Any]) -> dict[str, Any]:
    """What the user said of them."""
    return {p.name: getattr(args, p.name) for p in _parameters(function) if hasattr(args, p.name)}


def describe_options(function: Callable[..., Any]) -> str:
    """``--task 1, --num_folds 0, --no-crop``: each with its default, a switch as it is turned."""
    return ", ".join(_shown(p) for p in _parameters(function))


def _shown(p: inspect.Parameter) -> str:
    if isinstance(p.default, bool):
        return f"--no-{p.name}" if p.default else f"--{p.name}"
    text = ",".join(map(str, p.default)) if isinstance(p.default, (tuple, list)) else p.default
    return f"--{p.name} {text}" if text not in (None, "") else f"--{p.name}"
