"""Read a JSON file, and say in a sentence where it is not valid."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from medseg.errors import DataError

__all__ = ["read_json", "read_table"]


def read_json(path: str | Path) -> Any:
    """The content of a JSON file.

    Raises:
        DataError: missing, not readable, or not valid JSON; with line and column.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path} not found; expected a JSON file. Mend the path.")
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path}, line {error.lineno}, column {error.colno}: not valid JSON ({error.msg}). Mend that line."
        ) from error
    except (UnicodeDecodeError, OSError) as error:
        raise DataError(f"{path} cannot be read ({error}); expected a JSON text file in UTF-8.") from error


def read_table(path: str | Path, what: str) -> dict[str, Any]:
    """The content of a JSON file that holds one object, such as ``what``: "an object with a 'training' section".

    Raises:
        DataError: as ``read_json``, or no object.
    """
    table = read_json(path)
    if not isinstance(table, dict):
        raise DataError(f"{path} holds a {type(table).__name__}; expected {what}.")
    return table
