"""The parts of configs that the user has given to earlier commands.

A run whose network or loss is the user's own class is a file like any other to the next command, and whoever forges a
run can write that name into it. So what was given is remembered where no bundle can write: in the user's state folder.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

__all__ = ["remember", "remembered"]

logger = logging.getLogger("medseg")

_now: set[str] = set()  # remembered by this process, also where the folder cannot be written


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
