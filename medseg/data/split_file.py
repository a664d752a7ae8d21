"""Splits that somebody else made: nnU-Net's ``splits_final.json``, or the sections and folds of another datalist, such
as a published one of ``data_json``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medseg.data.datalist_file import read_datalist
from medseg.data.entry import Entry
from medseg.errors import ConfigError, DataError, few, nearest
from medseg.shipped import find_list, shipped_lists
from medseg.storage import read_json

__all__ = ["Split", "read_split"]


@dataclass
class Split:
    """Which case belongs where.

    Attributes:
        source: the file.
        sections: ``training``, ``validation``, ``test`` -> case id -> fold (``None``: without).
        known_overlaps: subjects or cases that the split has on both sides.
        warnings: sentences.
    """

    source: Path
    sections: dict[str, dict[str, int | None]]
    known_overlaps: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def apply(self, sections: Mapping[str, Sequence[Entry]]) -> dict[str, list[Entry]]:
        """The cases where the split wants them; those that it does not name are skipped, with a warning.

        Raises:
            DataError: the split names cases that are not there; test cases may be missing.
        """
        have = {case["case_id"]: case for cases in sections.values() for case in cases}
        for name, wanted in self.sections.items():
            absent = sorted(set(wanted) - set(have))
            sentence = f"{self.source} names {len(absent)} {name} cases that the folder lacks: {few(absent)}"
            if absent and name == "test":
                self.warnings.append(f"{sentence}; they are skipped.")
            elif absent:
                raise DataError(f"{sentence}; the folder has {few(sorted(have))}. Add the cases, or omit the split.")
        named = {case for wanted in self.sections.values() for case in wanted}
        labelled = [case["case_id"] for name, cases in sections.items() if name != "test" for case in cases]
        unnamed = sorted(set(labelled) - named)
        if unnamed:
            self.warnings.append(f"{self.source} does not name {len(unnamed)} cases, skipped: {few(unnamed)}.")
        placed = {
            name: [_placed(have[case], fold) for case, fold in wanted.items() if case in have]
            for name, wanted in self.sections.items()
        }
        placed["test"] = [*placed.get("test", []), *(c for c in sections.get("test", ()) if c["case_id"] not in named)]
        return placed


def _placed(case: Entry, fold: int | None) -> Entry:
    plain = {key: value for key, value in case.items() if key != "fold"}
    return plain if fold is None else plain | {"fold": fold}


def read_split(source: str | Path) -> Split:
    """Read a file, or a published split by its name, such as ``btcv``.

    Raises:
        ConfigError: no such file or name, or a pickle, which is never opened.
        DataError: the file holds no split, or one that folds cannot express.
    """
    path = find_list(source)
    if not path.is_file():
        known = shipped_lists()
        raise ConfigError(
            f"No split '{source}'.{nearest(source, known)} Expected nnU-Net's splits_final.json, a datalist, or a "
            f"published one: {', '.join(known)}."
        )
    if path.suffix == ".pkl":
        raise ConfigError(f"{path} is a pickle, which could run code and is not opened; write the splits as JSON.")
    content = read_json(path)
    return _of_nnunet(content, path) if isinstance(content, list) else _of_datalist(path)


def _of_datalist(path: Path) -> Split:
    datalist = read_datalist(path)
    sections = {name: {case.id: case.fold for case in cases} for name, cases in datalist.sections.items() if cases}
    return Split(path, sections, sorted(datalist.known_overlaps))


def _of_nnunet(content: Sequence[Any], path: Path) -> Split:
    """Every split's ``val`` cases become a fold.

    Raises:
        DataError: not nnU-Net's form, a case in two folds, or a split that trains on fewer cases than the others.
    """
    pairs = [(set(s["train"]), set(s["val"])) for s in content if isinstance(s, Mapping) and {"train", "val"} <= set(s)]
    if len(pairs) != len(content) or not pairs:
        raise DataError(
            f"{path} is not a valid list of splits; expected 'train' and 'val' in each (nnU-Net). Fix the file."
        )
    everything = set().union(*(train | val for train, val in pairs))
    folds: dict[str, int | None] = dict.fromkeys(sorted(everything))
    for number, (train, val) in enumerate(pairs):
        for case in sorted(val):
            if folds[case] is not None or case in train:
                where = f"the 'train' and 'val' of split {number}" if case in train else "the 'val' of two splits"
                raise DataError(
                    f"{path} has case {case} in {where}; a datalist has one fold per case. Fix the file, or "
                    "create folds with --folds."
                )
            folds[case] = number
        left = sorted(everything - train - val)
        if left:
            raise DataError(
                f"{path}: split {number} omits {len(left)} cases that other splits use ({few(left)}); a "
                "datalist's folds train on all others. Create folds with --folds."
            )
    return Split(path, {"training": folds})
