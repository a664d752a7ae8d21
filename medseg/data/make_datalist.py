"""Make a datalist from folders of images and labels."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medseg.data.datalist import assign_folds, stem_of, write_datalist
from medseg.data.files import Unreadable, Volume, read_volume
from medseg.data.voxels import count_values
from medseg.errors import ConfigError, DataError
from medseg.transforms.picture import is_grey
from medseg.transforms.reader import IMAGE_SUFFIXES, is_2d_file

__all__ = ["MadeDatalist", "make_datalist"]

logger = logging.getLogger("medseg")

_PICTURE_VALUES = 50  # more grey values than this in masks are soft edges or JPEG's doing
_CHANNEL = re.compile(r"_(\d{4})$")  # nnU-Net's suffix of channel files


@dataclass
class MadeDatalist:
    """What ``make_datalist`` wrote.

    Attributes:
        path: the file.
        root: what its paths are relative to.
        cases, tests: number of training and test cases.
        folds: number of folds.
        unlabelled, unpaired: images without a label, labels without an image.
        warnings: sentences about what may be wrong.
        notes: sentences about what was recognised.
    """

    path: Path
    root: Path
    cases: int = 0
    tests: int = 0
    folds: int = 0
    unlabelled: list[str] = field(default_factory=list)
    unpaired: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def make_datalist(
    images: str | Path,
    labels: str | Path,
    output: str | Path,
    *,
    test: str | Path | None = None,
    modality: Sequence[str] = (),
    label_names: Sequence[str] = (),
    image_pattern: str | None = None,
    label_pattern: str = "{case}",
    channels: Mapping[str, str] | None = None,
    num_folds: int = 5,
    subject_pattern: str | None = None,
    name: str | None = None,
    seed: int = 0,
    overwrite: bool = False,
    strict: bool = False,
) -> MadeDatalist:
    """Pair images with labels of the same name, deal folds by subject, and write the datalist.

    Args:
        images, labels, test: folders; ``test`` holds images without labels.
        output: the JSON file.
        modality: names of the channels, such as ``["CT"]``; pictures are RGB or grey by themselves.
        label_names: names of the values 0, 1, 2, …, for pictures also of other values in their order, such as 0 and
            255; without them the values found in the files are numbered.
        image_pattern, label_pattern: file names with ``{case}``, with or without suffix. Default: the label's stem;
            for images also ``{case}_0000``, ``{case}_0001``, … where there are such files.
        channels: name -> pattern, for files of several channels with names of their own.
        num_folds: at most the number of subjects.
        subject_pattern: a regular expression; its first group (or the whole match) in the case's name is the subject.
        name: of the data set; default the folder's.
        seed: of the folds.
        overwrite: replace an existing file.
        strict: warnings are errors.

    Raises:
        ConfigError: the output exists, or an argument cannot be used.
        DataError: no pair, or labels that cannot be read.
    """
    output = Path(output)
    if output.exists() and not overwrite:
        raise ConfigError(f"{output} exists; name another --output, or allow it with --overwrite.")
    if num_folds < 1:
        raise ConfigError(f"folds: expected a positive integer, got {num_folds}; 5 is usual.")
    folders = {key: _folder(value) for key, value in (("images", images), ("labels", labels), ("test", test)) if value}
    root = Path(os.path.commonpath([folder.resolve() for folder in folders.values()]))
    made = MadeDatalist(output, root, folds=num_folds)
    patterns = list((channels or {}).values()) or ([image_pattern] if image_pattern else [])
    names = list(channels) if channels else list(modality)

    label_files = {case: files[0] for case, files in _cases(folders["labels"], [label_pattern]).items()}
    if not patterns and set(_cases(folders["images"], ["{case}"])) & set(label_files):
        patterns = ["{case}"]
    found = _cases(folders["images"], patterns)
    made.unlabelled = sorted(set(found) - set(label_files))
    made.unpaired = sorted(set(label_files) - set(found))
    paired = sorted(set(found) & set(label_files))
    if not paired:
        raise DataError(
            f"No image in {images} pairs with a label in {labels}: images {_few(found)}, labels {_few(label_files)}. "
            "Expected equal names; say how they differ with --image_pattern and --label_pattern, such as "
            "'{case}_0000.nii.gz'."
        )
    for what, left in (("images without label are left out", made.unlabelled), ("labels have no image", made.unpaired)):
        if left:
            made.warnings.append(f"{len(left)} {what}: {', '.join(left)}.")
    incomplete = [case for case in paired if len(found[case]) != len(found[paired[0]])]
    if incomplete:
        raise DataError(
            f"{paired[0]} has {len(found[paired[0]])} channel files, {_few(incomplete)} another number; expected equal "
            "numbers. Add the missing files."
        )

    entries: list[dict[str, Any]] = [
        {"case_id": case, "image": _paths(found[case], root), "label": _paths([label_files[case]], root)}
        for case in paired
    ]
    if subject_pattern:
        for entry in entries:
            entry["subject"] = _subject(subject_pattern, entry["case_id"])
    subjects = len({entry.get("subject", entry["case_id"]) for entry in entries})
    if subjects < num_folds:
        what = "subjects" if subject_pattern else "cases"
        made.warnings.append(f"{subjects} {what} cannot give {num_folds} folds; using {subjects}.")
        made.folds = subjects
    tests = _cases(folders["test"], patterns) if test else {}
    table = {
        "name": name or root.name or "dataset",
        "modality": {str(i): channel for i, channel in enumerate(_modality(names, [found[c] for c in paired], made))},
        "labels": _labels(label_names, [label_files[case] for case in paired], made),
        "training": [
            {key: value for key, value in entry.items() if key != "case_id"}
            for entry in assign_folds(entries, made.folds, seed)
        ],
        "validation": [],
        "test": [{"image": _paths(files, root)} for files in tests.values()],
    }
    if strict and made.warnings:
        raise DataError(" ".join(made.warnings) + " Mend this, or allow it without --strict.")
    made.cases, made.tests = len(entries), len(tests)
    write_datalist(table, output, root)
    return made


def _folder(path: str | Path) -> Path:
    folder = Path(path)
    if not folder.is_dir():
        raise ConfigError(f"Folder {folder} not found; name an existing one.")
    return folder


def _cases(folder: Path, patterns: Sequence[str]) -> dict[str, list[Path]]:
    """Case -> its files by one pattern per channel; without patterns, grouped by nnU-Net's ``_0000``, ``_0001``, …"""
    files = sorted(
        path
        for path in folder.iterdir()
        if path.is_file() and path.name.lower().endswith(IMAGE_SUFFIXES) and not path.name.startswith(".")
    )
    if not patterns:
        groups: dict[str, list[Path]] = {}
        for path in files:
            groups.setdefault(_CHANNEL.sub("", stem_of(path)), []).append(path)
        return groups
    found: list[dict[str, Path]] = []
    for pattern in patterns:
        matches = [(match.group(1), path) for path in files if (match := _compile(pattern).fullmatch(path.name))]
        groups = {}
        for case, path in matches:
            groups.setdefault(case, []).append(path)
        _refuse_twins(groups, folder)
        found.append(dict(matches))
    every = sorted(set().union(*found))
    partial = [case for case in every if any(case not in channel for channel in found)]
    if partial:
        raise DataError(
            f"{len(partial)} cases in {folder} lack a file for some of {list(patterns)}: {_few(partial)}. Add the "
            "files, or mend the patterns."
        )
    return {case: [channel[case] for channel in found] for case in every}


