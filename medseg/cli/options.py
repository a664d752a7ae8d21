"""The options of a command, read from the source of its settings class, which is not imported: ``--help`` answers at
once.
"""

from __future__ import annotations

import ast
import re
import textwrap
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import medseg

__all__ = ["REQUIRED", "Option", "described", "read_options", "read_summary"]

REQUIRED = object()


@dataclass(frozen=True)
class Option:
    """One field of a settings class, or one keyword argument of a function.

    Attributes:
        name: name of the field.
        annotation: type, as written in the source.
        default: default value, or ``REQUIRED``.
        help: what is said of the field in the docstring.
        metadata: what the field says of its option (see ``medseg.settings``).
    """

    name: str
    annotation: str
    default: Any
    help: str
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """Names on the command line; none where the option is for Python alone."""
        given = self.metadata.get("option", self.name)
        return given if isinstance(given, tuple) else (given,) if given else ()

    @property
    def shown(self) -> str:
        """The default as one would type it; empty where there is none, and for switches."""
        if self.default in (REQUIRED, None) or isinstance(self.default, bool):
            return ""
        return ",".join(map(str, self.default)) if isinstance(self.default, (tuple, list)) else str(self.default)


def read_summary(function: str) -> str:
    """The first line of a function's docstring; the function is named by its dotted path."""
    node = _definition(*function.rsplit(".", 1))[1]
    return (ast.get_docstring(node) or "").partition("\n")[0].replace("``", "")


def read_options(function: str) -> tuple[str, tuple[Option, ...]]:
    """The dotted path of the settings class of a function with ``takes(Settings)``, and its options for the command
    line, in the order of the call.
    """
    module, node = _definition(*function.rsplit(".", 1))
    calls = [found for found in node.decorator_list if isinstance(found, ast.Call)]
    settings = next(ast.unparse(call.args[0]) for call in calls if ast.unparse(call.func) == "takes")
    positional, others = _fields(module, settings)
    options = tuple(option for option in (positional | others).values() if option.names)
    return f"{_definition(module, settings)[0]}.{settings}", options


def _definition(module: str, name: str) -> tuple[str, ast.ClassDef | ast.FunctionDef]:
    """The module that defines a name, and the definition, which alone is parsed; imports are followed."""
    source = _source(module)
    if found := re.search(rf"^(@.*\n)*(class|def) {name}\b.*\n([ )].*\n|\n)*", source, re.MULTILINE):
        node = ast.parse(found[0]).body[0]
        assert isinstance(node, (ast.ClassDef, ast.FunctionDef))
        return module, node
    if found := re.search(rf"^from (\S+) import (\([^)]*|.*)\b{name}\b", source, re.MULTILINE):
        return _definition(found[1], name)
    raise LookupError(f"{module} does not define {name}")


def _source(module: str) -> str:
    path = Path(medseg.__file__).parent.joinpath(*module.split(".")[1:]).with_suffix(".py")
    return path.read_text(encoding="utf-8")


def _fields(module: str, name: str) -> tuple[dict[str, Option], dict[str, Option]]:
    """The fields of a settings class that may be given by place, and the others; those of its base classes first."""
    module, node = _definition(module, name)
    assert isinstance(node, ast.ClassDef)
    positional, others = dict[str, Option](), dict[str, Option]()
    for base in reversed(node.bases):  # as dataclasses have it
        above = _fields(module, ast.unparse(base))
        positional, others = positional | above[0], others | above[1]
    found = positional
    said = described(ast.get_docstring(node), "Attributes:\n")
    for item in node.body:
        if isinstance(item, ast.AnnAssign) and (key := ast.unparse(item.target)) == "_":  # KW_ONLY
            found = others
        elif isinstance(item, ast.AnnAssign):
            value: ast.expr | None = item.value
            metadata: dict[str, Any] = {}
            if isinstance(value, ast.Call):  # of dataclasses.field
                given = {keyword.arg: keyword.value for keyword in value.keywords}
                metadata = ast.literal_eval(given["metadata"]) if "metadata" in given else {}
                value = given.get("default", given.get("default_factory"))
            default = REQUIRED if value is None else _literal(value)
            found[key] = Option(key, ast.unparse(item.annotation), default, said.get(key, ""), metadata)
    return positional, others


def _literal(value: ast.expr) -> Any:
    """A default; ``None`` where it is known at run time only."""
    try:
        return ast.literal_eval(value)
    except ValueError:
        return None


def described(docstring: str | None, section: str) -> dict[str, str]:
    """Name -> what a section of the docstring says of it; without the marks of code."""
    found: dict[str, str] = {}
    names: list[str] = []
    rest = (docstring or "").replace("``", "").partition(section)[2].partition("\n\n")[0]
    for line in textwrap.dedent(rest).splitlines():
        if line.startswith(" "):
            found |= {name: f"{found[name]} {line.strip()}" for name in names}
        else:
            name, _, said = line.partition(": ")
            names = name.split(", ")
            found |= dict.fromkeys(names, said)
    return found
