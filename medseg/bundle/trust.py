"""Which configs may run without being asked about; ``bundles/SECURITY.md`` states what this protects and what not.

MONAI calls every ``_target_`` of a config with the arguments beside it and evaluates every string that begins with
``$``, so a config is a program. What runs is one tree, merged from files and from what the user and the command say.
It is held against this rule before anything in it is imported or evaluated. Of every value that is from a file:

* A ``_target_`` is one of ``known_parts.components()``, called in the default way, or one of ``CALLABLES``.
* No string begins with ``$`` or ``%``: nothing is evaluated, and no other file is copied in.
* References are finite, and their content stays of a sane size.
* What components write lies in the folder of the run; nothing downloads or unpickles.

What the user says on the command line, and what medseg's base configs and plans say, passes. Anything else is listed
with file and line, and runs only inside ``trusted_bundles()`` (``--trust_bundle``).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser, ReferenceResolver

from medseg.bundle.known_parts import CALLABLES, INSIDE, WRITES, components, is_misspelt
from medseg.bundle.own_parts import remember, remembered
from medseg.bundle.recipe import Recipe, Tree
from medseg.errors import ConfigError, ModelError

__all__ = [
    "foreign_code",
    "is_trusted",
    "judged",
    "remember_own",
    "require_own_folder",
    "trusted_bundles",
]

_trusted: ContextVar[bool] = ContextVar("trusted", default=False)

_SHOWN = 5  # values in the sentence
_OFF = {"_debug_", "allow_pickle", "download", "pretrained", "pretrained_url"}
_LARGEST = 10**7  # characters with every reference written out; the largest shipped config comes to 5 * 10**4
_ROUNDS = 8  # of macros that copy macros
_SEPARATOR = ReferenceResolver.sep
_CODE = (".py", ".pyc", ".pyd", ".so")


@contextmanager
def trusted_bundles() -> Iterator[None]:
    """Inside, bundles are evaluated whatever their configs hold: the user has read them."""
    token = _trusted.set(True)
    try:
        yield
    finally:
        _trusted.reset(token)


def is_trusted() -> bool:
    return _trusted.get()


def judged(recipe: Recipe) -> Recipe:
    """The recipe that may run: held against the rule, with macros and relative ids replaced.

    Raises:
        ModelError: naming file, line and text of what would run.
        ConfigError: a macro of nothing, or references without end.
    """
    _require_trust(recipe)
    _require_sane_size(recipe.tree)
    return replace(recipe, tree=_expanded(recipe.tree))


def _expanded(tree: Tree) -> Tree:
    """The tree after MONAI's own replacements, which a further parsing leaves as it is."""
    parser = ConfigParser(deepcopy(dict(tree)))
    for _ in range(_ROUNDS):
        before = Tree(deepcopy(parser.get()))
        before.where = tree.where
        try:
            parser.resolve_macro_and_relative_ids()
        except (KeyError, ValueError, IndexError, OSError) as error:
            raise ConfigError(f"{tree.where}: a macro or relative id leads to nothing ({error}); check it.") from error
        if parser.get() == before:
            return before
    raise ConfigError(f"{tree.where}: macros copy macros more than {_ROUNDS} times; write the content itself.")


def _require_trust(recipe: Recipe) -> None:
    found = [] if _trusted.get() else foreign_code(recipe)
    if found:
        texts = list(dict.fromkeys(f"{_place(recipe, names)}: '{_shown(names, value)}'" for names, value in found))
        more = f" and {len(texts) - _SHOWN} more" if len(texts) > _SHOWN else ""
        raise ModelError(
            "The bundle would run code that is not medseg's, MONAI's or torch's, or write outside its folder: "
            f"{'; '.join(texts[:_SHOWN])}{more}. Read it, and if you trust it, run the same command with "
            "--trust_bundle."
        )