def _refuse_twins(groups: Mapping[str, Sequence[Path]], folder: Path) -> None:
    for case, paths in groups.items():
        if len(paths) > 1:
            raise DataError(
                f"{folder} has {' and '.join(path.name for path in paths)} for case '{case}'; expected one file. "
                "Remove one, or give patterns with a suffix."
            )


def _compile(pattern: str) -> re.Pattern[str]:
    if pattern.count("{case}") != 1:
        raise ConfigError(f"Pattern {pattern!r} needs {{case}} exactly once, such as '{{case}}_0000.nii.gz'.")
    before, after = pattern.split("{case}")
    suffix = "" if after.lower().endswith(IMAGE_SUFFIXES) else f"(?i:{'|'.join(map(re.escape, IMAGE_SUFFIXES))})"
    return re.compile(f"{re.escape(before)}(.+?){re.escape(after)}{suffix}")


def _paths(files: Sequence[Path], root: Path) -> Any:
    # The folder is resolved, the file is not: it may be a link to anywhere.
    paths = [(file.parent.resolve() / file.name).relative_to(root).as_posix() for file in files]
    return paths if len(paths) > 1 else paths[0]


def _subject(pattern: str, case: str) -> str:
    try:
        match = re.search(pattern, case)
    except re.error as error:
        raise ConfigError(f"subject_pattern {pattern!r} is no regular expression ({error}); mend it.") from error
    if match is None:
        raise ConfigError(f"subject_pattern {pattern!r} matches nothing in '{case}'; it must match every case.")
    return match.group(1) if match.groups() else match.group(0)


