"""BIDS: images in ``sub-*[/ses-*]/<kind>/``, labels below ``derivatives/`` as ``*_dseg`` or ``*_mask``.

A case is a subject's session (and run); its subject stays in one fold. A channel is named by what a file's name has
besides them, such as ``T1w`` or ``ce-gadolinium_T1w``.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medseg.data.entry import Entry
from medseg.data.layouts import Found, image_files
from medseg.data.layouts.pairs import compile_pattern
from medseg.errors import ConfigError, DataError, few
from medseg.storage import read_table
from medseg.transforms.reader import stem_of

__all__ = ["TITLE", "read", "recognises"]

TITLE = "BIDS"

_CASE = ("sub", "ses", "run")  # entities that name a case; the others name what was measured
_SUFFIXES = ("dseg", "mask")


def recognises(folder: Path) -> bool:
    """Whether there is a description of BIDS, or subjects' folders."""
    return (folder / "dataset_description.json").is_file() or any(path.is_dir() for path in folder.glob("sub-*"))


def read(
    folder: Path,
    *,
    labels: str | Path | None = None,
    label_pattern: str | None = None,
    channels: Mapping[str, str] | None = None,
    modality: Sequence[str] = (),
) -> Found:
    """Sessions that have a label are training cases, the others test cases.

    Args:
        folder: holds the subjects' folders.
        labels: folder of the labels; default ``derivatives``.
        label_pattern: file names of the labels, such as ``{case}_label-lesion_mask``, where there are several kinds.
        channels: name -> pattern of its files' names.
        modality: channels, by the names in this module's sense; default: those that every labelled case has.

    Raises:
        ConfigError: the kind of label or the channels have to be chosen.
        DataError: no label is found, or a labelled case lacks a channel.
    """
    label_dir = Path(labels) if labels is not None else folder / "derivatives"
    if not label_dir.resolve().is_relative_to(folder.resolve()):
        raise ConfigError(f"--labels {label_dir} lies outside of {folder}; name a folder in it, or use --layout pairs.")
    label_files = _labels(label_dir, label_pattern)
    images = _channels_of(_below(folder, label_dir), channels or {})
    missing = sorted(set(label_files) - set(images))
    if missing:
        raise DataError(
            f"{label_dir} labels {len(missing)} cases that have no image in {folder}: {few(missing)}. Add the images, "
            "or remove the labels."
        )
    names = _chosen([images[case] for case in label_files], list(modality) or list(channels or {}), folder)
    for case in label_files:
        lacking = [name for name in names if name not in images[case]]
        if lacking:
            raise DataError(f"{case} has no {few(lacking)} in {folder}; add the image, or leave its label out.")
    training = [
        _case(case, images[case], names) | {"label": label_files[case], "subject": _subject(case)}
        for case in sorted(label_files)
    ]
    others = sorted(case for case in set(images) - set(label_files) if set(names) <= set(images[case]))
    description = folder / "dataset_description.json"
    name = read_table(description, "an object with 'Name'").get("Name") if description.is_file() else None
    found = Found(
        str(name or folder.resolve().name),
        folder.resolve(),
        {"training": training, "validation": [], "test": [_case(case, images[case], names) for case in others]},
        names,
        _table(label_files[training[0]["case_id"]], label_dir),
    )
    if others:
        found.notes.append(f"{len(others)} cases have no label and go to the test section: {few(others)}.")
    participants = folder / "participants.tsv"
    rows = {row.get("participant_id", ""): row for row in _rows(participants)} if participants.is_file() else {}
    found.traits = {case["case_id"]: rows.get(case["subject"], {}) for case in training}
    return found


def _entities(stem: str) -> tuple[str, str]:
    """The case and what is measured: ``sub-1_ses-2_ce-x_T1w`` -> ``sub-1_ses-2``, ``ce-x_T1w``."""
    parts = stem.split("_")
    case = [part for part in parts if part.partition("-")[0] in _CASE and "-" in part]
    return "_".join(case), "_".join(part for part in parts if part not in case)


def _subject(case: str) -> str:
    return case.partition("_")[0]


