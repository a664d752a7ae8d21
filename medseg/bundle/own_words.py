"""What the user said: the texts that this command was given, and the parts that earlier ones were.

A run whose network or loss is the user's own class is a file like any other to the next command, and whoever forges a
run can write that name into it. So what was given is remembered where no bundle can write: in the user's state folder.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import json
import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

__all__ = ["own_words", "remember", "remembered", "said", "user_speaks"]

_P = ParamSpec("_P")
_R = TypeVar("_R")

logger = logging.getLogger("medseg")

_words: ContextVar[frozenset[str] | None] = ContextVar("own_words", default=None)
_now: set[str] = set()  # remembered by this process, also where the folder cannot be written


@contextmanager
def own_words(*values: Any) -> Iterator[None]:
    """Inside, every text in ``values``, and the place that it names as a path, counts as the user's own."""
    token = _words.set(said() | {text for value in values for text in _texts(value)})
    try:
        yield
    finally:
        _words.reset(token)


def user_speaks(*names: str) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """Decorator of what people call: the arguments of these names, or the fields of a settings value, are the user's
    own words.

    Of one such function that calls another, the outer one's count: what it adds may come from a file.
    """

    def decorate(function: Callable[_P, _R]) -> Callable[_P, _R]:
        bind = inspect.signature(function).bind

        @functools.wraps(function)
        def speaking(*args: _P.args, **arguments: _P.kwargs) -> _R:
            given = {} if _words.get() is not None else dict(bind(*args, **arguments).arguments)
            for value in [*given.values()]:
                given |= vars(value) if is_dataclass(value) else {}
            with own_words(*(given[name] for name in names if name in given)):
                return function(*args, **arguments)

        return speaking

    return decorate


def said() -> frozenset[str]:
    """The texts that are the user's own in this command."""
    return _words.get() or frozenset()


def remember(parts: Mapping[str, Any]) -> None:
    """Keep config parts (id -> content) that name own components, for later commands of this user on this machine."""
    known = _lines()
    fresh = [line for line in (f"{name}={_form(part)}" for name, part in parts.items()) if line not in known]
    if not fresh:
        return
    _now.update(fresh)
    path = _file()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write("".join(f"{line}\n" for line in fresh))
    except OSError as error:
        logger.warning(
            "%s cannot be written (%s): later commands on this run need --trust_bundle", path, error.strerror or error
        )


def remembered() -> Callable[[str, Any], bool]:
    """Whether a config's part (id, content) is one that was kept."""
    lines = _lines()
    names = {line.partition("=")[0] for line in lines}
    return lambda name, part: name in names and f"{name}={_form(part)}" in lines


def _lines() -> set[str]:
    try:
        return _now | set(_file().read_text(encoding="utf-8").splitlines())
    except (OSError, ValueError):
        return _now


def _form(part: Any) -> str:
    return json.dumps(part, sort_keys=True, default=str)


def _file() -> Path:
    """``medseg/own_parts.txt`` in the user's state folder, as the platform has it."""
    home = Path.home()
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = home / "Library" / "Application Support"
    else:
        base = home / ".local" / "state"
    return Path(os.environ.get("XDG_STATE_HOME") or base) / "medseg" / "own_parts.txt"


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, (str, Path)):
        yield str(value)
        with contextlib.suppress(OSError, ValueError, RuntimeError):  # too long for a path, or none
            yield str(Path(value).expanduser().resolve())
    for item in value.values() if isinstance(value, Mapping) else value if isinstance(value, (list, tuple)) else ():
        yield from _texts(item)