def _modality(names: Sequence[str], cases: Sequence[Sequence[Path]], made: MadeDatalist) -> list[str]:
    number = len(cases[0])
    if not names and number == 1 and all(is_2d_file(files[0]) for files in cases):
        return ["grey" if all(_is_grey(files[0]) for files in cases) else "RGB"]
    if not names:
        made.warnings.append("No modality is given: MR is taken (normalised per case); use --modality CT for CT.")
        return ["MR"] if number == 1 else [f"MR {i}" for i in range(number)]
    if len(names) != number and number > 1:
        raise ConfigError(
            f"{number} files per case, but {len(names)} modality names ({', '.join(names)}); give one each."
        )
    return list(names)


def _is_grey(path: Path) -> bool:
    try:
        return is_grey(path)
    except OSError as error:  # Pillow cannot tell; what is wrong with the file, the reader says
        _read(path)
        raise DataError(f"{path} is no picture ({error}); export it again.") from error


def _read(path: Path, mask: bool = False) -> Volume:
    try:
        return read_volume(path, mask=mask)
    except Unreadable as error:
        raise DataError(". ".join(error.args)) from error


def _labels(names: Sequence[str], files: Sequence[Path], made: MadeDatalist) -> dict[str, str]:
    """Decathlon's ``labels``; values that have no name are read from the files, and always those of pictures, whose
    values are often spread over 0 to 255.
    """
    pictures = all(is_2d_file(path) for path in files)
    if names and not pictures:
        return {str(value): name for value, name in enumerate(names)}
    values: set[float] = {0.0}
    for path in files:
        values |= set(count_values(_read(path, mask=True).channels[0]))
    if any(not float(value).is_integer() for value in values) or len(values) > (_PICTURE_VALUES if pictures else 256):
        jpeg = any(path.suffix.lower() in (".jpg", ".jpeg") for path in files)
        raise DataError(
            f"The label files hold {len(values)} values, {min(values):g} to {max(values):g}; expected a few whole "
            + ("numbers. JPEG changes label values: save the masks as PNG with the values 0 and 255." if jpeg else "")
            + ("" if jpeg else "numbers. Are images listed as labels, or have the masks soft edges?")
            + ("" if jpeg or pictures else " Otherwise name the labels with --label_names.")
        )
    found = [int(value) for value in sorted(values)]
    if len(found) == 1:
        raise DataError("All label files are background throughout; expected a label. Name the labels: --label_names.")
    if names:
        return _named(names, found, made)
    if pictures and found == [0, 255]:
        made.notes.append("The masks hold 0 and 255: 255 is the label 'foreground'; rename it with --label_names.")
        return {"0": "background", "255": "foreground"}
    shown = ", ".join(map(str, found[1:]))
    made.warnings.append(f"Labels are named by the values found ({shown}); give names with --label_names.")
    return {"0": "background", **{str(value): f"label {value}" for value in found[1:]}}


def _named(names: Sequence[str], found: Sequence[int], made: MadeDatalist) -> dict[str, str]:
    """Names for the values 0, 1, 2, …, or in order for as many other values, such as 0 and 255."""
    if found[-1] < len(names):
        return {str(value): name for value, name in enumerate(names)}
    pairs = ", ".join(f"{value} is '{name}'" for value, name in zip(found, names, strict=False))
    if len(found) != len(names):
        raise DataError(
            f"The masks hold the values {', '.join(map(str, found))}, --label_names has {len(names)} names "
            f"({', '.join(names)}); expected one name per value, background first. Add or remove names."
        )
    made.notes.append(f"Names are given to the mask values in their order: {pairs}.")
    return {str(value): name for value, name in zip(found, names, strict=True)}


def _few(names: Any) -> str:
    shown = sorted(map(str, names))
    return (", ".join(shown[:5]) + (f", … ({len(shown)})" if len(shown) > 5 else "")) or "none"
