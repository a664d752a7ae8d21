"""Datalists: Decathlon JSON with folds, subjects and a label space.

``{"name": ..., "modality": {"0": "CT"}, "labels": {"0": "background", "1": "liver"}, "training": [{"image": ...,
"label": ..., "fold": 0, "subject": "s1"}], "validation": [...], "test": [...]}``. Paths are relative to ``data_dir``;
``image`` is a path or a list of channels; optional per case: ``fold``, ``subject``, ``modality``, ``dataset``,
``case_id`` and keys of one's own; optional at the top: ``regions``, ``ignore`` and ``codes`` beside ``labels``, or a
whole ``label_space`` (see ``medseg.labels``), ``known_overlaps``, and ``data_dir``, the
base directory for relative paths where that is not the file's folder.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from medseg.data.datalist import Datalist
from medseg.data.datalist_form import DIVIDED, ROOT, SECTIONS, UNION_SUFFIXES, check_keys, holds_cases, to_text
from medseg.data.entry import Entry, cases_of, read_entry
from medseg.data.union import read_union, union_table
from medseg.errors import DataError
from medseg.faults import unwrapped
from medseg.labels import LabelSpace, check_name
from medseg.shipped import find_list
from medseg.storage import read_table_bytes, whole_file

__all__ = ["read_datalist", "read_scored_labels", "root_entry", "write_datalist"]


@unwrapped()
def read_datalist(path: str | Path, data_dir: str | Path | None = None) -> Datalist:
    """Read a datalist, or a union of several (``medseg.data.union``). No image is opened.

    Args:
        path: JSON file, YAML file of a union, or name of a shipped list.
        data_dir: base directory of relative paths; default: the list's own, or the file's folder.

    Raises:
        DataError: the file is missing or not a valid datalist; the sentence names the entry.
    """
    path = find_list(path)
    if path.suffix in UNION_SUFFIXES:
        return _datalist(*_read_union(path, data_dir), path)
    root = None if data_dir is None else Path(data_dir)
    return _read_json(path, root, (_stamp(path), None if root is None else _stamp(root)))


def _stamp(path: Path) -> tuple[object, ...]:
    """What changes when a path comes to lead to another file or folder, or the file is written."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return ()
    written = (status.st_size, status.st_mtime_ns, status.st_ctime_ns) if path.is_file() else ()
    return (Path.cwd() / path, status.st_dev, status.st_ino, *written)


def _datalist(table: dict[str, Any], root: Path, path: Path, content: bytes = b"") -> Datalist:
    """The checked content of a file."""
    sections = _read_sections(table, root, path)
    check_keys(table, path)
    overlaps = table.get("known_overlaps", [])
    if not isinstance(overlaps, list):
        raise DataError(f"{path}: 'known_overlaps' is {overlaps!r}; expected a list of cases or subjects.")
    try:
        space = LabelSpace.from_table(_label_table(table))
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    datalist = Datalist(
        path=path,
        data_dir=root,
        name=check_name(str(table.get("name") or path.stem), "Data set name"),
        channels=_channels(table, path),
        label_space=space,
        sections=cases_of(sections, root, path),
        known_overlaps=frozenset(str(item) for item in overlaps),
        table=table,
        content=content,
    )
    datalist.check()
    return datalist


def _label_table(table: Mapping[str, Any]) -> Mapping[str, Any]:
    """A list's whole label space, or its label table."""
    plain = {"labels": {}} | {key: table[key] for key in ("labels", "regions", "ignore", "codes") if key in table}
    found: Mapping[str, Any] = table.get("label_space") or plain
    return found


@unwrapped()
def read_scored_labels(path: str | Path) -> LabelSpace:
    """What the values of label maps mean, of those that are scored and not learned: regions need not be nested.

    Args:
        path: a datalist, ``dataset.json`` of nnU-Net or the Decathlon, ``{"labels": {name: value}}``, or the name of a
            shipped list.

    Raises:
        DataError: it has no valid label table.
    """
    path = find_list(path)
    if path.suffix in UNION_SUFFIXES:
        return read_datalist(path).label_space
    table, _ = read_table_bytes(path, "an object with 'labels'")
    try:
        return LabelSpace.from_table({**_label_table(table), "mode": "softmax"})
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


