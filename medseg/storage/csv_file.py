"""The one writer of CSV: a cell that a spreadsheet would take for a formula becomes text."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TextIO

__all__ = ["CsvWriter"]

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")  # also their wide forms


class CsvWriter:
    """Writes rows to an open file (``newline=""``): sequences, or mappings of the columns.

    Names of cases, labels and runs come from files and folders of others, and spreadsheets run ``=HYPERLINK(…)``. Such
    a cell gets an apostrophe in front, as spreadsheets write text; numbers such as ``-0.5`` stay as they are.

    Args:
        file: file to write to.
        columns: columns of rows that are mappings; what a row lacks is empty.
        lineterminator: end of a row.
    """

    def __init__(self, file: TextIO, columns: Sequence[str] = (), *, lineterminator: str = "\r\n") -> None:
        self._writer = csv.writer(file, lineterminator=lineterminator)
        self.columns = columns

    def writeheader(self) -> None:
        self.writerow(self.columns)

    def writerow(self, row: Mapping[str, Any] | Iterable[Any]) -> None:
        cells = [row.get(column, "") for column in self.columns] if isinstance(row, Mapping) else row
        self._writer.writerow([_cell(cell) for cell in cells])

    def writerows(self, rows: Iterable[Mapping[str, Any] | Iterable[Any]]) -> None:
        for row in rows:
            self.writerow(row)


def _cell(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) and not _is_number(value) else value


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return text == text.strip()
