"""Read YAML safely: plain values only, every key once, and no more of them than the file seems to hold."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from medseg.errors import ConfigError, DataError, MedsegError
from medseg.storage.json_file import read_table_bytes
from medseg.storage.limits import OutOfLimits, check_limits, decoded, read_text

__all__ = ["parse_yaml", "read_yaml", "read_yaml_lines"]

_LARGEST = 2 << 20  # bytes; a hundred times the largest config, and a few seconds for the parser
_MOST_VALUES = 200_000  # once all aliases are written out
_DEEPEST = 2000  # levels that libyaml certainly holds on its stack
_PYTHON = "tag:yaml.org,2002:python"


def read_yaml(path: str | Path, error: type[MedsegError] = ConfigError) -> dict[str, Any]:
    """The mapping that a YAML (or JSON) file holds.

    Args:
        path: the file.
        error: class of what is raised.

    Raises:
        MedsegError: missing, not readable, or what ``parse_yaml`` refuses; with file and line.
    """
    return read_yaml_lines(path, error)[0]


def read_yaml_lines(path: str | Path, error: type[MedsegError] = ConfigError) -> tuple[dict[str, Any], dict[str, int]]:
    """The mapping that a YAML or JSON file holds, and the line of every id in it (``a::b``).

    Raises:
        MedsegError: as ``read_yaml``.
    """
    path = Path(path)
    if path.suffix == ".json":
        try:
            content, written = read_table_bytes(path, "an object; restore it")
        except DataError as reason:
            raise error(str(reason)) from reason
        with contextlib.suppress(yaml.YAMLError):  # JSON is YAML, but for tabs
            node = _composed(decoded(written))
            return content, {} if node is None else dict(_lines(node, ""))
        return content, {}
    try:
        if not path.is_file():
            raise error(f"{path} not found; expected a YAML file. Fix the path.")
        text = read_text(path)
    except OutOfLimits as reason:
        raise error(f"{path} cannot be read ({reason}); expected a YAML text file in UTF-8.") from reason
    except OSError as reason:
        raise error(f"{path} cannot be read ({reason.strerror}); expected a YAML text file in UTF-8.") from reason
    content, node = _parsed(text, str(path), error)
    if not isinstance(content, dict):
        raise error(f"{path} is not a mapping; expected a mapping, in 'key: value' lines.")
    return content, dict(_lines(node, ""))


def _lines(node: yaml.Node, above: str) -> Iterator[tuple[str, int]]:
    pairs: list[tuple[str, int, yaml.Node]] = []
    if isinstance(node, yaml.MappingNode):
        pairs = [(str(key.value), key.start_mark.line, value) for key, value in node.value]
    elif isinstance(node, yaml.SequenceNode):
        pairs = [(str(number), value.start_mark.line, value) for number, value in enumerate(node.value)]
    for name, line, value in pairs:
        id_ = f"{above}::{name}" if above else name
        yield id_, line + 1
        yield from _lines(value, id_)


def parse_yaml(text: str, where: str) -> Any:
    """The value of a YAML text; ``where`` is the name of the content in sentences, such as its file.

    Raises:
        ConfigError: not valid YAML, a key that is there twice, a tag that would build Python objects, aliases that
        refer to themselves or stand for too many values, or content beyond the limits of ``limits.py``.
    """
    return _parsed(text, where, ConfigError)[0]


def _parsed(text: str, where: str, error: type[MedsegError]) -> tuple[Any, Any]:
    """The value, and the node that it was made from."""
    if len(text) > _LARGEST:
        raise error(f"{where} has more than {_LARGEST >> 20} MiB of YAML; expected a config. Name another file.")
    try:
        node = _composed(text)
        if node is None:
            return None, None
        _count(node, [], {}, lambda place, reason: error(f"{where}, line {place.start_mark.line + 1}: {reason}"))
        content = _Constructor().construct_document(node)
        check_limits(content)
    except yaml.YAMLError as reason:
        mark = getattr(reason, "problem_mark", None)
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = getattr(reason, "problem", None) or getattr(reason, "reason", None) or "not a YAML document"
        raise error(f"{where}{place}: not valid YAML ({problem}). Fix that line.") from reason
    except RecursionError as reason:
        raise error(f"{where} is nested too deeply; expected plain mappings and lists. Write it again.") from reason
    except OutOfLimits as reason:
        raise error(f"{where} cannot be used ({reason}); fix that value.") from reason
    except (ValueError, OverflowError, TypeError, AttributeError) as reason:  # numbers and dates that are none
        problem = str(reason).splitlines()[0] if str(reason) else type(reason).__name__
        raise error(f"{where}: not valid YAML ({problem[:80]}). Fix that value, or quote it.") from reason
    return content, node


def _composed(text: str) -> yaml.Node | None:
    """The node of a text, by libyaml, which is ten times as fast as the parser in Python.

    What libyaml refuses, the other one says better; and what may be nested deeply would end the process in libyaml, and
    raises RecursionError in Python. Every level takes one of the characters that are counted.
    """
    if yaml.__with_libyaml__ and sum(map(text.count, "[{-?:")) < _DEEPEST:
        with contextlib.suppress(yaml.YAMLError):
            return yaml.compose(text, Loader=yaml.CSafeLoader)
    return yaml.compose(text, Loader=yaml.SafeLoader)


class _Constructor(yaml.constructor.SafeConstructor):
    """Builds plain values from nodes; dates stay strings."""


_Constructor.add_constructor("tag:yaml.org,2002:timestamp", lambda own, node: str(node.value))


def _count(
    node: yaml.Node, above: list[int], sizes: dict[int, int], refusal: Callable[[yaml.Node, str], MedsegError]
) -> int:
    """How many values a node stands for, aliases written out; refuses what no config needs."""
    if id(node) in above:
        raise refusal(node, "a value that refers to itself; write it out.")
    if id(node) in sizes:
        return sizes[id(node)]
    if node.tag.startswith(_PYTHON):
        raise refusal(node, f"'{node.tag}' would build Python objects; refused.")
    below: list[yaml.Node] = []
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise refusal(key, "a key is a list or a mapping; write a name.")
            if key.value in seen:
                raise refusal(key, f"key '{key.value}' appears twice; keep one.")
            seen.add(key.value)
            below += [key, value]
    elif isinstance(node, yaml.SequenceNode):
        below = node.value
    path = [*above, id(node)]
    size = 1 + sum(_count(item, path, sizes, refusal) for item in below)
    if size > _MOST_VALUES:
        raise refusal(node, f"aliases stand for more than {_MOST_VALUES} values; write out what is meant.")
    sizes[id(node)] = size
    return size
