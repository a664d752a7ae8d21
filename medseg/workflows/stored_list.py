"""The datalist inside a run or bundle: a file from whoever made it, unlike one that a command line names."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from medseg.bundle.own_parts import remember, remembered
from medseg.bundle.trust import is_trusted
from medseg.data import Datalist, read_datalist
from medseg.errors import DataError

__all__ = ["read_stored_list", "remember_list"]

_LIST = "configs/datalist.json"


def read_stored_list(run: str | Path, data_dir: str | Path, file: str | Path | None = None) -> Datalist:
    """The datalist of a run or bundle; its images and labels lie below ``data_dir``.

    Args:
        run: the run or bundle.
        data_dir: base directory of the paths.
        file: another list that its configs name.

    Raises:
        DataError: it cannot be read, or an entry leaves the folder and the list is not from a training of this user.
    """
    path = Path(run) / _LIST if file is None else Path(file)
    datalist = read_datalist(path, data_dir)
    found = next(_outside(datalist), None)
    if found is not None and not is_trusted() and not remembered()(_LIST, _digest(datalist.path)):
        raise DataError(
            f"{path}: {found} leaves the data root {datalist.data_dir}. Name the folder that holds all of its files "
            "with --data_dir, or, if you trust the list, run the same command with --trust_bundle."
        )
    return datalist


def remember_list(run: str | Path, datalist: Datalist) -> None:
    """Keep that the user trained on a list whose files lie in several places; later commands read it."""
    if next(_outside(datalist), None) is not None:
        remember({_LIST: _digest(Path(run) / _LIST)})


def _outside(datalist: Datalist) -> Iterator[str]:
    """Entries that leave the data root as they are written; where the user's own links lead is the user's affair."""
    root = datalist.data_dir.absolute()
    for section, entries in datalist.table.items():
        for number, entry in enumerate(entries) if isinstance(entries, list) else ():
            for key in ("image", "label") if isinstance(entry, Mapping) else ():
                for text in _texts(entry.get(key)):
                    if not Path(os.path.normpath(root / text)).is_relative_to(os.path.normpath(root)):
                        yield f"{section}[{number}].{key} ({text})"


def _texts(value: Any) -> list[str]:
    return [text for text in (value if isinstance(value, list) else [value]) if isinstance(text, str)]


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