@lru_cache(maxsize=8)  # a config names its list once for each section
def _read_json(path: Path, data_dir: Path | None, stamps: object) -> Datalist:
    """The datalist of a JSON file; the base directory of its paths is by default its own ``data_dir``. With equal
    ``stamps`` it is read once.
    """
    if not path.is_file():
        raise DataError(
            f"Datalist {path} not found. Create one with `medseg datalist --images DIR --labels DIR --output {path}`."
        )
    table, content = read_table_bytes(path, "an object with a 'training' section")
    own = table.get(ROOT, ".")
    if data_dir is None and not isinstance(own, str):
        raise DataError(f"{path}: '{ROOT}' is {own!r}; expected the base directory of relative paths.")
    return _datalist(table, data_dir or path.parent / own, path, b"" if ROOT in table else content)


def _read_union(path: Path, data_dir: str | Path | None) -> tuple[dict[str, Any], Path]:
    union = read_union(path)
    base = path.parent if data_dir is None else Path(data_dir)
    lists = {
        part.name: read_datalist(path.parent / part.json_list, base / part.data_dir if part.data_dir else None)
        for part in union.parts
        if part.json_list
    }
    return union_table(union, lists)


def _read_sections(table: Mapping[str, Any], root: Path, path: Path) -> dict[str, list[Entry]]:
    """The checked entries by section; all that are wrong are named at once."""
    listed = [key for key, value in table.items() if key in SECTIONS or key == "testing" or holds_cases(value)]
    if "training" not in table:
        raise DataError(
            f"{path} has sections {', '.join(listed) or 'none'}; need 'training'. Create a datalist with `medseg "
            "datalist --images DIR --labels DIR --output FILE`."
        )
    for key in listed:
        check_name(key, "Section name")
        if not isinstance(table[key], list):
            raise DataError(f"Section '{key}' of {path} is a {type(table[key]).__name__}; make it a list of cases.")
    if not table["training"]:
        raise DataError(f"Section 'training' of {path} is empty; add cases with 'image' and 'label'.")
    if not root.is_dir():
        raise DataError(f"Data folder {root} not found; name the folder of the images with --data_dir.")
    sections: dict[str, list[Entry]] = {key: [] for key in SECTIONS}
    wrong = []
    for key in listed:
        section = sections.setdefault("test" if key == "testing" else key, [])  # the Decathlon archives use either
        for number, entry in enumerate(table[key]):
            try:
                section.append(read_entry(entry, f"{key}[{number}]", root, labelled=key in DIVIDED))
            except DataError as error:
                wrong.append(str(error))
    if len(wrong) == 1:
        raise DataError(f"{path}: {wrong[0]}")
    if wrong:
        raise DataError(f"{path}: {len(wrong)} entries are wrong:\n  " + "\n  ".join(wrong))
    return sections


def write_datalist(table: Mapping[str, Any], path: str | Path, data_dir: str | Path | None = None) -> Path:
    """Write a datalist, whole or not at all, one case per line, and check it as a reader does; returns
    its path.

    Raises:
        DataError: the table is not a valid datalist; a file that was there before is left.
    """
    path = Path(path)
    text = to_text(table)
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
        _datalist(json.loads(text), Path(data_dir or path.parent), path)
    return path


def root_entry(root: Path, folder: Path) -> dict[str, str]:
    """The entry of a list in ``folder`` whose paths lead from ``root``, so that it can be read without ``data_dir``:
    relative where one folder holds the other and both may be moved together; none where they are one.
    """
    root, folder = root.resolve(), folder.resolve()
    if root == folder:
        return {}
    together = root.is_relative_to(folder) or folder.is_relative_to(root)
    return {ROOT: Path(os.path.relpath(root, folder) if together else root).as_posix()}


def _channels(table: Mapping[str, Any], path: Path) -> tuple[str, ...]:
    modality = table.get("modality", table.get("channel_names", {}))
    if isinstance(modality, str):
        modality = [modality]
    if isinstance(modality, list):
        modality = {str(number): name for number, name in enumerate(modality)}
    if not isinstance(modality, Mapping) or not all(str(key).isdigit() for key in modality):
        raise DataError(f'{path}: \'modality\' is {modality!r}; expected for example {{"0": "T1", "1": "FLAIR"}}.')
    return tuple(check_name(str(modality[key]), "Modality name") for key in sorted(modality, key=int))
