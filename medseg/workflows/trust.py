"""Which configs may run without being asked about; ``bundles/SECURITY.md`` states what this protects and what not.

MONAI evaluates every text that begins with ``$`` and calls every ``_target_`` with the arguments beside it, so a config
is a program. What is evaluated is one tree: files, overlays and overrides merged, macros and relative ids replaced.
That tree is held against this rule before anything in it is imported or evaluated:

* A ``_target_`` is one of ``known_parts.components()``, called in the default way, or one of ``CALLABLES``.
* An expression is known by its form (``expressions``) and names only what ``known_parts`` lists.
* A macro (``%id``) copies from the same config; references are finite, and their content stays of a sane size.
* What components write lies in the folder of the run or of the results; nothing downloads or unpickles.

What the user said is the user's own word and passes (``own_words``): the overrides, the output folder, the network.
Anything else is listed with file and line, and runs only inside ``trusted_bundles()`` (``--trust_bundle``).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from copy import deepcopy
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser, ReferenceResolver

from medseg.errors import ConfigError, ModelError
from medseg.workflows.expressions import PRE_IMPORTED, Known, count_loops, imported, joined, references
from medseg.workflows.known_parts import CALLABLES, INSIDE, WRITES, components, is_misspelt
from medseg.workflows.own_words import remember, remembered, said

__all__ = [
    "foreign_code",
    "is_trusted",
    "judged",
    "remember_own",
    "require_own_folder",
    "require_trust",
    "trusted_bundles",
]

_trusted: ContextVar[bool] = ContextVar("trusted", default=False)

_SHOWN = 5  # texts in the sentence
_OFF = {"_debug_", "allow_pickle", "download", "pretrained", "pretrained_url"}
_LARGEST = 10**7  # characters with every reference written out; the largest shipped config comes to 5 * 10**4
_ROUNDS = 8  # of macros that copy macros
_SEPARATOR = ReferenceResolver.sep
_CODE = (".py", ".pyc", ".pyd", ".so")


@contextmanager
def trusted_bundles(trust: bool = True) -> Iterator[None]:
    """Inside, bundles are evaluated whatever their configs hold: the user has read them."""
    token = _trusted.set(trust or _trusted.get())
    try:
        yield
    finally:
        _trusted.reset(token)


def is_trusted() -> bool:
    return _trusted.get()


def judged(tree: Mapping[str, Any], files: Sequence[Path]) -> dict[str, Any]:
    """The tree that may be evaluated: macros and relative ids replaced, held against the rule before and after.

    Args:
        tree: merged config files and overrides; ``_meta_`` holds the metadata.
        files: for the sentence.

    Raises:
        ModelError: naming file, line and text of what would run.
        ConfigError: a macro of nothing, or references without end.
    """
    require_trust(tree, files)
    result = _expanded(tree, files)
    require_trust(result, files)
    return result


def require_trust(tree: Mapping[str, Any], files: Sequence[Path]) -> None:
    """Refuse a tree that would run code outside the rule.

    Raises:
        ModelError: naming file, line and text of what would run.
        ConfigError: references without end.
    """
    if _trusted.get():
        return
    names = " + ".join(file.name for file in files)
    size = _Tree(tree).size()
    if size > _LARGEST:
        what = "refers to itself" if size == float("inf") else f"comes to {size:.1g} characters"
        raise ConfigError(
            f"{names} {what} when its references and macros are written out, at most {_LARGEST:.0e} are sane; "
            "write each reference once."
        )
    found = foreign_code(tree)
    if found:
        listed = "; ".join(f"{_place(text, files)}: '{text}'" for text in found[:_SHOWN])
        more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        raise ModelError(
            f"The bundle would run code that is not medseg's, MONAI's or torch's, or write outside its folder: "
            f"{listed}{more}. Read it, and if you trust it, run the same command with --trust_bundle."
        )


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


def _expanded(tree: Mapping[str, Any], files: Sequence[Path]) -> dict[str, Any]:
    """The tree after MONAI's own replacements, which a further parsing leaves as it is."""
    parser = ConfigParser(deepcopy(dict(tree)))
    for _ in range(_ROUNDS):
        before = deepcopy(parser.get())
        try:
            parser.resolve_macro_and_relative_ids()
        except (KeyError, ValueError, IndexError, OSError) as error:
            names = " + ".join(file.name for file in files)
            raise ConfigError(f"{names}: a macro or relative id leads to nothing ({error}); check its id.") from error
        if parser.get() == before:
            return before
    raise ConfigError(f"{files[0]}: macros copy macros more than {_ROUNDS} times; write the content itself.")