def _place(recipe: Recipe, names: Sequence[str]) -> str:
    origin = recipe.origin(_SEPARATOR.join(names))
    return origin.words if origin is not None else recipe.tree.where


def _shown(names: Sequence[str], value: Any) -> str:
    says_itself = isinstance(value, str) and not value.startswith(("/", "@"))
    return str(value) if says_itself else f"{names[-1]}: {value}"


def foreign_code(recipe: Recipe) -> list[tuple[tuple[str, ...], Any]]:
    """Names and value of each entry from a file that is outside the rule, and that the user has not given before."""
    kept = remembered()
    found = []
    for names, value in _entries(recipe.tree):
        if not recipe.is_from_file(_SEPARATOR.join(names)) or _is_known(recipe, names, value):
            continue
        above = (_SEPARATOR.join(names[:end]) for end in range(1, len(names) + 1))
        if not any(kept(id_, _get(recipe.tree, id_)) for id_ in above):
            found.append((names, value))
    return found


def _is_known(recipe: Recipe, names: Sequence[str], value: Any) -> bool:
    """Whether a leaf of the tree, or a ``_target_``, is inside the rule."""
    name = names[-1]
    if name == "_target_":
        return isinstance(value, str) and (value in components() or is_misspelt(value))
    if name == "_mode_":
        target = _get(recipe.tree, _SEPARATOR.join((*names[:-1], "_target_")))
        return value == "default" or (value == "callable" and target in CALLABLES)
    if _OFF & set(names):
        return not value
    if name in WRITES and not _is_inside(recipe, _SEPARATOR.join(names)):
        return False
    return not isinstance(value, str) or value[:1] not in ("$", "%")


def _is_inside(recipe: Recipe, id_: str, depth: int = 0) -> bool:
    """Whether an id holds a path below ``bundle_root`` or one that the user named; nothing is one too.

    Such a path is made by ``medseg.workflows.inside``, or is a reference to one, or is written in full.
    """
    value = _get(recipe.tree, id_)
    if value is None or id_ == "bundle_root" or not recipe.is_from_file(id_):
        return True
    if depth > 20:
        return False
    if isinstance(value, Mapping):
        below = value.get("_target_") == INSIDE and value.get("root") is not None and _is_below(recipe.tree, value)
        return below and _is_inside(recipe, f"{id_}{_SEPARATOR}root", depth + 1)
    if not isinstance(value, str):
        return False
    if value.startswith("@"):
        known = _get(recipe.tree, value[1:]) is not None
        return known and _is_inside(recipe, ReferenceResolver.normalize_id(value[1:]), depth + 1)
    path, root = Path(value), Path(str(recipe.tree.get("bundle_root", "")))
    return path.is_absolute() and root.is_absolute() and ".." not in path.parts and path.is_relative_to(root)


def _is_below(tree: Mapping[str, Any], inside: Mapping[str, Any]) -> bool:
    """Whether the names of the component ``inside`` stay in its root, as it requires itself."""
    name = inside.get("name")
    texts = [str(_plain(tree, part)) for part in (name if isinstance(name, list) else [name])]
    return not any(text.startswith("/") or "\\" in text or ".." in text.split("/") for text in texts)


def _plain(tree: Mapping[str, Any], value: Any) -> Any:
    """A value, through plain references such as ``"@section"``."""
    for _ in range(20):
        if not (isinstance(value, str) and value.startswith("@")):
            return value
        value = _get(tree, value[1:])
    return None


def remember_own(parts: Mapping[str, Any]) -> None:
    """Keep what the user gives as components (id -> content) where it is outside the rule: later commands run it.

    Of a network, its class alone is kept: ``network_def::_target_``.
    """
    names = components()
    remember({name: part for name, part in parts.items() if not _targets({name: part}) <= names})


def _targets(parts: Mapping[str, Any]) -> set[str]:
    return {value for names, value in _entries(parts) if names[-1] == "_target_" and isinstance(value, str)}


