"""Datalists: Decathlon JSON with folds, subjects and a label space.

``{"name": ..., "modality": {"0": "CT"}, "labels": {"0": "background", "1": "liver"}, "training": [{"image": ...,
"label": ..., "fold": 0, "subject": "s1"}], "validation": [...], "test": [...]}``. Paths are relative to ``data_dir``;
``image`` is a path or a list of channels; optional per case: ``fold``, ``subject``, ``modality``, ``dataset``,
``case_id`` and keys of one's own; optional at the top: ``regions`` and ``ignore`` beside ``labels``, or a whole
``label_space`` (see ``medseg.labels``), and ``known_overlaps``.
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
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from medseg.data.findings import Finding
from medseg.data.json_file import read_table
from medseg.data.randomness import derive_seed
from medseg.data.union import UNION_SUFFIXES, union_table
from medseg.errors import DataError, nearest
from medseg.labels import LabelSpace, check_name
from medseg.transforms.reader import IMAGE_SUFFIXES, is_2d_file

__all__ = ["Case", "Datalist", "assign_folds", "case_ids", "read_datalist", "write_datalist"]

Case = dict[str, Any]

logger = logging.getLogger("medseg")

_CASE_KEYS = ("image", "label", "fold", "subject", "modality", "dataset", "case_id")
_SECTIONS = ("training", "validation", "test")


@dataclass
class Datalist:
    """A datalist in memory; every path in a case is absolute.

    Attributes:
        path: the JSON file.
        data_dir: what the file's paths are relative to.
        name: the data set's name.
        channels: channel names, from ``modality``.
        label_space: what voxel values mean.
        sections: ``training``, ``validation``, ``test`` -> cases with at least ``image`` and ``case_id``.
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
        return sorted({case["fold"] for case in self.sections["training"] if "fold" in case})

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
            cases = assign_folds(training, min(num_folds, len({subject_of(case) for case in training})))
        folds = sorted({case["fold"] for case in cases if "fold" in case})
        fold = folds[0] if fold is None else fold
        if fold not in folds:
            raise DataError(f"{self.path}: no fold {fold}; the training section has folds {folds}.")
        inside = [case for case in cases if case.get("fold") == fold]
        outside = [case for case in cases if case.get("fold") != fold]
        if not outside:
            _warn_single(self, bool(validation))
            return training, validation
        return outside, inside

    def few_subjects(self, num_folds: int = 5) -> Finding | None:
        """What to say where the training section has fewer subjects than folds."""
        number = len({subject_of(case) for case in self.sections["training"]})
        if not 1 < number < num_folds:
            return None
        what = "cases" if number == len(self.sections["training"]) else "subjects"
        return Finding(
            f"{number} {what} cannot give {num_folds} folds; using {number}",
            "Add cases, or write a 'fold' into each case of the datalist.",
            warning=True,
        )

    def locate(self, case: Mapping[str, Any]) -> str:
        """Where a case stands in the file, such as ``training[12]``."""
        for section, cases in self.sections.items():
            for number, other in enumerate(cases):
                if other["case_id"] == case["case_id"]:
                    return f"{section}[{number}]"
        return str(case["case_id"])

    def copy_to(self, path: str | Path) -> None:
        """Write the datalist as JSON: the file itself, or what a union of several comes to."""
        if self.path.suffix in UNION_SUFFIXES:
            Path(path).write_text(_to_text(self.table), encoding="utf-8")
        else:
            shutil.copyfile(self.path, path)

    def cases(self, section: str, fold: int | None = None) -> list[Case]:
        """The cases of ``training`` or ``validation`` after the split, or of another section as it stands."""
        if section in ("training", "validation"):
            return self.split(fold)[section == "validation"]
        return self.sections.get(section, [])


def _warn_single(datalist: Datalist, has_validation: bool) -> None:
    instead = "the 'validation' section is used" if has_validation else "training goes without validation"
    _warn_once(f"{datalist.path}: too few training cases to split into folds; {instead}.")


@lru_cache
def _warn_once(message: str) -> None:
    # A run splits the same list several times: for its checks, its training and its validation data.
    logger.warning(message)


def subject_of(case: Mapping[str, Any]) -> str:
    """What must stay together when cases are split: the ``subject``, or the case itself."""
    return str(case["subject"] if "subject" in case else case.get("case_id", case["image"]))