def foreign_code(tree: Mapping[str, Any]) -> list[str]:
    """What a tree holds that is outside the rule and is not the user's own word, each once."""
    config = _Tree(tree)
    aliases: dict[str, set[str]] = {alias: {path} for alias, path in PRE_IMPORTED.items()}
    for _, value in config.entries:
        for alias, path in (_imports(value) or {}).items():
            aliases.setdefault(alias, set()).add(path)
    known = Known(aliases, config.plain, config.is_inside)
    found = [
        (names, value)
        for names, value in config.entries
        if not config.is_own(names, value) and not _is_known(names, value, known, config)
    ]
    shown = (value if _says_itself(value) else f"{names[-1]}: {value}" for names, value in found)
    return list(dict.fromkeys(shown))


def remember_own(parts: Mapping[str, Any]) -> None:
    """Keep what the user gives as components (id -> content) where it is outside the rule: later commands run it.

    Of a network, its class alone is kept: ``network_def::_target_``.
    """
    names = components()
    remember({name: part for name, part in parts.items() if not _targets({name: part}) <= names})


def _targets(parts: Mapping[str, Any]) -> set[str]:
    return {value for names, value in _entries(parts) if names[-1] == "_target_" and isinstance(value, str)}


def _says_itself(value: Any) -> bool:
    return isinstance(value, str) and not value.startswith(("/", "@"))


def _imports(value: Any) -> dict[str, str] | None:
    return imported(value) if isinstance(value, str) and value.startswith("$") else None


def _is_known(names: Sequence[str], value: Any, known: Known, config: _Tree) -> bool:
    """Whether a leaf of the tree, or a ``_target_``, is inside the rule."""
    name = names[-1]
    if name == "_target_":
        return isinstance(value, str) and (value in components() or is_misspelt(value))
    if name == "_mode_":
        target = config.get(_SEPARATOR.join((*names[:-1], "_target_")))
        return value == "default" or (value == "callable" and target in CALLABLES)
    if _OFF & set(names):
        return not value
    if name in WRITES and isinstance(value, (str, Mapping)) and not config.is_inside(_SEPARATOR.join(names)):
        return False
    if not isinstance(value, str):
        return True
    if value[:1] in ("$", "%") and ConfigParser.relative_id_prefix.search(ReferenceResolver.normalize_id(value)):
        return False  # MONAI would write the names of keys into the text
    if value.startswith("$"):
        return known(value)
    return not (value.startswith("%") and ConfigParser.split_path_id(value[1:])[0])


def _place(text: str, files: Sequence[Path]) -> str:
    """File and line; of a text that the file breaks into several lines, its beginning counts."""
    value = text.partition(": ")[2] or text
    for begin in (text, value, value.splitlines()[0][:40] if value.strip() else value):
        for file in files:
            for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
                if begin in line or begin.replace('"', '\\"') in line or begin.replace("'", "''") in line:
                    return f"{file}, line {number}"
    return " + ".join(file.name for file in files)


