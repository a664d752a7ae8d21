"""Which configs may run without being asked about: those whose every expression and component is medseg's, MONAI's or
torch's.

A MONAI config can hold any Python as ``$…`` and any callable as ``_target_``; a bundle from elsewhere could do anything
as soon as it is parsed. So before a config is evaluated, each of these is held against a rule:

- ``$import`` of a public package of medseg only;
- in expressions: references (``@id``), literals, operators, comprehensions, a few builtins (``len``, ``str``, …), what
  the imported packages list in ``__all__``, and attributes that do not begin with an underscore;
- ``_target_``: a public name of medseg, a class of MONAI's or torch's packages for components, or any ``nn.Module``
  class that is installed here (a network of the user's own);
- ``%`` macros within the same file.

What is outside is listed with file and line, and runs only inside ``trusted_bundles()`` (``--trust_bundle``).
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from torch import nn

from medseg.errors import ModelError
from medseg.workflows.config_check import component_locator

__all__ = ["foreign_code", "require_trust", "trusted_bundles"]

_trusted: ContextVar[bool] = ContextVar("trusted", default=False)

_PACKAGES = ("bundle", "data", "engines", "inferers", "labels", "losses", "metrics", "networks", "optimizers")
_MEDSEG = tuple(f"medseg.{name}" for name in (*_PACKAGES, "transforms", "workflows"))
_MONAI = ("data", "engines", "handlers", "inferers", "losses", "metrics", "networks", "optimizers", "transforms")
_LIBRARIES = (*(f"monai.{name}" for name in _MONAI), "torch.nn", "torch.optim", "torch.utils.data")
_BUILTINS = {"abs", "bool", "dict", "float", "int", "len", "list", "max", "min", "range", "round", "sorted", "str"}
_BUILTINS |= {"sum", "tuple", "zip"}
_REFERENCE = re.compile(r"@[\w:#]+")
_NODES = (
    *(ast.Expression, ast.Call, ast.keyword, ast.Attribute, ast.Name, ast.Constant, ast.Load, ast.Store, ast.Starred),
    *(ast.BinOp, ast.BoolOp, ast.UnaryOp, ast.Compare, ast.IfExp, ast.operator, ast.boolop, ast.unaryop, ast.cmpop),
    *(ast.List, ast.Tuple, ast.Dict, ast.Set, ast.Subscript, ast.Slice, ast.ListComp, ast.GeneratorExp, ast.DictComp),
    *(ast.SetComp, ast.comprehension, ast.Lambda, ast.arguments, ast.arg, ast.JoinedStr, ast.FormattedValue),
)


@contextmanager
def trusted_bundles(trust: bool = True) -> Iterator[None]:
    """Inside, bundles are evaluated whatever their configs hold: the user has read them, or medseg wrote them."""
    token = _trusted.set(trust or _trusted.get())
    try:
        yield
    finally:
        _trusted.reset(token)


def require_trust(config: Mapping[str, Any], files: Sequence[Path]) -> None:
    """Refuse a config that would run code outside the rule.

    Args:
        config: the merged content of ``files``, unresolved.
        files: for the sentence.

    Raises:
        ModelError: naming file, line and text of what would run.
    """
    found = [] if _trusted.get() else foreign_code(config)
    if not found:
        return
    listed = "; ".join(f"{_place(text, files)}: '{text}'" for text in found[:5])
    more = f" and {len(found) - 5} more" if len(found) > 5 else ""
    raise ModelError(
        f"The bundle would run code that is not medseg's, MONAI's or torch's: {listed}{more}. Read it, and if you "
        "trust it, run the same command with --trust_bundle."
    )


def foreign_code(config: Mapping[str, Any]) -> list[str]:
    """The expressions, macros and targets of a config that are outside the rule, each once."""
    texts = list(dict.fromkeys(_texts(config)))
    imports = [imported for text, _ in texts if (imported := _imported(text)) is not None]
    aliases = {alias: module for module, alias in imports if module in _MEDSEG}
    return list(dict.fromkeys(text for text, target in texts if not _allowed(text, target, aliases)))


def _texts(value: Any, key: str = "") -> Iterator[tuple[str, bool]]:
    """Every text of a config, and whether it is a ``_target_``."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from _texts(item, str(name))
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, str):
        yield value, key == "_target_"


def _allowed(text: str, target: bool, aliases: Mapping[str, str]) -> bool:
    if text.startswith("$"):
        imported = _imported(text)
        return not target and (imported[0] in _MEDSEG if imported else _allowed_expression(text[1:], aliases))
    if text.startswith("%"):
        return "::" not in text or not re.search(r"\.(json|ya?ml)::", text)
    return not target or text.startswith("@") or _allowed_target(text)


def _imported(text: str) -> tuple[str, str] | None:
    """``$import a.b as c`` -> (a.b, c); ``None`` for any other text, and an unknown module for other imports."""
    try:
        node = ast.parse(text[1:].strip()).body[0] if text.startswith("$") else None
    except (SyntaxError, IndexError):
        return None
    if isinstance(node, ast.Import) and len(node.names) == 1:
        return node.names[0].name, node.names[0].asname or ""
    return ("", "") if isinstance(node, (ast.Import, ast.ImportFrom)) else None


def _allowed_expression(text: str, aliases: Mapping[str, str]) -> bool:
    try:
        tree = ast.parse(_REFERENCE.sub("_reference", text).strip(), mode="eval")
    except (SyntaxError, ValueError):
        return False
    nodes = list(ast.walk(tree))
    bound = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    bound |= {node.arg for node in nodes if isinstance(node, ast.arg)}
    known = bound | _BUILTINS | {"_reference"}
    owners = {id(node.value) for node in nodes if isinstance(node, ast.Attribute)}
    for node in nodes:
        if not isinstance(node, _NODES):
            return False
        if isinstance(node, ast.Attribute):
            package = aliases.get(node.value.id) if isinstance(node.value, ast.Name) else None
            if node.attr.startswith("_") or (package and node.attr not in importlib.import_module(package).__all__):
                return False
        if isinstance(node, ast.Name) and node.id not in known and not (node.id in aliases and id(node) in owners):
            return False
    return True


def _allowed_target(target: str) -> bool:
    if "." not in target:  # MONAI looks bare names up among its own components
        places = component_locator().get_component_module_name(target)
        target = f"{places[0] if isinstance(places, list) else places}.{target}"
    owner, _, name = target.rpartition(".")
    if owner == "medseg.labels.LabelSpace":
        return not name.startswith("_")
    try:
        module = importlib.import_module(owner)
    except (ImportError, ValueError):
        return False
    if owner in _MEDSEG and name in module.__all__:
        return True
    found = getattr(module, name, None)
    if found is None and owner in _MEDSEG:
        return True  # nothing there that could run; the config's check names the nearest
    if not inspect.isclass(found):
        return False
    return found.__module__.startswith(tuple(f"{library}." for library in _LIBRARIES)) or issubclass(found, nn.Module)


def _place(text: str, files: Sequence[Path]) -> str:
    for file in files:
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
            if text in line or text.replace('"', '\\"') in line:
                return f"{file}, line {number}"
    return " + ".join(file.name for file in files)
