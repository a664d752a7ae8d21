"""Which configs may run without being asked about: those that are built from medseg's, MONAI's and torch's parts.

MONAI evaluates every text that begins with ``$`` and calls every ``_target_`` with the arguments beside it, so a config
is a program. Before a config is evaluated, whoever wrote it, it is held against this rule:

* A ``_target_`` is a literal dotted path, or a bare name of MONAI's, of a class that ``_PARTS`` defines, of a function
  that medseg's own among them define, or one of ``_NAMES``. That of ``network_def`` may also be an ``nn.Module`` class
  of the user's own, from a package outside the bundle's folder.
* An expression is built from constants, operators, lists, indices, conditions, comprehensions and calls. Its names are
  references (``@id``), a few builtins, and aliases that ``$import`` gives to those packages; the dotted path behind an
  alias leads to medseg's own parts or ``_NAMES``. Of anything else only the members in ``_MEMBERS`` are used.
* A macro (``%id``) copies from the same config, from no other file; expressions and macros have no relative ids, in
  whose place MONAI would write the names of keys.
* Arguments whose text MONAI imports (a reader, a writer) name a part; those that download or unpickle are off.

What is outside is listed with file and line, and runs only inside ``trusted_bundles()`` (``--trust_bundle``). Nothing
is evaluated to find it out. A config that keeps to the rule can still write files: where it says, as those parts do.
"""

from __future__ import annotations

import ast
import builtins
import importlib
import inspect
import types
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser, ReferenceResolver
from torch import nn

from medseg.errors import ModelError
from medseg.workflows.config_check import component_locator

__all__ = ["foreign_code", "require_trust", "trusted_bundles"]

_trusted: ContextVar[bool] = ContextVar("trusted", default=False)

_SHOWN = 5  # texts in the sentence

_OUR_FUNCTIONS = (
    "medseg.data.dataset",
    "medseg.data.loader",
    "medseg.engines",
    "medseg.inferers",
    "medseg.labels",
    "medseg.losses",
    "medseg.metrics",
    "medseg.optimizers",
    "medseg.transforms",
    "medseg.workflows.parts",
)
_PARTS = (
    *_OUR_FUNCTIONS,
    "medseg.networks",  # its functions import what they are told to
    "monai.data",
    "monai.engines",
    "monai.handlers",
    "monai.inferers",
    "monai.losses",
    "monai.metrics",
    "monai.networks",
    "monai.optimizers",
    "monai.transforms",
    "torch.nn",
    "torch.optim",
)
_PACKAGES = (*_PARTS, "medseg.data", "medseg.workflows")  # the last two pass names on
_PRE_IMPORTED = {"monai": "monai", "torch": "torch", "np": "numpy", "numpy": "numpy"}  # by MONAI's parser
_NAMES = {
    "monai.data.decollate_batch",
    "monai.data.list_data_collate",
    "monai.data.load_decathlon_datalist",
    "monai.data.partition_dataset",
    "monai.handlers.from_engine",
    "monai.utils.set_determinism",
    "numpy.inf",
    "numpy.nan",
    "torch.bfloat16",
    "torch.cuda.device_count",
    "torch.cuda.is_available",
    "torch.device",
    "torch.float16",
    "torch.float32",
}
_NETWORK = (  # modules whose classes download or send when they are built
    "monai.handlers.mlflow_handler",
    "monai.losses.perceptual",
    "monai.networks.blocks.text_embedding",
    "monai.networks.nets.transchex",
)
_BUILTINS = {"bool", "dict", "float", "int", "len", "list", "max", "min", "range", "round", "sorted", "str", "sum"}
_BUILTINS |= {"tuple", "zip"}
_MEMBERS = {"dataset", "endswith", "items", "keys", "named_parameters", "parameters", "run", "startswith"}
_MEMBERS |= {"state_dict", "to", "transforms", "values"}
_IMPORTED = {"reader", "writer", "merger_cls"}  # arguments whose text MONAI imports
_OFF = {"allow_pickle", "download", "pretrained", "pretrained_url"}
_REFERENCES = "__local_refs"  # what MONAI writes for @id before it evaluates
_NODES = (
    *(ast.Constant, ast.Name, ast.Load, ast.Attribute, ast.Call, ast.keyword, ast.Starred, ast.Subscript, ast.Slice),
    *(ast.BinOp, ast.operator, ast.UnaryOp, ast.unaryop, ast.BoolOp, ast.boolop, ast.Compare, ast.cmpop, ast.IfExp),
    *(ast.List, ast.Tuple, ast.Dict, ast.ListComp, ast.GeneratorExp, ast.DictComp, ast.comprehension, ast.Store),
)

