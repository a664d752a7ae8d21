"""An entry of a datalist, as the JSON file has it: checked when it is read, and turned into a ``Case``."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medseg.data.case import Case, channel_files, name_cases
from medseg.data.datalist_form import ENTRY_KEYS
from medseg.errors import DataError, nearest

__all__ = ["Entry", "cases_of", "read_entry"]

Entry = dict[str, Any]  # a case as the file lists it


def read_entry(entry: Any, where: str, root: Path, *, labelled: bool) -> Entry:
    """An entry of the file with complete paths; keys of the user's own are kept.

    Args:
        entry: the JSON value; cases without a label may be listed by their path alone.
        where: place in the file, such as ``training[12]``.
        root: base directory of relative paths.
        labelled: whether a label is required.

    Raises:
        DataError: the sentence names the place.
    """
    if isinstance(entry, (str, list)) and not labelled:
        entry = {"image": entry}
    if not isinstance(entry, dict):
        raise DataError(f"{where} is {entry!r}; expected an object with 'image' and 'label'.")
    for key in entry:
        absent = [known for known in ENTRY_KEYS if known not in entry]
        if key not in ENTRY_KEYS and nearest(key, absent, 0.8):
            raise DataError(f"{where} has unknown key '{key}'.{nearest(key, absent)}")
    if not entry.get("image"):
        raise DataError(f"{where} has no 'image'. Add its path.")
    if labelled and not entry.get("label"):
        raise DataError(f"{where} has no 'label'. Add it or move the case to 'test'.")
    case = dict(entry)
    images = entry["image"] if isinstance(entry["image"], list) else [entry["image"]]
    if not all(isinstance(image, str) for image in images) or not isinstance(entry.get("label", ""), str):
        raise DataError(f"{where} must give 'image' as a path or a list of paths and 'label' as a path.")
    if "fold" in case and (not isinstance(case["fold"], int) or isinstance(case["fold"], bool) or case["fold"] < 0):
        raise DataError(f"{where} has fold {case['fold']!r}; expected an integer from 0 on.")
    if "case_id" in case:
        case["case_id"] = str(case["case_id"])  # it names output files: never a path
        if not case["case_id"].strip(". ") or re.search(r"[/\\\x00-\x1f]", case["case_id"]):
            raise DataError(f"{where} has case_id {case['case_id']!r}; expected a plain name without '/' or '\\'.")
    absolute = [_absolute(image, root) for image in images]
    case["image"] = absolute if isinstance(entry["image"], list) else absolute[0]
    if case.get("label"):
        case["label"] = _absolute(entry["label"], root)
    return case


def _absolute(file: str, root: Path) -> str:
    """A path of the list, complete; a list from Windows has backslashes."""
    path = root / file
    if "\\" in file and os.sep == "/" and not path.exists():
        path = root / file.replace("\\", "/")
    return str(path)


def cases_of(sections: Mapping[str, list[Entry]], root: Path, path: Path) -> dict[str, list[Case]]:
    """The cases of all sections. They have one namespace: equal files get equal ids, different files do not.

    Raises:
        DataError: different files with one id.
    """
    unique: dict[tuple[str, ...], Entry] = {}
    for entries in sections.values():
        for entry in entries:
            unique.setdefault(tuple(channel_files(entry)), entry)
    unnamed = [files for files, entry in unique.items() if "case_id" not in entry]
    try:
        names = dict(zip(unnamed, name_cases(unnamed, root), strict=True))
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    names |= {files: entry["case_id"] for files, entry in unique.items() if "case_id" in entry}
    owners: dict[str, tuple[str, ...]] = {}
    for files, name in names.items():
        other = owners.setdefault(name, files)
        if other != files:
            raise DataError(
                f"{path}: case id '{name}' stands for {other[0]} and {files[0]}; expected one id per case. Give each a "
                "'case_id' of its own."
            )
    return {
        section: [Case.from_entry(e, e.get("case_id") or names[tuple(channel_files(e))]) for e in entries]
        for section, entries in sections.items()
    }