# ---------------------------------------------------------------------- the tree
def _entries(value: Any, above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every id below ``value`` that holds no list or mapping, and every ``_target_``, ``_mode_`` and key that MONAI
    would take for a path of several ids.
    """
    items: Any = value.items() if isinstance(value, Mapping) else enumerate(value)
    for key, item in items:
        parts = ReferenceResolver.split_id(key)
        names = (*above, *parts)
        if above and len(parts) > 1:
            yield (*above, "_target_"), f"{key}"
        if isinstance(item, (Mapping, list)):
            yield from _entries(item, names)
        if not isinstance(item, (Mapping, list)) or names[-1] in ("_target_", "_mode_", *_OFF, *WRITES):
            yield names, item


def _get(tree: Mapping[str, Any], id_: str) -> Any:
    """The content of an id; ``None`` where there is none."""
    found: Any = tree
    for part in ReferenceResolver.split_id(id_) if id_ else ():
        if isinstance(found, Mapping):
            found = found.get(part, found.get(int(part)) if part.isdecimal() else None)
        elif isinstance(found, list) and part.isdecimal() and int(part) < len(found):
            found = found[int(part)]
        else:
            return None
    return found


def _require_sane_size(tree: Tree) -> None:
    """Refuse references that contain themselves, or that come to more than a config can need.

    Raises:
        ConfigError: they do.
    """
    sizes: dict[str, float] = {}

    def size_of(name: str, value: Any) -> float:
        if name in sizes:
            return sizes[name]
        sizes[name] = float("inf")  # until it is known: an id that is met again contains itself
        size: float = 1
        if isinstance(value, (Mapping, list)):
            for key, item in value.items() if isinstance(value, Mapping) else enumerate(value):
                size += size_of(f"{name}{_SEPARATOR}{key}", item)
        elif isinstance(value, str):
            counts = ReferenceResolver.match_refs_pattern(value)
            within = ((ReferenceResolver.normalize_id(id_), count) for id_, count in counts.items())
            size = len(value) + sum(count * size_of(id_, _get(tree, id_)) for id_, count in within)
        sizes[name] = size
        return size

    size = max((size_of(str(key), value) for key, value in tree.items()), default=0)
    if size > _LARGEST and not _trusted.get():
        what = "refers to itself" if size == float("inf") else f"comes to {size:.1g} characters"
        raise ConfigError(
            f"{tree.where} {what} when its references and macros are written out, expected at most {_LARGEST:.0e}; "
            "write each reference once."
        )


# ---------------------------------------------------------------------- the folder
def require_own_folder(bundle: Path) -> None:
    """Refuse a bundle whose links lead out of it, where a run would read or write through them, and one from whose
    folder Python imports.

    Raises:
        ModelError: naming the links or the folder.
    """
    if _trusted.get():
        return
    root = bundle.resolve()
    links = [path for path in _links(root) if not path.resolve().is_relative_to(root)]
    if links:
        shown = ", ".join(str(path.relative_to(root)) for path in links[:_SHOWN])
        raise ModelError(
            f"{root} has links that lead out of it ({shown}); replace them by what they lead to, or, if you made them, "
            "run the same command with --trust_bundle."
        )
    for entry in sys.path:
        folder = Path(entry or ".").resolve()
        if folder.is_relative_to(root) and any(_is_importable(item) for item in folder.glob("*")):
            raise ModelError(
                f"{folder} is on Python's import path, so that files of the bundle would replace packages; start the "
                "command in another folder and without it in PYTHONPATH, or with --trust_bundle."
            )


def _links(root: Path) -> Iterator[Path]:
    for folder, folders, files in os.walk(root):
        yield from (Path(folder, name) for name in (*folders, *files) if Path(folder, name).is_symlink())


def _is_importable(path: Path) -> bool:
    return path.suffix in _CODE or (path / "__init__.py").is_file()
