"""Datalists: Decathlon JSON with folds, subjects and a label space.

``{"name": ..., "modality": {"0": "CT"}, "labels": {"0": "background", "1": "liver"}, "training": [{"image": ...,
"label": ..., "fold": 0, "subject": "s1"}], "validation": [...], "test": [...]}``. Paths are relative to ``data_dir``;
``image`` is a path or a list of channels; optional per case: ``fold``, ``subject``, ``modality``, ``dataset``,
``case_id`` and keys of one's own; optional at the top: ``regions`` and ``ignore`` beside ``labels``, or a whole
``label_space`` (see ``medseg.labels``), ``known_overlaps``, and ``data_dir``, the folder that paths are relative to
where that is not the file's own.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import textwrap
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from medseg.data.case import Case, channel_files, name_cases
from medseg.data.findings import Finding
from medseg.data.randomness import derive_seed
from medseg.data.shipped import find_list
from medseg.data.union import UNION_SUFFIXES, union_table
from medseg.errors import DataError, nearest, unwrapped
from medseg.labels import LabelSpace, check_name
from medseg.storage import read_table, whole_file, write_text

__all__ = ["Datalist", "Entry", "assign_folds", "read_datalist", "root_entry", "subject_of", "write_datalist"]

Entry = dict[str, Any]  # a case as the file lists it

logger = logging.getLogger("medseg")

_CASE_KEYS = ("image", "label", "fold", "subject", "modality", "dataset", "case_id")
_SECTIONS = ("training", "validation", "test")
_ROOT = "data_dir"


@dataclass
class Datalist:
    """A datalist in memory; every path in a case is absolute.

    Attributes:
        path: the JSON file.
        data_dir: what the file's paths are relative to.
        name: the data set's name.
        channels: channel names, from ``modality``.
        label_space: what voxel values mean.
        sections: ``training``, ``validation``, ``test`` -> cases.
        known_overlaps: cases or subjects that a published split is known to have on both sides.
        table: the JSON as read.
    """

    path: Path
    data_dir: Path
    name: str
    channels: tuple[str, ...]
    label_space: LabelSpace
    sections: dict[str, list[Case]]
    known_overlaps: frozenset[str] = frozenset()
    table: dict[str, Any] = field(default_factory=dict)

    def folds(self) -> list[int]:
        """The folds that the training section names, sorted."""
        return _folds(self.sections["training"])

    def split(self, fold: int | None = None, *, num_folds: int = 5) -> tuple[list[Case], list[Case]]:
        """Training and validation cases.

        Without ``fold`` the ``validation`` section is used where there is one, else fold 0. With ``fold`` the
        training section is split by its ``fold`` entries, or, where it has none, by folds made on the spot (grouped
        by subject, seed 0).

        Raises:
            DataError: the fold does not exist.
        """
        training, validation = self.sections["training"], self.sections["validation"]
        if fold is None and validation:
            return training, validation
        if len(training) < 2:
            _warn_single(self, bool(validation))
            return training, validation
        cases = training
        if not self.folds():
            few = self.few_subjects(num_folds)
            if few:
                _warn_once(f"{self.path}: {few.message}. {few.remedy}")
            groups = [case.group for case in training]
            dealt = _deal(groups, min(num_folds, len(set(groups))))
            cases = [replace(case, fold=fold) for case, fold in zip(training, dealt, strict=True)]
        folds = _folds(cases)
        fold = folds[0] if fold is None else fold
        if fold not in folds:
            raise DataError(f"{self.path}: no fold {fold}; the training section has folds {folds}.")
        inside = [case for case in cases if case.fold == fold]
        outside = [case for case in cases if case.fold != fold]
        if not outside:
            _warn_single(self, bool(validation))
            return training, validation
        return outside, inside

    def few_subjects(self, num_folds: int = 5) -> Finding | None:
        """What to say where the training section has fewer subjects than folds."""
        number = len({case.group for case in self.sections["training"]})
        if not 1 < number < num_folds:
            return None
        what = "cases" if number == len(self.sections["training"]) else "subjects"
        return Finding(
            f"{number} {what} cannot give {num_folds} folds; using {number}",
            "Add cases, or write a 'fold' into each case of the datalist.",
            warning=True,
        )

    def locate(self, case: Case) -> str:
        """Where a case stands in the file, such as ``training[12]``."""
        for section, cases in self.sections.items():
            for number, other in enumerate(cases):
                if other.id == case.id:
                    return f"{section}[{number}]"
        return case.id

    def copy_to(self, path: str | Path) -> None:
        """Write the datalist as JSON: the file itself, or what a union of several comes to. Where its data are is not
        part of the copy, which lies elsewhere.
        """
        if self.path.suffix in UNION_SUFFIXES or _ROOT in self.table:
            write_text(path, _to_text({key: value for key, value in self.table.items() if key != _ROOT}))
        else:
            shutil.copyfile(self.path, path)

    def cases(self, section: str, fold: int | None = None) -> list[Case]:
        """The cases of ``training`` or ``validation`` after the split, or of another section as it stands."""
        if section in ("training", "validation"):
            return self.split(fold)[section == "validation"]
        return self.sections.get(section, [])


def _folds(cases: Iterable[Case]) -> list[int]:
    return sorted({case.fold for case in cases if case.fold is not None})


def _warn_single(datalist: Datalist, has_validation: bool) -> None:
    instead = "the 'validation' section is used" if has_validation else "training goes without validation"
    _warn_once(f"{datalist.path}: too few training cases to split into folds; {instead}.")


@lru_cache
def _warn_once(message: str) -> None:
    # A run splits the same list several times: for its checks, its training and its validation data.
    logger.warning(message)


def subject_of(entry: Mapping[str, Any]) -> str:
    """What must stay together when entries are split: the ``subject``, or the case itself (``Case.group``)."""
    return str(entry["subject"] if "subject" in entry else entry.get("case_id", entry["image"]))


@unwrapped()
def read_datalist(path: str | Path, data_dir: str | Path | None = None) -> Datalist:
    """Read a datalist, or a union of several (``medseg.data.union``); ``data_dir`` defaults to the list's own, or
    the file's folder. ``path`` may be the name of a shipped list. No image is opened.

    Raises:
        DataError: the file is missing or no valid datalist; the sentence names the entry.
    """
    path = find_list(path)
    if path.suffix in UNION_SUFFIXES:
        table, root = union_table(path, data_dir)
    else:
        table = _load_json(path)
        root = Path(data_dir) if data_dir is not None else _own_root(table, path)
    listed = [key for key, value in table.items() if key in _SECTIONS or key == "testing" or _holds_cases(value)]
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
    sections: dict[str, list[Entry]] = {key: [] for key in _SECTIONS}
    wrong = []
    for key in listed:
        section = sections.setdefault("test" if key == "testing" else key, [])  # the Decathlon archives use either
        for number, entry in enumerate(table[key]):
            try:
                section.append(_read_entry(entry, f"{key}[{number}]", root, labelled=key in _SECTIONS[:2]))
            except DataError as error:
                wrong.append(str(error))
    if len(wrong) == 1:
        raise DataError(f"{path}: {wrong[0]}")
    if wrong:
        raise DataError(f"{path}: {len(wrong)} entries are wrong:\n  " + "\n  ".join(wrong))
    overlaps = table.get("known_overlaps", [])
    if not isinstance(overlaps, list):
        raise DataError(f"{path}: 'known_overlaps' is {overlaps!r}; expected a list of cases or subjects.")
    try:
        plain = {"labels": {}} | {key: table[key] for key in ("labels", "regions", "ignore") if key in table}
        space = LabelSpace.from_table(table.get("label_space") or plain)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    datalist = Datalist(
        path=path,
        data_dir=root,
        name=check_name(str(table.get("name") or path.stem), "Data set name"),
        channels=_channels(table, path),
        label_space=space,
        sections=_named(sections, root, path),
        known_overlaps=frozenset(str(item) for item in overlaps),
        table=table,
    )
    _check_overlaps(datalist)
    _check_fragments(datalist)
    return datalist


def write_datalist(table: Mapping[str, Any], path: str | Path, data_dir: str | Path | None = None) -> Path:
    """Write a datalist, whole or not at all, one case per line, and read it back; returns its path.

    Raises:
        DataError: the table is no valid datalist; a file that was there before is left.
    """
    path = Path(path)
    with whole_file(path) as temporary:
        temporary.write_text(_to_text(table), encoding="utf-8")
        try:
            read_datalist(temporary, data_dir or path.parent)
        except DataError as error:
            raise DataError(str(error).replace(str(temporary), str(path))) from error
    return path


def root_entry(root: Path, folder: Path) -> dict[str, str]:
    """The entry of a list in ``folder`` whose paths lead from ``root``, so that it can be read without ``data_dir``:
    relative where one folder holds the other and both may be moved together; none where they are one.
    """
    root, folder = root.resolve(), folder.resolve()
    if root == folder:
        return {}
    together = root.is_relative_to(folder) or folder.is_relative_to(root)
    return {_ROOT: Path(os.path.relpath(root, folder) if together else root).as_posix()}


def _to_text(table: Mapping[str, Any]) -> str:
    """The JSON of a datalist, one case per line."""
    entries = []
    for key, value in table.items():
        if _holds_cases(value):
            rows = ",\n".join("  " + json.dumps(case, ensure_ascii=False) for case in value)
            text = f"[\n{rows}\n ]"
        else:
            text = textwrap.indent(json.dumps(value, indent=1, ensure_ascii=False), " ").lstrip()
        entries.append(f" {json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(entries) + "\n}\n"


def _holds_cases(value: Any) -> bool:
    """Whether a list is a section of cases, and not a list of something else such as ``regions_class_order``."""
    return isinstance(value, list) and bool(value) and all(isinstance(item, dict) and "image" in item for item in value)


def _load_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise DataError(
            f"Datalist {path} not found. Create one with `medseg datalist --images DIR --labels DIR --output {path}`."
        )
    return read_table(path, "an object with a 'training' section")


def _own_root(table: Mapping[str, Any], path: Path) -> Path:
    """The folder that paths are relative to: the file's own, or the list's ``data_dir``, relative to that."""
    given = table.get(_ROOT, ".")
    if not isinstance(given, str):
        raise DataError(f"{path}: '{_ROOT}' is {given!r}; expected the folder that paths are relative to.")
    return path.parent / given


def _read_entry(entry: Any, where: str, root: Path, *, labelled: bool) -> Entry:
    if isinstance(entry, (str, list)) and not labelled:
        entry = {"image": entry}
    if not isinstance(entry, dict):
        raise DataError(f"{where} is {entry!r}; expected an object with 'image' and 'label'.")
    for key in entry:
        absent = [known for known in _CASE_KEYS if known not in entry]
        if key not in _CASE_KEYS and nearest(key, absent, 0.8):  # other keys are the user's own and kept
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


def _channels(table: Mapping[str, Any], path: Path) -> tuple[str, ...]:
    modality = table.get("modality", table.get("channel_names", {}))
    if isinstance(modality, str):
        modality = [modality]
    if isinstance(modality, list):
        modality = {str(number): name for number, name in enumerate(modality)}
    if not isinstance(modality, Mapping) or not all(str(key).isdigit() for key in modality):
        raise DataError(f'{path}: \'modality\' is {modality!r}; expected for example {{"0": "T1", "1": "FLAIR"}}.')
    return tuple(check_name(str(modality[key]), "Modality name") for key in sorted(modality, key=int))


def _named(sections: Mapping[str, list[Entry]], root: Path, path: Path) -> dict[str, list[Case]]:
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


def _check_overlaps(datalist: Datalist) -> None:
    """Refuse a case twice, a case in training and validation, and a subject on both sides or in two folds."""
    for section, cases in datalist.sections.items():
        for case_id, count in Counter(case.id for case in cases).items():
            if count > 1 and case_id not in datalist.known_overlaps:
                raise DataError(
                    f"Case {case_id} is listed {count} times in '{section}' of {datalist.path}; list it once."
                )
    _refuse_shared(
        datalist,
        {case.id for case in datalist.sections["training"]} & {case.id for case in datalist.sections["validation"]},
        "Case {} is in both training and validation: results would be biased. Remove it from one.",
    )
    _refuse_shared(
        datalist,
        {case.group for case in datalist.sections["training"]}
        & {case.group for case in datalist.sections["validation"]},
        "Subject {} is in both training and validation: results would be biased. Keep a subject on one side.",
    )
    folds: dict[str, set[int]] = {}
    for case in datalist.sections["training"]:
        if case.fold is not None:
            folds.setdefault(case.group, set()).add(case.fold)
    for subject, used in sorted(folds.items()):
        if len(used) > 1:
            listed = " and ".join(str(f) for f in sorted(used))
            _refuse_shared(
                datalist, {subject}, f"Subject {{}} appears in folds {listed}. Make the folds again grouped by subject."
            )


def _check_fragments(datalist: Datalist) -> None:
    """Refuse a case's ``dataset`` that is a misspelt name of the label table's data sets."""
    known = [name for name in datalist.label_space.fragments if name]
    for cases in datalist.sections.values():
        for case in cases:
            dataset = case.dataset or ""
            if dataset and dataset not in known and nearest(dataset, known):
                raise DataError(
                    f"{datalist.path}: {datalist.locate(case)} has data set '{dataset}', not in the label table."
                    f"{nearest(dataset, known)}"
                )


def _refuse_shared(datalist: Datalist, shared: Iterable[str], sentence: str) -> None:
    declared = []
    for name in sorted(shared):
        if name not in datalist.known_overlaps:
            raise DataError(f"{datalist.path}: {sentence.format(name)}")
        declared.append(sentence.format(name))
    if declared:
        others = f" So are {len(declared) - 1} others." if len(declared) > 1 else ""
        logger.warning("%s%s (declared in 'known_overlaps')", declared[0], others)


def assign_folds(entries: Sequence[Mapping[str, Any]], num_folds: int, seed: int = 0) -> list[Entry]:
    """Copies of the entries with ``fold`` set: subjects shuffled, then dealt out so that fold sizes stay even."""
    folds = _deal([subject_of(entry) for entry in entries], num_folds, seed)
    return [{**entry, "fold": fold} for entry, fold in zip(entries, folds, strict=True)]


def _deal(owners: Sequence[str], num_folds: int, seed: int = 0) -> list[int]:
    """The fold of each case; cases of one owner have one fold."""
    counts = Counter(owners)
    subjects = sorted(counts)
    np.random.default_rng(derive_seed(seed)).shuffle(subjects)
    sizes = [0] * num_folds
    folds: dict[str, int] = {}
    for subject in sorted(subjects, key=lambda s: -counts[s]):  # stable: large subjects first, otherwise shuffled
        folds[subject] = sizes.index(min(sizes))
        sizes[folds[subject]] += counts[subject]
    return [folds[owner] for owner in owners]