Aliases = Mapping[str, set[str]]


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
        files: for the sentence; the first one's bundle is where no class of the user's own may come from.

    Raises:
        ModelError: naming file, line and text of what would run.
    """
    found = [] if _trusted.get() else foreign_code(config, files[0].resolve().parents[1])
    if not found:
        return
    listed = "; ".join(f"{_place(text, files)}: '{text}'" for text in found[:_SHOWN])
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    raise ModelError(
        f"The bundle would run code that is not medseg's, MONAI's or torch's: {listed}{more}. Read it, and if you "
        "trust it, run the same command with --trust_bundle."
    )


def foreign_code(config: Mapping[str, Any], bundle: Path | None = None) -> list[str]:
    """The expressions, macros, targets and arguments of a config that are outside the rule, each once.

    Args:
        config: unresolved.
        bundle: its folder.
    """
    entries = list(_entries(config))
    aliases: dict[str, set[str]] = {alias: {path} for alias, path in _PRE_IMPORTED.items()}
    for _, value in entries:
        for alias, path in _imports(value).items():
            aliases.setdefault(alias, set()).add(path)
    found = [(key, value) for key, value in entries if not _known(key, value, aliases, bundle)]
    return list(dict.fromkeys(v if isinstance(v, str) else f"{_parts(key)[-1]}: {v}" for key, v in found))


def _place(text: str, files: Sequence[Path]) -> str:
    """File and line; of a text that the file breaks into several lines, its beginning counts."""
    for begin in (text, text.splitlines()[0][:40] if text.strip() else text):
        for file in files:
            for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
                if begin in line or begin.replace('"', '\\"') in line or begin.replace("'", "''") in line:
                    return f"{file}, line {number}"
    return " + ".join(file.name for file in files)


def _entries(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every id below ``value`` that holds no list or mapping, and every ``_target_``."""
    items: Any = value.items() if isinstance(value, Mapping) else enumerate(value)
    for key, item in items:
        name = f"{prefix}::{key}" if prefix else str(key)
        if isinstance(item, (Mapping, list)):
            yield from _entries(item, name)
        if not isinstance(item, (Mapping, list)) or _parts(name)[-1] == "_target_":
            yield name, item


def _parts(key: str) -> list[str]:
    return ReferenceResolver.split_id(key)


def _known(key: str, value: Any, aliases: Aliases, bundle: Path | None) -> bool:
    names = _parts(key)
    if names[-1] == "_target_":
        own = names[-2:] == ["network_def", "_target_"] and isinstance(value, str) and _is_own_network(value, bundle)
        return isinstance(value, str) and (_is_part(_full_path(value)) or own or _is_misspelt(value))
    if names[-1] == "_mode_":
        return value == "default"
    if _OFF & set(names):
        return not value
    if not isinstance(value, str):
        return True
    if _IMPORTED & set(names):
        return _known_import(value, aliases)
    if value[:1] in ("$", "%") and ConfigParser.relative_id_prefix.search(ReferenceResolver.normalize_id(value)):
        return False  # MONAI would write the names of keys into the text
    if value.startswith("$"):
        return _known_expression(value, aliases)
    return not (value.startswith("%") and ConfigParser.split_path_id(value[1:])[0])


# ---------------------------------------------------------------------- dotted paths
@cache
def _full_path(target: str) -> str:
    """A bare name of MONAI's -> its dotted path, as MONAI's parser finds it."""
    if "." in target:
        return target
    module = component_locator().get_component_module_name(target)
    return f"{module[0] if isinstance(module, list) else module}.{target}"


def _below(path: str, packages: Collection[str]) -> bool:
    return any(path == package or path.startswith(f"{package}.") for package in packages)


@cache
def _is_part(path: str, ours: bool = False) -> bool:
    """Whether a dotted path names a part that may be used as it is; ``ours``: one of medseg's own, or of ``_NAMES``."""
    if path in _NAMES:
        return True
    found = _look_up(path)
    home = getattr(found, "__module__", None) or ""
    if found is None or _below(home, _NETWORK):
        return False
    if inspect.isclass(found):
        return _below(home, _PARTS) and (not ours or home.startswith("medseg."))
    return callable(found) and _below(home, _OUR_FUNCTIONS)


