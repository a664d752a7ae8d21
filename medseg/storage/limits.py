"""What a text file from outside may hold: limits far above any real one, below what stops a program."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

__all__ = ["OutOfLimits", "check_limits", "decoded", "read_bytes", "read_text"]

_LARGEST = 256 << 20  # bytes; a datalist of a million cases
_DEEPEST = 64  # lists and mappings inside one another
_LARGEST_INTEGER = 2**63  # as every number of a config or a header has room for


class OutOfLimits(ValueError):
    """The reason in a few words."""


def read_bytes(path: Path) -> bytes:
    """The content of a file of text.

    Raises:
        OutOfLimits: too large.
        OSError: not readable.
    """
    size = path.stat().st_size
    if size > _LARGEST:
        raise OutOfLimits(f"{size >> 20} MiB, more than {_LARGEST >> 20}")
    return path.read_bytes()


def decoded(content: bytes) -> str:
    """The text of a UTF-8 file.

    Raises:
        OutOfLimits: not UTF-8.
    """
    try:
        return io.TextIOWrapper(io.BytesIO(content), encoding="utf-8-sig").read()
    except UnicodeDecodeError as error:
        raise OutOfLimits(f"byte {error.start} is not UTF-8") from error


def read_text(path: Path) -> str:
    """The content of a UTF-8 file as a string.

    Raises:
        OutOfLimits: too large, or not UTF-8.
        OSError: not readable.
    """
    return decoded(read_bytes(path))


def check_limits(content: Any) -> None:
    """Refuse content nested too deeply, integers of more than 64 bits, and strings that no file name or file can hold.

    Raises:
        OutOfLimits: with the reason.
    """
    level = [content]
    for _ in range(_DEEPEST):
        below: list[Any] = []
        for value in level:
            if isinstance(value, dict):
                below += value
                below += value.values()
            elif isinstance(value, (list, tuple)):
                below += value
            elif isinstance(value, int) and not -_LARGEST_INTEGER <= value < _LARGEST_INTEGER:
                raise OutOfLimits("an integer has more than 64 bits")
            elif isinstance(value, str) and ("\0" in value or any("\ud800" <= c <= "\udfff" for c in value)):
                raise OutOfLimits(f"{value[:40]!r} holds a character that is not text")
            elif not isinstance(value, (str, int, float, type(None))):
                raise OutOfLimits(f"a value of type {type(value).__name__} is not plain")
        if not below:
            return
        level = below
    raise OutOfLimits(f"lists and mappings are nested more than {_DEEPEST} deep")
