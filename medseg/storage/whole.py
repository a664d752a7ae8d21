"""Write a file whole or not at all: to a temporary name beside it, flushed, then renamed; JSON from frozen values."""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any

from medseg.faults import as_ours

__all__ = ["as_table", "whole_file", "write_json", "write_text"]


@contextlib.contextmanager
def whole_file(path: str | Path, *, flush: bool = True) -> Iterator[Path]:
    """Gives the temporary name to write to, of the same suffix in the same folder, which is made if need be. At the
    end it takes the place of ``path``; after an error or an interrupt it is removed, and what was there before stays.

    ``flush``: wait until the disk has it; many small files that can be made again go without.

    Raises:
        ResourceError: the disk is full, read-only or out of reach.
        ConfigError: the name is too long, or a folder.
    """
    path = Path(path)
    temporary = path.with_name(f".partial_{os.getpid()}_{path.name}")  # processes may write one file
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        if flush:
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and str(error.filename) == str(temporary):
            error.filename = str(path)  # the name that the user knows
        ours = as_ours(error, path) if isinstance(error, Exception) else None
        if ours is None or ours is error:
            raise
        kept = " The old file is kept." if path.is_file() else ""
        raise type(ours)(f"{ours}{kept}") from error


def write_text(path: str | Path, text: str) -> None:
    """Write a text file in UTF-8.

    Raises:
        MedsegError: as ``whole_file``; a character that UTF-8 cannot hold, as in a file name of another encoding.
    """
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, content: Any) -> None:
    """Write plain values and dataclasses as JSON, one entry a line; NaN, which JSON lacks, becomes null.

    Raises:
        MedsegError: as ``write_text``.
    """
    write_text(path, json.dumps(_defined(content), indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def as_table(value: Any) -> dict[str, Any]:
    """Field -> value of a dataclass; a field that has its default, such as ``None`` for "not recorded", is skipped.

    The underscore at the end of a name that Python keeps for itself (``from_``) is not part of the key.
    """
    table = {}
    for field in fields(value):
        default = field.default if field.default_factory is MISSING else field.default_factory()
        if default is MISSING or getattr(value, field.name) != default:
            table[field.name.rstrip("_")] = getattr(value, field.name)
    return table


def _defined(value: Any) -> Any:
    if is_dataclass(value):
        value = as_table(value)
    if isinstance(value, Mapping):
        return {key: _defined(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_defined(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
