"""Read a JSON file, and say in a sentence where it is not valid."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from medseg.errors import DataError
from medseg.storage.form import as_formed
from medseg.storage.limits import OutOfLimits, check_limits, decoded, read_bytes

__all__ = ["read_json", "read_table", "read_table_bytes"]


def read_json(path: str | Path) -> Any:
    """The content of a JSON file.

    Raises:
        DataError: missing, not readable, not valid JSON (with line and column), or beyond the limits of ``limits.py``.
    """
    return _read(Path(path))[0]


def _read(path: Path) -> tuple[Any, bytes]:
    try:
        if not path.is_file():
            raise DataError(f"{path} not found; expected a JSON file. Fix the path.")
        written = read_bytes(path)
        content = json.loads(decoded(written), object_pairs_hook=lambda pairs: _unique(pairs, path))
        check_limits(content)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path}, line {error.lineno}, column {error.colno}: not valid JSON ({error.msg}). Fix that line."
        ) from error
    except RecursionError as error:
        raise DataError(f"{path} is nested too deeply; expected plain tables and lists. Write it again.") from error
    except OutOfLimits as error:
        raise DataError(f"{path} cannot be read ({error}); expected a JSON text file in UTF-8.") from error
    except ValueError as error:  # of a number with thousands of digits
        raise DataError(f"{path} cannot be read (a number has too many digits); fix that number.") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); expected a JSON text file in UTF-8.") from error
    return content, written


def _unique(pairs: list[tuple[str, Any]], path: Path) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise DataError(f"{path}: key '{twice}' appears twice in one table; keep one.")
    return content


def read_table(path: str | Path, what: str, form: Any = None) -> dict[str, Any]:
    """The content of a JSON file that holds one object.

    Args:
        path: the file.
        what: description of what is expected, such as "an object with a 'training' section".
        form: form of the object's values (``as_formed``).

    Raises:
        DataError: as ``read_json``, or another content.
    """
    return read_table_bytes(path, what, form)[0]


def read_table_bytes(path: str | Path, what: str, form: Any = None) -> tuple[dict[str, Any], bytes]:
    """``read_table``, and the bytes of the file.

    Raises:
        DataError: as ``read_table``.
    """
    try:
        table, written = _read(Path(path))
    except DataError as error:
        if form is None:
            raise
        raise DataError(f"{path} is damaged: {error}") from error
    if not isinstance(table, dict):
        raise DataError(f"{path} holds a {type(table).__name__}; expected {what}.")
    return table if form is None else as_formed(table, form, f"{path} is damaged", f"expected {what}"), written