def read_datalist(path: str | Path, data_dir: str | Path | None = None) -> Datalist:
    """Read a datalist, or a union of several (``medseg.data.union``); ``data_dir`` defaults to the file's folder. No
    image is opened.

    Raises:
        DataError: the file is missing or no valid datalist; the sentence names the entry.
    """
    path = Path(path)
    if path.suffix in UNION_SUFFIXES:
        table, root = union_table(path, data_dir)
    else:
        table, root = _load_json(path), Path(data_dir) if data_dir is not None else path.parent
    listed = [key for key, value in table.items() if key in _SECTIONS or key == "testing" or _holds_cases(value)]
    if "training" not in table:
        raise DataError(
            f"{path} has sections {', '.join(listed) or 'none'}; need 'training'. Create a datalist with `medseg "
            "datalist --images DIR --labels DIR --output FILE`."
        )
    for key in listed:
        if not isinstance(table[key], list):
            raise DataError(f"Section '{key}' of {path} is a {type(table[key]).__name__}; make it a list of cases.")
    if not table["training"]:
        raise DataError(f"Section 'training' of {path} is empty; add cases with 'image' and 'label'.")
    if not root.is_dir():
        raise DataError(f"Data folder {root} not found; name the folder of the images with --data_dir.")
    sections: dict[str, list[Case]] = {key: [] for key in _SECTIONS}
    wrong = []
    for key in listed:
        section = sections.setdefault("test" if key == "testing" else key, [])  # the Decathlon archives use either
        for number, entry in enumerate(table[key]):
            try:
                section.append(_read_case(entry, f"{key}[{number}]", root, labelled=key in _SECTIONS[:2]))
            except DataError as error:
                wrong.append(str(error))
    if len(wrong) == 1:
        raise DataError(f"{path}: {wrong[0]}")
    if wrong:
        raise DataError(f"{path}: {len(wrong)} entries are wrong:\n  " + "\n  ".join(wrong))
    _name_cases(sections, root)
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
        sections=sections,
        known_overlaps=frozenset(str(item) for item in table.get("known_overlaps", ())),
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
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(_to_text(table), encoding="utf-8")
    try:
        read_datalist(temporary, data_dir or path.parent)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


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


def _read_case(entry: Any, where: str, root: Path, *, labelled: bool) -> Case:
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
    if "fold" in case and (not isinstance(case["fold"], int) or isinstance(case["fold"], bool)):
        raise DataError(f"{where} has fold {case['fold']!r}; expected an integer.")
    if "case_id" in case:
        case["case_id"] = str(case["case_id"])  # it names output files: never a path
        if not case["case_id"].strip(". ") or re.search(r"[/\\\x00-\x1f]", case["case_id"]):
            raise DataError(f"{where} has case_id {case['case_id']!r}; expected a plain name without '/' or '\\'.")
    absolute = [str(root / image) for image in images]
    case["image"] = absolute if isinstance(entry["image"], list) else absolute[0]
    if case.get("label"):
        case["label"] = str(root / entry["label"])
    return case


def _channels(table: Mapping[str, Any], path: Path) -> tuple[str, ...]:
    modality = table.get("modality", table.get("channel_names", {}))
    if isinstance(modality, str):
        modality = [modality]
    if isinstance(modality, list):
        modality = {str(number): name for number, name in enumerate(modality)}
    if not isinstance(modality, Mapping) or not all(str(key).isdigit() for key in modality):
        raise DataError(f'{path}: \'modality\' is {modality!r}; expected for example {{"0": "T1", "1": "FLAIR"}}.')
    return tuple(check_name(str(modality[key]), "Modality name") for key in sorted(modality, key=int))


def images_of(case: Mapping[str, Any]) -> list[str]:
    """The image files of a case, one per channel file."""
    return list(case["image"]) if isinstance(case["image"], (list, tuple)) else [case["image"]]


def stem_of(path: str | Path) -> str:
    """The file name without its image suffix."""
    name = Path(path).name
    for suffix in sorted(IMAGE_SUFFIXES, key=len, reverse=True):
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return Path(name).stem