def _is_misspelt(path: str) -> bool:
    """Whether nothing of that name is in a package of medseg's, so that nothing could run: the config's check names the
    nearest.
    """
    owner, _, name = path.rpartition(".")
    return owner in _PARTS and owner.startswith("medseg.") and not hasattr(importlib.import_module(owner), name)


def _look_up(path: str) -> Any:
    """The object behind a dotted path, or ``None``: never through a private name, nor another package's module."""
    package = max((p for p in _PACKAGES if _below(path, (p,))), key=len, default=None)
    names = path[len(package) + 1 :].split(".") if package else []
    if package is None or not all(name.isidentifier() and not name.startswith("_") for name in names):
        return None
    found: Any = importlib.import_module(package)
    for name in names:
        if isinstance(found, types.ModuleType) and not hasattr(found, name):
            try:
                found = importlib.import_module(f"{found.__name__}.{name}")
            except ImportError:
                return None
        else:
            found = getattr(found, name, None)
        if isinstance(found, types.ModuleType) and not _below(found.__name__, _PACKAGES):
            return None
    return None if isinstance(found, types.ModuleType) else found


def _is_own_network(path: str, bundle: Path | None) -> bool:
    """Whether a dotted path is a network class of the user's own: installed, and no part of the bundle."""
    module, _, name = path.rpartition(".")
    top = module.partition(".")[0]
    spec = PathFinder.find_spec(top) if top.isidentifier() else None
    places = [spec.origin, *(spec.submodule_search_locations or ())] if spec is not None else []
    folders = [Path(place).resolve() for place in places if place]
    if not folders or (bundle is not None and any(folder.is_relative_to(bundle) for folder in folders)):
        return False
    try:
        found = getattr(importlib.import_module(module), name, None)
    except ImportError:
        return False
    return inspect.isclass(found) and issubclass(found, nn.Module)


# ---------------------------------------------------------------------- expressions
def _imports(value: Any) -> dict[str, str]:
    """Alias -> dotted path of an import expression; empty for anything else."""
    if not isinstance(value, str) or not value.startswith("$"):
        return {}
    try:
        node = ast.parse(value[1:].strip()).body[0]
    except (SyntaxError, ValueError, IndexError):
        return {}
    if not isinstance(node, (ast.Import, ast.ImportFrom)):
        return {}
    prefix = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
    return {name.asname or name.name: prefix + name.name for name in node.names}


def _known_import(text: str, aliases: Aliases) -> bool:
    """Whether the text of an argument that MONAI imports is a name of its own, or names a part."""
    if text[:1] in ("@", "%"):
        return False
    if text.startswith("$"):
        tree = _parsed(text)
        return isinstance(tree, (ast.Attribute, ast.Name)) and _known_names(tree, aliases)
    return _is_part(text) if "." in text else not hasattr(builtins, text)


def _known_expression(text: str, aliases: Aliases) -> bool:
    imported = _imports(text)
    if imported:
        return all(path in _PRE_IMPORTED.values() or _below(path, _PACKAGES) for path in imported.values())
    tree = _parsed(text)
    nodes = list(ast.walk(tree)) if tree is not None else []
    bound = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    if tree is None or not all(isinstance(node, _NODES) for node in nodes) or bound & {_REFERENCES, *aliases}:
        return False
    return _known_names(tree, aliases, bound)


def _parsed(text: str) -> ast.expr | None:
    """The expression that MONAI would evaluate, after its own replacements in the text."""
    text = ReferenceResolver.normalize_id(text)[1:]
    text = ReferenceResolver.id_matcher.sub(lambda match: f"{_REFERENCES}['{match[0][1:]}']", text)
    try:
        return ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError):
        return None


def _known_names(node: ast.AST, aliases: Aliases, bound: Collection[str] = ()) -> bool:
    """Whether the names and members below a node are known; a dotted path is judged as a whole.

    ``bound``: names that comprehensions give.
    """
    if isinstance(node, (ast.Name, ast.Attribute)):
        first, _, rest = _dotted(node).partition(".")
        if first in aliases:
            return all(_is_part(f"{path}.{rest}" if rest else path, ours=True) for path in aliases[first])
        if isinstance(node, ast.Name):
            return node.id == _REFERENCES or node.id in _BUILTINS or node.id in bound
        return node.attr in _MEMBERS and _known_names(node.value, aliases, bound)
    return all(_known_names(child, aliases, bound) for child in ast.iter_child_nodes(node))


def _dotted(node: ast.expr) -> str:
    """``a.b.c`` where a name begins it, else an empty string."""
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(names)]) if isinstance(node, ast.Name) else ""
