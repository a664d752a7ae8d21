"""A case: its files and what is known of them, with an id that is made here and nowhere else.

The id names every output of the case. It comes from the datalist's ``case_id``, or from the file names: of
``a_0000.nii.gz`` and ``a_0001.nii.gz``, the channels of one case, it is ``a``.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medseg.dicom import SERIES
from medseg.errors import ConfigError, DataError
from medseg.transforms.reader import is_2d_file, stem_of
from medseg.transforms.save import label_map_name

__all__ = ["Case", "channel_files", "matched", "name_cases", "numbered_channels", "output_files"]

_CHANNEL = re.compile(r"(.+)_(\d{4})")  # nnU-Net's names of channel files
_KEYS = ("image", "label", "fold", "subject", "modality", "dataset", "case_id")


@dataclass(frozen=True)
class Case:
    """One case of a datalist, a folder or a list of files.

    Attributes:
        id: names its outputs.
        images: files, one per channel, or one that holds all channels; or images in
            memory (``InMemory``) in their place.
        label: label file, or label map in memory; ``None`` without.
        fold: fold of the training section; ``None`` without.
        subject: whose case it is; ``None`` where the list does not say.
        modality: for networks that are told it, such as ``ct``.
        dataset: the data set whose label values it has.
        own: further keys of the list.
    """

    id: str
    images: tuple[str, ...]
    label: str | None = None
    fold: int | None = None
    subject: str | None = None
    modality: str | None = None
    dataset: str | None = None
    own: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @classmethod
    def from_entry(cls, entry: Mapping[str, Any], case_id: str) -> Case:
        """A checked entry of a datalist, its paths complete."""
        known = {key: entry[key] for key in ("label", "fold", "modality", "dataset") if entry.get(key) is not None}
        if entry.get("subject") is not None:
            known["subject"] = str(entry["subject"])
        own = {key: value for key, value in entry.items() if key not in _KEYS}
        return cls(case_id, tuple(channel_files(entry)), own=own, **known)

    @property
    def group(self) -> str:
        """What must stay together when cases are split: the subject, or the case itself."""
        return self.id if self.subject is None else self.subject

    @property
    def files(self) -> tuple[str, ...]:
        """Images, then the label where there is one."""
        return (*self.images, *([self.label] if self.label else []))

    @property
    def is_picture(self) -> bool:
        """Whether the format is one of 2D images without physical size (PNG, JPEG, TIFF, BMP)."""
        return is_2d_file(self.images[0])

    def output_name(self, form: str | None = None) -> str:
        """File name of its label map (``label_map_name``)."""
        return label_map_name(self.id, self.images[0], form)

    def to_dict(self, *, label: bool = True) -> dict[str, Any]:
        """The dictionary that MONAI's transforms take: ``image``, ``case_id`` and what is known of ``label``, ``fold``,
        ``subject``, ``modality`` and ``dataset``.
        """
        image = self.images[0] if len(self.images) == 1 else list(self.images)
        facts = {key: getattr(self, key) for key in ("fold", "subject", "modality", "dataset")}
        facts |= {"label": self.label} if label and self.label else {}
        known = {key: value for key, value in facts.items() if value is not None}
        return {**self.own, "image": image, "case_id": self.id, **known}


def channel_files(entry: Mapping[str, Any]) -> list[Any]:
    """The image files of an entry, one per channel file."""
    return list(entry["image"]) if isinstance(entry["image"], (list, tuple)) else [entry["image"]]


# ---------------------------------------------------------------------- channels
def numbered_channels(files: Iterable[Path]) -> tuple[dict[str, dict[int, Path]], list[Path]]:
    """Files ``<case>_0000``, ``<case>_0001``, … by case and channel number, and those without such a number.

    A case is a folder, a name and a suffix: ``a/x_0000.nii.gz`` and ``b/x_0001.nii.gz`` are of different cases.
    """
    cases: dict[str, dict[int, Path]] = {}
    others: list[Path] = []
    for file in files:
        stem = stem_of(file)
        match = _CHANNEL.fullmatch(stem)
        if match is None:
            others.append(file)
        else:
            cases.setdefault(str(file.with_name(match[1] + file.name[len(stem) :])), {})[int(match[2])] = file
    return cases, others


def complete_channels(cases: Mapping[str, Mapping[int, Path]], number: int | None = None) -> list[list[Path]]:
    """The channel files of each case in order.

    Args:
        cases: result of ``numbered_channels``.
        number: number of channels; default: as many as the case has files.

    Raises:
        DataError: the numbers of a case are not 0, 1, …, number - 1.
    """
    wrong = []
    for case, channels in cases.items():
        expected = range(len(channels) if number is None else number)
        if sorted(channels) != list(expected):
            found = ", ".join(f"{channel:04}" for channel in sorted(channels))
            wrong.append(f"{case} has {found}, expected {', '.join(f'{channel:04}' for channel in expected)}")
    if wrong:
        more = f"; so are {len(wrong) - 1} other cases" if len(wrong) > 1 else ""
        raise DataError(
            f"Channel files are missing or surplus: {wrong[0]}{more}. Add the missing file, or move the case away."
        )
    return [[channels[index] for index in sorted(channels)] for channels in cases.values()]


# ---------------------------------------------------------------------- names
def name_cases(images: Sequence[Sequence[str | Path]], root: str | Path) -> list[str]:
    """One id per case from its image files, all of them different.

    The shortest of these that no other case has: the name without channel number and suffix; with the folders below
    ``root``; with the channel number; with the suffix.

    Raises:
        DataError: two cases have the same files, or names that no spelling tells apart.
    """
    spellings = [_spellings([Path(file) for file in files], Path(root)) for files in images]
    levels = [0] * len(spellings)
    while True:
        names = [spelling[level] for spelling, level in zip(spellings, levels, strict=True)]
        counts = Counter(names)
        same = [index for index, name in enumerate(names) if counts[name] > 1]
        longer = [index for index in same if levels[index] + 1 < len(spellings[index])]
        if not same:
            return names
        if not longer:
            first, second = [index for index in same if names[index] == names[same[0]]][:2]
            raise DataError(
                f"{images[first][0]} and {images[second][0]} would both be case '{names[first]}'; expected one name "
                "per case. List each file once, or give each case a 'case_id' in a datalist."
            )
        for index in longer:
            levels[index] += 1


def matched(pattern: str, text: str, option: str) -> str:
    """What a user's regular expression finds in a name: its first group, or the whole match.

    Raises:
        ConfigError: it is not a valid one, or matches nothing.
    """
    try:
        match = re.search(pattern, text)
    except re.error as error:
        raise ConfigError(f"{option} {pattern!r} is not a valid regular expression ({error}); fix it.") from error
    if match is None:
        raise ConfigError(f"{option} {pattern!r} matches nothing in '{text}'; it must match every case.")
    return match.group(1) if match.groups() else match.group(0)


def _spellings(files: list[Path], root: Path) -> list[str]:
    """Names of a case, ever longer ones."""
    first = files[0]
    short, stem = _short_name(files), stem_of(first)
    if first.suffix == SERIES:  # a hash; folders of DICOM are often named for patients
        return [short]
    parent = first.parent.relative_to(root) if first.is_relative_to(root) else Path(first.parent.name)
    return [short, *("_".join((*parent.parts, name)) for name in (short, stem, first.name))]


def _short_name(files: list[Path]) -> str:
    """``a_0000.nii.gz`` -> ``a``; several channel files -> what their names share, else the first name.

    A 2D image keeps its name: numbered ones are the images of a series, not channels.
    """
    stems = [stem_of(file) for file in files]
    if len(files) == 1 and is_2d_file(files[0]):
        return stems[0]
    first = re.sub(r"_0000$", "", stems[0])
    if len(stems) == 1:
        return first
    shared = 0
    while all(shared < len(stem) and stem[shared] == stems[0][shared] for stem in stems):
        shared += 1
    name = stems[0][:shared]
    if all(stem[shared : shared + 1].isdigit() for stem in stems):
        # a_000|0, a_000|1: zeros of the channel's number, not of the case's
        name = re.sub(r"(?<=[_\-. ])0+$", "", name)
    return name.rstrip("_-. ") or first


def output_files(cases: Sequence[Case], folder: str | Path, form: str | None = None) -> dict[str, Path]:
    """Case id -> its label map in a folder.

    Raises:
        DataError: two cases have one id, so that one would overwrite the other, or a label map would replace an input.
    """
    files: dict[str, Path] = {}
    owners: dict[str, Case] = {}
    inputs = {Path(file).resolve() for case in cases for file in case.files}
    for case in cases:
        other = owners.setdefault(case.id, case)
        if other is not case:
            raise DataError(
                f"Case id '{case.id}' stands for {other.images[0]} and {case.images[0]}; expected one id per case. "
                "Give each a 'case_id' of its own in the datalist."
            )
        files[case.id] = Path(folder) / case.output_name(form)
        if files[case.id].resolve() in inputs:
            raise DataError(
                f"The label map of {case.id} would replace the input {files[case.id]}; name another --output folder."
            )
    return files