def case_ids(cases: Sequence[Mapping[str, Any]], root: Path) -> list[str]:
    """One id per case, from its file names; where those collide, from the paths below ``root``, suffix and all if need
    be.
    """
    stems = [_stem(case) for case in cases]
    counts = Counter(stems)
    ids = []
    for case, stem in zip(cases, stems, strict=True):
        if counts[stem] > 1:
            image = Path(images_of(case)[0])
            parent = image.parent.relative_to(root) if image.is_relative_to(root) else Path(image.parent.name)
            stem = "_".join((*parent.parts, stem))
        ids.append(stem)
    counts = Counter(ids)
    return [
        name if counts[name] == 1 else name + Path(images_of(case)[0]).name[len(stem_of(images_of(case)[0])) :]
        for case, name in zip(cases, ids, strict=True)
    ]


def _stem(case: Mapping[str, Any]) -> str:
    """``a_0000.nii.gz`` -> ``a``; several channel files -> what their names share, else the first name.

    A picture keeps its name: numbered ones are the pictures of a series, not channels.
    """
    stems = [stem_of(image) for image in images_of(case)]
    if isinstance(case["image"], str) and is_2d_file(case["image"]):
        return stems[0]
    first = re.sub(r"_0000$", "", stems[0])
    if len(stems) == 1:
        return first
    shared = 0
    while all(shared < len(stem) and stem[shared] == stems[0][shared] for stem in stems):
        shared += 1
    name = stems[0][:shared]
    if all(stem[shared : shared + 1].isdigit() for stem in stems):
        name = re.sub(
            r"(?<=[_\-. ])0+$", "", name
        )  # a_000|0, a_000|1: zeros of the channel's number, not of the case's
    return name.rstrip("_-. ") or first


def _name_cases(sections: Mapping[str, list[Case]], root: Path) -> None:
    # One namespace over all sections: equal files get equal ids, different files of equal name do not.
    unique: dict[str, Case] = {}
    for cases in sections.values():
        for case in cases:
            unique.setdefault("|".join(images_of(case)), case)
    names = dict(zip(unique, case_ids(list(unique.values()), root), strict=True))
    for cases in sections.values():
        for case in cases:
            case.setdefault("case_id", names["|".join(images_of(case))])


def _check_overlaps(datalist: Datalist) -> None:
    """Refuse a case twice, a case in training and validation, and a subject on both sides or in two folds."""
    for section, cases in datalist.sections.items():
        for case_id, count in Counter(case["case_id"] for case in cases).items():
            if count > 1 and case_id not in datalist.known_overlaps:
                raise DataError(
                    f"Case {case_id} is listed {count} times in '{section}' of {datalist.path}; list it once."
                )
    _refuse_shared(
        datalist,
        {case["case_id"] for case in datalist.sections["training"]}
        & {case["case_id"] for case in datalist.sections["validation"]},
        "Case {} is in both training and validation: results would be biased. Remove it from one.",
    )
    _refuse_shared(
        datalist,
        {subject_of(case) for case in datalist.sections["training"]}
        & {subject_of(case) for case in datalist.sections["validation"]},
        "Subject {} is in both training and validation: results would be biased. Keep a subject on one side.",
    )
    folds: dict[str, set[int]] = {}
    for case in datalist.sections["training"]:
        if "fold" in case:
            folds.setdefault(subject_of(case), set()).add(case["fold"])
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
            dataset = str(case.get("dataset", ""))
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


def assign_folds(cases: Sequence[Case], num_folds: int, seed: int = 0) -> list[Case]:
    """Copies of the cases with ``fold`` set: subjects shuffled, then dealt out so that fold sizes stay even."""
    groups: dict[str, list[int]] = {}
    for index, case in enumerate(cases):
        groups.setdefault(subject_of(case), []).append(index)
    subjects = sorted(groups)
    np.random.default_rng(derive_seed(seed)).shuffle(subjects)
    sizes = [0] * num_folds
    folds: dict[int, int] = {}
    for subject in sorted(subjects, key=lambda s: -len(groups[s])):  # stable: large subjects first, otherwise shuffled
        fold = sizes.index(min(sizes))
        sizes[fold] += len(groups[subject])
        folds |= {index: fold for index in groups[subject]}
    return [{**case, "fold": folds[index]} for index, case in enumerate(cases)]
