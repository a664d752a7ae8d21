"""Tables of a training: CSV files whose rows belong to epochs."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from medseg.errors import DataError
from medseg.faults import unwrapped
from medseg.storage import whole_file
from medseg.storage.csv_file import CsvWriter
from medseg.storage.limits import OutOfLimits, read_text

__all__ = ["EPOCHS", "LABELS", "LOSSES", "EpochTable", "read_rows"]

EPOCHS = ("epoch", "iteration", "loss", "learning_rate", "mean_dice", "seconds")  # of metrics.csv
LOSSES = ("epoch", "iteration", "loss")  # of losses.csv
LABELS = ("epoch", "label", "dice")  # of validation_dice.csv: means over the validation cases


class EpochTable:
    """A CSV file that grows with the epochs.

    Args:
        path: file.
        columns: names of the columns; the first is ``epoch``.
    """

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self.path, self.columns = path, columns

    def restart(self, epoch: int) -> None:
        """Keep the rows of earlier epochs; one without its last column was being written when the run was killed."""
        rows = [row for row in read_rows(self.path) if row.get(self.columns[-1]) and int(row["epoch"]) < epoch]
        with whole_file(self.path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = CsvWriter(file, self.columns)
            writer.writeheader()
            writer.writerows(rows)

    def add(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Append rows."""
        with unwrapped(self.path), self.path.open("a", newline="", encoding="utf-8") as file:
            CsvWriter(file, self.columns).writerows(rows)


def read_rows(path: str | Path) -> list[dict[str, str]]:
    """The rows of such a file; empty if it does not exist.

    Raises:
        DataError: it is damaged.
    """
    path = Path(path)
    if not path.is_file():
        return []
    try:
        rows = list(csv.DictReader(read_text(path).splitlines(), strict=True))
    except (OutOfLimits, csv.Error) as error:
        raise _damaged(path, error) from error
    for row in rows:
        if not str(row.get("epoch") or "").isascii() or not str(row.get("epoch") or "").isdigit():
            raise _damaged(path, "a row without 'epoch'")
    return rows


def _damaged(path: Path, reason: object) -> DataError:
    return DataError(f"{path} is damaged ({reason}); remove it: the run resumes without its earlier curves.")
