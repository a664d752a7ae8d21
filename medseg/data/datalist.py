"""A datalist in memory: the cases of a data set by section, their folds, and what their voxel values mean."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from medseg.data.case import Case
from medseg.data.datalist_form import DIVIDED, ROOT, to_text, warn_once
from medseg.data.findings import Finding
from medseg.data.folds import make_folds
from medseg.errors import DataError, nearest
from medseg.labels import LabelSpace

__all__ = ["Datalist"]

logger = logging.getLogger("medseg")


@dataclass(frozen=True)
class Datalist:
    """A datalist in memory; every path in a case is absolute.

    Attributes:
        path: the JSON file.
        data_dir: base directory of the file's relative paths.
        name: name of the data set.
        channels: channel names, from ``modality``.
        label_space: meaning of the label values.
        sections: ``training``, ``validation``, ``test`` -> cases.
        known_overlaps: cases or subjects that a published split is known to have on both sides.
        table: the JSON as read.
        content: the file itself, where a copy of the list is a copy of it; empty where ``table`` is written.

    Examples:
        >>> from medseg.data import read_datalist
        >>> datalist = read_datalist("phantom/dataset.json")
        >>> len(datalist.sections["training"]), datalist.folds(), datalist.label_space.labels
        (6, [0, 1, 2, 3, 4], ('liver', 'spleen', 'kidneys'))
    """

    path: Path
    data_dir: Path
    name: str
    channels: tuple[str, ...]
    label_space: LabelSpace
    sections: dict[str, list[Case]]
    known_overlaps: frozenset[str] = frozenset()
    table: dict[str, Any] = field(default_factory=dict)
    content: bytes = field(default=b"", repr=False)

    def check(self) -> None:
        """Refuse what would bias results: a case twice, a case in training and validation, a subject on both sides or
        in two folds; and a case's ``dataset`` that is a misspelt name of the label table's data sets.

        Raises:
            DataError: with the case or the subject.
        """
        _check_overlaps(self)
        _check_fragments(self)

    def folds(self) -> list[int]:
        """The folds that the training section names, sorted."""
        return _folds(self.sections["training"])

    def all_folds(self, num_folds: int = 5) -> list[int]:
        """The folds that ``split`` takes: those that are named, or the numbers of those made on the spot."""
        return self.folds() or list(range(min(num_folds, len({case.group for case in self.sections["training"]}))))

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
                warn_once(f"{self.path}: {few.message}. {few.remedy}")
            made = make_folds([case.group for case in training], len(self.all_folds(num_folds)))
            cases = [replace(case, fold=fold) for case, fold in zip(training, made, strict=True)]
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

    def as_stored(self) -> bytes:
        """The JSON of a copy: the file itself, or what a union of several comes to. Where its data are is not part of
        the copy, which lies elsewhere.
        """
        return self.content or to_text({key: value for key, value in self.table.items() if key != ROOT}).encode()

    def cases(self, section: str, fold: int | None = None) -> list[Case]:
        """The cases of ``training`` or ``validation`` after the split, or of another section as it stands."""
        if section in DIVIDED:
            return self.split(fold)[section == "validation"]
        return self.sections.get(section, [])


def _folds(cases: Iterable[Case]) -> list[int]:
    return sorted({case.fold for case in cases if case.fold is not None})


def _warn_single(datalist: Datalist, has_validation: bool) -> None:
    instead = "the 'validation' section is used" if has_validation else "training goes without validation"
    warn_once(f"{datalist.path}: too few training cases to split into folds; {instead}.")


def _check_overlaps(datalist: Datalist) -> None:
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
    folds: dict[str, set[int | None]] = {}
    for case in datalist.sections["training"]:
        folds.setdefault(case.group, set()).add(case.fold)
    for subject, used in sorted(folds.items()):
        if len(used) > 1:
            listed = " and ".join(str(fold) for fold in sorted(fold for fold in used if fold is not None))
            alone = f"fold {listed}, and has cases without a fold, which are always trained on" if None in used else ""
            where = alone or f"folds {listed}"
            _refuse_shared(
                datalist, {subject}, f"Subject {{}} appears in {where}. Make the folds again grouped by subject."
            )


def _check_fragments(datalist: Datalist) -> None:
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