class _Tree:
    """A config and what its ids hold, unresolved."""

    def __init__(self, tree: Mapping[str, Any]) -> None:
        self.tree = tree
        self.entries = list(_entries(tree))
        self.own = said()
        self._kept = remembered()
        self._sizes: dict[str, float] = {}

    def is_own(self, names: Sequence[str], value: Any) -> bool:
        """Whether the user said it in this command, or gave it, or what contains it, to an earlier one."""
        ids = (_SEPARATOR.join(names[:end]) for end in range(1, len(names) + 1))
        return (isinstance(value, str) and value in self.own) or any(self._kept(name, self.get(name)) for name in ids)

    def get(self, name: str) -> Any:
        """The content of an id; ``None`` where there is none."""
        found: Any = self.tree
        for part in ReferenceResolver.split_id(name) if name else ():
            if isinstance(found, Mapping):
                found = found.get(part, found.get(int(part)) if part.isdecimal() else None)
            elif isinstance(found, list) and part.isdecimal() and int(part) < len(found):
                found = found[int(part)]
            else:
                return None
        return found

    def plain(self, name: str) -> Any:
        """The content of an id through plain references such as ``"@epochs"``."""
        for _ in range(20):
            value = self.get(name)
            if not (isinstance(value, str) and value.startswith("@")):
                return value
            name = value[1:]
        return None

    def is_inside(self, name: str, depth: int = 0) -> bool:
        """Whether an id holds a path below ``bundle_root`` or below a folder that the user named; nothing is one too.

        Such a path is written ``@id``, as the component ``inside`` or as ``$@id + '/…'``, and leads there by ids of
        the same kind.
        """
        value = self.get(name)
        if isinstance(value, Mapping):  # ``inside`` itself refuses names that lead out of its root
            root = value.get("root")
            above = root[1:] if isinstance(root, str) and root.startswith("@") else f"{name}{_SEPARATOR}root"
            return value.get("_target_") == INSIDE and root is not None and self.is_inside(above, depth + 1)
        if value is None or name == "bundle_root":
            return True
        if not isinstance(value, str) or depth > 20:
            return False
        if value in self.own:
            return True
        if value.startswith("$"):
            parts = joined(value)
            texts = [self.plain(part) if is_id else part for part, is_id in parts[1:]]
            below = all(isinstance(text, str) and text[:1] not in ("$", "%") for text in texts)
            tail = "".join(texts) if below else ""
            sound = len(parts) == 1 or (tail.startswith("/") and "\\" not in tail and ".." not in tail.split("/"))
            return bool(parts) and sound and parts[0][1] and self.is_inside(parts[0][0], depth + 1)
        if value.startswith("@"):
            return self.is_inside(value[1:], depth + 1) and self.get(value[1:]) is not None
        path, root = Path(value), self.get("bundle_root")
        roots = [Path(text) for text in (root, *self.own) if isinstance(text, str) and "\0" not in text]
        sound = path.is_absolute() and ".." not in path.parts
        return sound and any(root.is_absolute() and path.is_relative_to(root) for root in roots)

    def size(self) -> float:
        """Characters and values with every reference and macro written out; infinite where one contains itself."""
        return max((self._size_of(str(key), value) for key, value in self.tree.items()), default=0)

    def _size_of(self, name: str, value: Any) -> float:
        if name in self._sizes:
            return self._sizes[name]
        self._sizes[name] = float("inf")  # until it is known: an id that is met again contains itself
        if isinstance(value, (Mapping, list)):
            items = value.items() if isinstance(value, Mapping) else enumerate(value)
            size: float = 1
            for key, item in items:
                size += self._size_of(f"{name}{_SEPARATOR}{key}", item)
        elif isinstance(value, str):
            names = [value[1:]] if value.startswith("%") else references(value)
            size = len(value) + sum(self._size_of(ReferenceResolver.normalize_id(n), self.get(n)) for n in names)
            size = size ** (1 + count_loops(value)) if value.startswith("$") else size
        else:
            size = 1
        self._sizes[name] = size
        return size


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
