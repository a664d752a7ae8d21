"""One config tree from its layers, with the origin of every value.

A layer says what differs: ``a::b`` replaces a value below ``a``, ``+a`` extends a list or a mapping, ``~a`` removes.
The layers of a bundle that is built are base, family, recipe and plan; those of a command are the bundle's config,
overlays and what the user says. MONAI's parser is handed the result and merges nothing itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medseg.errors import ConfigError, nearest
from medseg.storage import read_yaml_lines

__all__ = ["FILES", "Layer", "Recipe", "Tree", "ValueOrigin", "leaves", "split_id"]

FILES = ("bundle", "overlay")  # kinds of origin that anybody may have written


@dataclass(frozen=True)
class ValueOrigin:
    """Where a value of a config comes from.

    Attributes:
        kind: ``base``, ``plan``, ``bundle``, ``overlay``, ``user``, or ``command`` for what a command itself sets.
        place: file or option.
        line: line of the file.
        reason: why it is so, where a plan knows.
    """

    kind: str
    place: str = ""
    line: int | None = None
    reason: str = ""

    @property
    def where(self) -> str:
        """Such as ``train.yaml:3``, ``--set`` or ``plan``."""
        return f"{self.place}:{self.line}" if self.line else self.place or self.kind

    def __str__(self) -> str:
        return ", ".join(filter(None, (self.where, self.reason)))

    @property
    def words(self) -> str:
        """Such as ``configs/train.yaml, line 3`` in a sentence."""
        return f"{self.place}, line {self.line}" if self.line else self.place or self.kind


@dataclass(frozen=True)
class Layer:
    """What one source says: config id, with ``::``, ``+`` and ``~`` -> value.

    Attributes:
        changes: the entries in their order.
        kind: as of ``ValueOrigin``.
        place: the file, or the option.
        lines: id -> line in the file.
        reasons: id -> why, for the values below it too.
    """

    changes: Mapping[str, Any]
    kind: str
    place: str = ""
    lines: Mapping[str, int] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, path: str | Path, kind: str) -> Layer:
        """A config file as it stands.

        Raises:
            ConfigError: as ``read_yaml``; a key that is not the name of an id.
        """
        content, lines = read_yaml_lines(path)
        odd = next((key for key in content if not isinstance(key, str) or not key.strip("+~:# ")), None)
        if odd is not None:
            raise ConfigError(f"{path}: {odd!r} is not a valid key; expected the name of an id. Rename it.")
        return cls(content, kind, str(path), lines)

    def origin(self, key: str, below: str = "") -> ValueOrigin:
        """Of the value that entry ``key`` gives, or of ``below`` in it."""
        line = next((self.lines[name] for name in _upwards(key, below) if name in self.lines), None)
        name = key.lstrip("+~")
        reason = next((self.reasons[id_] for id_ in _upwards(name, below) if id_ in self.reasons), "")
        return ValueOrigin(self.kind, self.place, line, reason)


class Tree(dict[str, Any]):
    """The content of a config; what it lacks is a fault of the files that it is from (``where``)."""

    where = ""

    def __missing__(self, key: str) -> Any:
        raise ConfigError(
            f"{self.where or 'The config'} has no '{key}', which configs of medseg have; restore it, or name another."
        )


@dataclass(frozen=True)
class Recipe:
    """A config tree and, for every value in it, its origin.

    Attributes:
        tree: plain mappings, lists and values.
        origins: id of a leaf -> origin.
    """

    tree: Tree = field(default_factory=Tree)
    origins: Mapping[str, ValueOrigin] = field(default_factory=dict)

    @classmethod
    def of(cls, *layers: Layer) -> Recipe:
        """The layers in their order, each over those before.

        Raises:
            ConfigError: as ``over``.
        """
        recipe = cls()
        for layer in layers:
            recipe = recipe.over(layer)
        return recipe

    def over(self, layer: Layer) -> Recipe:
        """This recipe, changed by a further layer.

        Raises:
            ConfigError: an entry is below something that is not there, or extends or removes it.
        """
        tree, origins = deepcopy(self.tree), dict(self.origins)
        if layer.kind in FILES:
            tree.where = " + ".join(filter(None, (tree.where, layer.place)))
        for key, value in layer.changes.items():
            name = "::".join(_counted(tree, split_id(key)))
            place = f"{layer.origin(key).words}: " if layer.place else ""
            _put(tree, key, deepcopy(value), place)
            for old in [id_ for id_ in origins if _is_below(id_, name)]:
                del origins[old]
            if not key.startswith("~"):
                found = _find(tree, split_id(key))
                origins |= {
                    "::".join(filter(None, (name, below))): layer.origin(key, below) for below, _ in leaves(found)
                }
        return Recipe(tree, origins)

    def origin(self, id_: str) -> ValueOrigin | None:
        """Of a value, of what contains it, or of the first value below it; ``None`` where there is none."""
        above = next((self.origins[name] for name in _upwards(id_, "") if name in self.origins), None)
        return above or next((found for name, found in self.origins.items() if _is_below(name, id_)), None)

    @property
    def reasons(self) -> dict[str, str]:
        """Id of a leaf -> why it is so; empty where that is not known."""
        return {id_: origin.reason for id_, origin in self.origins.items()}

    def is_from_file(self, id_: str) -> bool:
        """Whether a value, or any below it, is from a file that anybody may have written; so is what has no origin."""
        above = next((self.origins[name] for name in _upwards(id_, "") if name in self.origins), None)
        found = [above] if above else [origin for name, origin in self.origins.items() if _is_below(name, id_)]
        return not found or any(origin.kind in FILES for origin in found)

    def value(self, id_: str) -> Any:
        """The content of an id.

        Raises:
            ConfigError: there is none, with the nearest.
        """
        found = _find(self.tree, split_id(id_), _MISSING)
        if found is _MISSING:
            raise ConfigError(f"The config has no '{id_}'.{nearest(id_, [*self.tree, *self.origins])}")
        return found


_MISSING = object()


def split_id(key: str) -> list[str]:
    """``"+a::b"`` or ``"a#b"`` -> ``["a", "b"]``."""
    return key.lstrip("+~").replace("#", "::").split("::")


def leaves(value: Any, above: str = "") -> Iterator[tuple[str, Any]]:
    """Id and value of all below ``value`` that is not a mapping or list with content; its own id is empty."""
    items: Any = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    if not items or (isinstance(value, list) and not value):
        yield above, value
        return
    for key, item in items:
        yield from leaves(item, f"{above}::{key}" if above else str(key))


def _upwards(name: str, below: str) -> Iterator[str]:
    """The ids of a value and of all that it lies in, from the inside out."""
    parts = [*name.replace("#", "::").split("::"), *filter(None, below.split("::"))]
    for end in range(len(parts), 0, -1):
        yield "::".join(parts[:end])


def _is_below(id_: str, name: str) -> bool:
    return id_ == name or id_.startswith(f"{name}::")


def _step(found: Any, part: str) -> Any:
    if isinstance(found, Mapping):
        return found.get(part, found.get(int(part), _MISSING) if part.isdecimal() else _MISSING)
    if isinstance(found, list) and part.lstrip("-").isdecimal() and -len(found) <= int(part) < len(found):
        return found[int(part)]
    return _MISSING


def _counted(tree: Any, parts: list[str]) -> list[str]:
    """The parts of an id with list indices counted from the start."""
    found: Any = tree
    counted = []
    for part in parts:
        if isinstance(found, list) and part.startswith("-") and part[1:].isdecimal() and int(part) + len(found) >= 0:
            part = str(int(part) + len(found))
        counted.append(part)
        found = _step(found, part)
    return counted


def _find(tree: Any, parts: list[str], default: Any = None) -> Any:
    for part in parts:
        tree = _step(tree, part)
        if tree is _MISSING:
            return default
    return tree


def _put(tree: dict[str, Any], key: str, value: Any, place: str) -> None:
    *above, last = split_id(key)
    parent = _find(tree, above, _MISSING)
    old = _step(parent, last)
    if isinstance(parent, list) and old is not _MISSING:
        slot: Any = int(last)
    elif isinstance(parent, dict):
        slot = int(last) if last not in parent and last.isdecimal() and int(last) in parent else last
    else:
        raise ConfigError(f"{place}'{key}' is below something that the config does not hold; check its id.")
    if key[0] not in "+~":
        parent[slot] = value
        return
    if old is _MISSING:
        raise ConfigError(f"{place}'{key}' changes what the config does not hold; check its id.")
    if key[0] == "~":
        del parent[slot]
    elif isinstance(old, list) and isinstance(value, list):
        parent[slot] = [*old, *value]
    elif isinstance(old, dict) and isinstance(value, dict):
        parent[slot] = {**old, **value}
    else:
        raise ConfigError(f"{place}'{key}' extends a list with a list, or a mapping with a mapping. Leave out the +.")
