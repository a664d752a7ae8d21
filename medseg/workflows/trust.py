"""What a bundle's configs may run without the user being asked.

MONAI evaluates every text that begins with ``$`` and calls every ``_target_`` with the arguments beside it, so a config
is a program. A bundle runs as it stands if all its configs keep to this rule, whoever wrote it; else what is outside
is listed, and ``--allow_expressions`` runs it.

* A ``_target_`` is a literal dotted path, or a bare name of MONAI's, of a class that ``_PARTS`` defines, of a function
  that medseg's own among them define, or one of ``_NAMES``.
* An expression is built from constants, operators, lists, indices, ``a if b else c`` and calls. Its names are
  references (``@id``), a few builtins, and aliases that ``$import`` gives to those packages; the dotted path behind an
  alias leads to medseg's own parts or ``_NAMES``. Of anything else only the members in ``_MEMBERS`` are used.
* A macro (``%id``) copies from the same bundle, from no other file; expressions and macros have no relative ids.
* Arguments whose text MONAI imports (a reader, a writer) name a part; those that download or unpickle are off.

Nothing is evaluated to find this out, and nothing imported but modules of ``_PARTS``. A bundle that keeps to the rule
can still write files: where its configs say, as those parts do.
"""

from __future__ import annotations

import ast
import builtins
import importlib
import inspect
import types
from collections.abc import Collection, Iterator, Mapping
from functools import cache
from typing import Any

from monai.bundle import ConfigParser, ReferenceResolver
from monai.bundle.config_item import ComponentLocator

__all__ = ["foreign_parts"]

_OUR_FUNCTIONS = (
    "medseg.data.dataset",
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
    *(ast.List, ast.Tuple, ast.Dict),
)

Aliases = Mapping[str, set[str]]


def foreign_parts(configs: Mapping[str, Mapping[str, Any]], named: Collection[str] = ()) -> list[str]:
    """What the configs of one bundle would run beyond the rule of this module, as ``file, id: text``.

    Args:
        configs: file name -> content as loaded, unresolved.
        named: dotted paths that the user named in this call, such as the class of a network.
    """
    entries = [(file, key, value) for file, config in configs.items() for key, value in _entries(config)]
    aliases: dict[str, set[str]] = {alias: {path} for alias, path in _PRE_IMPORTED.items()}
    for _, _, value in entries:
        for alias, path in _imports(value).items():
            aliases.setdefault(alias, set()).add(path)
    return [f"{file}, {key}: {value}" for file, key, value in entries if not _known(key, value, aliases, named)]


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


def _known(key: str, value: Any, aliases: Aliases, named: Collection[str]) -> bool:
    names = _parts(key)
    if names[-1] == "_target_":
        return isinstance(value, str) and (value in named or _is_part(_full_path(value)))
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
    module = _locator().get_component_module_name(target)
    return f"{module[0] if isinstance(module, list) else module}.{target}"


@cache
def _locator() -> ComponentLocator:
    return ComponentLocator()


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
    return tree is not None and all(isinstance(n, _NODES) for n in ast.walk(tree)) and _known_names(tree, aliases)


def _parsed(text: str) -> ast.expr | None:
    """The expression that MONAI would evaluate, after its own replacements in the text."""
    text = ReferenceResolver.normalize_id(text)[1:]
    text = ReferenceResolver.id_matcher.sub(lambda match: f"{_REFERENCES}['{match[0][1:]}']", text)
    try:
        return ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError):
        return None


def _known_names(node: ast.AST, aliases: Aliases) -> bool:
    """Whether the names and members below a node are known; a dotted path is judged as a whole."""
    if isinstance(node, (ast.Name, ast.Attribute)):
        first, _, rest = _dotted(node).partition(".")
        if first in aliases:
            return all(_is_part(f"{path}.{rest}" if rest else path, ours=True) for path in aliases[first])
        if isinstance(node, ast.Name):
            return node.id == _REFERENCES or node.id in _BUILTINS
        return node.attr in _MEMBERS and _known_names(node.value, aliases)
    return all(_known_names(child, aliases) for child in ast.iter_child_nodes(node))


def _dotted(node: ast.expr) -> str:
    """``a.b.c`` where a name begins it, else an empty string."""
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(names)]) if isinstance(node, ast.Name) else ""