def _below(folder: Path, label_dir: Path) -> list[Path]:
    """Image files of the subjects' folders."""
    subjects = [path for path in sorted(folder.glob("sub-*")) if path.is_dir()]
    files = [file for subject in subjects for file in image_files(subject, "**/*")]
    return [file for file in files if not file.is_relative_to(label_dir)]


def _channels_of(files: Sequence[Path], patterns: Mapping[str, str]) -> dict[str, dict[str, Path]]:
    """Entry -> channel -> file."""
    found: dict[str, dict[str, Path]] = {}
    for file in files:
        case, channel = _entities(stem_of(file))
        keys = [(case, channel)]
        if patterns:
            matches = {name: compile_pattern(pattern).fullmatch(file.name) for name, pattern in patterns.items()}
            keys = [(match["case"], name) for name, match in matches.items() if match]
        for case, channel in keys:
            other = found.setdefault(case, {}).setdefault(channel, file)
            if other != file:
                raise DataError(
                    f"{other} and {file.name} are both '{channel}' of {case}; expected one file. Tell them apart with "
                    "--channel NAME=PATTERN."
                )
    return found


def _chosen(cases: Sequence[Mapping[str, Path]], names: Sequence[str], folder: Path) -> list[str]:
    """The channels asked for, or those that all labelled cases have."""
    every = sorted(set().union(*cases))
    unknown = [name for name in names if name not in every]
    if unknown:
        raise ConfigError(f"{folder} has no {few(unknown)}; --modality names channels among {', '.join(every)}.")
    common = list(names) or [name for name in every if all(name in case for case in cases)]
    if not common:
        raise ConfigError(
            f"The labelled cases of {folder} have no channel in common; choose from {', '.join(every)} with "
            "--modality, and remove the labels of cases that lack it."
        )
    return common


def _labels(folder: Path, pattern: str | None) -> dict[str, Path]:
    """Entry -> its label."""
    files = image_files(folder, "**/*") if folder.is_dir() else []
    kinds: dict[str, dict[str, list[Path]]] = {}
    for file in files:
        case, kind = _entities(stem_of(file))
        if pattern is not None:
            match = compile_pattern(pattern).fullmatch(file.name)
            if match is None:
                continue
            case, kind = match["case"], pattern
        elif stem_of(file).rpartition("_")[2] not in _SUFFIXES:
            continue
        kinds.setdefault(kind, {}).setdefault(case, []).append(file)
    if len(kinds) != 1:
        what = f"several kinds of labels ({', '.join(sorted(kinds))})" if kinds else "no labels *_dseg or *_mask"
        example = sorted(kinds)[0] if kinds else "desc-manual_seg"
        raise ConfigError(
            f"{folder} holds {what}; choose with --labels and --label_pattern, such as '{{case}}_{example}'."
        )
    (found,) = kinds.values()
    for case, several in found.items():
        if len(several) > 1:
            raise ConfigError(
                f"{case} has {len(several)} labels, {several[0]} and {several[1]}; choose their folder with --labels."
            )
    return {case: paths[0] for case, paths in sorted(found.items())}


def _case(case: str, images: Mapping[str, Path], names: Sequence[str]) -> Entry:
    return {"case_id": case, "image": [images[name] for name in names]}


def _table(label: Path, folder: Path) -> dict[str, Any]:
    """Names of the label values: the ``index`` and ``name`` of a ``*dseg.tsv`` beside the label or above it, of a mask
    its own name.
    """
    kind = _entities(stem_of(label))[1]
    if kind.endswith("mask"):
        match = re.search(r"(?:label|desc)-([A-Za-z0-9]+)", kind)
        return {"0": "background", "1": match[1] if match else "mask"}
    for place in (label.parent, *label.parents):
        if not place.is_relative_to(folder):
            break
        tables = (place / f"{stem_of(label)}.tsv", place / f"{kind}.tsv", place / "dseg.tsv")
        table = next((path for path in tables if path.is_file()), None)
        if table is not None:
            rows = {row.get("index", ""): row.get("name", "") for row in _rows(table)}
            if not all(index.isdigit() and name for index, name in rows.items()):
                raise DataError(f"{table} has no 'index' and 'name' in every row; expected both. Fix the table.")
            return {"0": "background"} | rows
    return {}


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        return [{key: value or "" for key, value in row.items() if key} for row in csv.DictReader(file, delimiter="\t")]
