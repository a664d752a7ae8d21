"""A folder of images and a folder of labels, paired by name or by patterns with ``{case}``."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from medseg.data.case import complete_channels, numbered_channels
from medseg.data.dicom_cases import is_dicom_input
from medseg.data.layouts import Found, image_files
from medseg.errors import ConfigError, DataError, few
from medseg.transforms.reader import IMAGE_SUFFIXES, is_2d_file, stem_of

__all__ = ["TITLE", "compile_pattern", "files_by_case", "read", "recognises"]

TITLE = "folders of images and labels"

_IMAGES = ("images", "imagesTr", "image", "imgs", "img")
_LABELS = ("labels", "labelsTr", "label", "masks", "mask", "segmentations", "annotations")
_TEST = ("imagesTs", "test")


def recognises(folder: Path) -> bool:
    """Whether the folder holds one of images and one of labels, by their usual names."""
    return _inside(folder, _IMAGES) is not None and _inside(folder, _LABELS) is not None


def _inside(folder: Path, names: Sequence[str]) -> Path | None:
    return next((folder / name for name in names if (folder / name).is_dir()), None)


def read(
    folder: Path | None,
    *,
    images: str | Path | None = None,
    labels: str | Path | None = None,
    test: str | Path | None = None,
    image_pattern: str | None = None,
    label_pattern: str = "{case}",
    channels: Mapping[str, str] | None = None,
) -> Found:
    """Pair images with labels.

    Args:
        folder: holds folders of the usual names, where ``images`` and ``labels`` are not given.
        images, labels, test: folders; ``test`` holds images without labels. Images may be folders or zip archives of
            DICOM, named as their labels.
        image_pattern, label_pattern: file names with ``{case}``, with or without suffix; with ``/`` they are paths
            below the folder, such as ``{case}/imaging.nii.gz``. Default: the label's stem; for images also
            ``{case}_0000``, ``{case}_0001``, … where there are such files.
        channels: name -> pattern, for files of several channels with names of their own.

    Raises:
        ConfigError: a folder is missing, or a pattern cannot be used.
        DataError: no pair, or a case lacks a channel.
    """
    if folder is not None:
        images, labels = images or _inside(folder, _IMAGES), labels or _inside(folder, _LABELS)
        test = test or _inside(folder, _TEST)
    if images is None or labels is None:
        raise ConfigError(
            f"{folder or 'The datalist'} needs a folder of images and one of labels; name them with --images and "
            "--labels."
        )
    image_dir, label_dir = _folder(images), _folder(labels)
    patterns = list((channels or {}).values()) or ([image_pattern] if image_pattern else [])
    label_files = {case: files[0] for case, files in files_by_case(label_dir, [label_pattern]).items()}
    if not patterns and set(files_by_case(image_dir, ["{case}"])) & set(label_files):
        patterns = ["{case}"]
    found = files_by_case(image_dir, patterns) or _dicom_by_case(image_dir)
    paired = _paired(found, label_files, image_dir, label_dir)
    tests = files_by_case(_folder(test), patterns) or _dicom_by_case(_folder(test)) if test else {}
    folders = [image_dir, label_dir, *([_folder(test)] if test else [])]
    root = Path(os.path.commonpath([path.resolve() for path in folders]))
    result = Found(
        root.name or "dataset",
        root,
        {
            "training": [{"case_id": case, "image": found[case], "label": label_files[case]} for case in paired],
            "validation": [],
            "test": [{"case_id": case, "image": files} for case, files in tests.items()],
        },
        list(channels or {}),
    )
    unlabelled, unpaired = set(found) - set(label_files), set(label_files) - set(found)
    for what, left in (("images without label are skipped", unlabelled), ("labels have no image", unpaired)):
        if left:
            result.warnings.append(f"{len(left)} {what}: {', '.join(sorted(left))}.")
    return result


def _paired(
    found: Mapping[str, Sequence[Path]], label_files: Mapping[str, Path], image_dir: Path, label_dir: Path
) -> list[str]:
    """The cases that have images and a label, sorted."""
    paired = sorted(set(found) & set(label_files))
    if not paired:
        raise DataError(
            f"No image in {image_dir} pairs with a label in {label_dir}: images {few(found)}, labels "
            f"{few(label_files)}. Expected equal names; say how they differ with --image_pattern and "
            "--label_pattern, such as '{case}_0000.nii.gz'."
        )
    incomplete = [case for case in paired if len(found[case]) != len(found[paired[0]])]
    if incomplete:
        raise DataError(
            f"{paired[0]} has {len(found[paired[0]])} channel files, {few(incomplete)} another number; expected equal "
            "numbers. Add the missing files."
        )
    return paired


def _folder(path: str | Path) -> Path:
    folder = Path(path)
    if not folder.is_dir():
        raise ConfigError(f"Folder {folder} not found; name an existing one.")
    return folder


def files_by_case(folder: Path, patterns: Sequence[str]) -> dict[str, list[Path]]:
    """Case -> its files by one pattern per channel; without patterns, grouped by nnU-Net's ``_0000``, ``_0001``, …

    Raises:
        ConfigError: a pattern cannot be used.
        DataError: a case has two files of one channel, or lacks one.
    """
    if not patterns:
        return _by_channel_number(folder)
    found: list[dict[str, Path]] = []
    for pattern in patterns:
        expression, deep = compile_pattern(pattern), "/" in pattern
        groups: dict[str, list[Path]] = {}
        for path in image_files(folder, "**/*" if deep else "*"):
            match = expression.fullmatch(path.relative_to(folder).as_posix())
            if match:
                groups.setdefault(match["case"], []).append(path)
        _refuse_twins(groups, folder)
        found.append({case: paths[0] for case, paths in groups.items()})
    every = sorted(set().union(*found))
    partial = [case for case in every if any(case not in channel for channel in found)]
    if partial:
        raise DataError(
            f"{len(partial)} cases in {folder} lack a file for some of {list(patterns)}: {few(partial)}. Add the "
            "files, or fix the patterns."
        )
    return {case: [channel[case] for channel in found] for case in every}


def _dicom_by_case(folder: Path) -> dict[str, list[Path]]:
    """Folders and zip archives of DICOM, whose names are the cases'."""
    found = [path for path in sorted(folder.iterdir()) if path.is_dir() or path.suffix.lower() == ".zip"]
    return {stem_of(path) if path.is_file() else path.name: [path] for path in found if is_dicom_input(path)}


def _by_channel_number(folder: Path) -> dict[str, list[Path]]:
    files = image_files(folder)
    numbered, others = numbered_channels(files)
    if any(is_2d_file(case) and min(numbers) > 0 for case, numbers in numbered.items()):
        numbered, others = {}, files  # numbered 2D images of a series
    groups: dict[str, list[list[Path]]] = {}
    for case, channels in zip(numbered, complete_channels(numbered), strict=True):
        groups.setdefault(stem_of(case), []).append(channels)
    for file in others:
        groups.setdefault(stem_of(file), []).append([file])
    _refuse_twins({case: [files[0] for files in twins] for case, twins in groups.items()}, folder)
    return {case: twins[0] for case, twins in groups.items()}


def _refuse_twins(groups: Mapping[str, Sequence[Path]], folder: Path) -> None:
    for case, paths in groups.items():
        if len(paths) > 1:
            raise DataError(
                f"{folder} has {' and '.join(path.name for path in paths)} for case '{case}'; expected one file. "
                "Remove one, or give patterns with a suffix."
            )


def compile_pattern(pattern: str) -> re.Pattern[str]:
    """The regular expression of a pattern; its group ``case`` is what ``{case}`` stands for, each time the same.

    Raises:
        ConfigError: there is no ``{case}``.
    """
    before, *after = map(re.escape, pattern.split("{case}"))
    if not after or ("/" not in pattern and len(after) > 1):
        raise ConfigError(f"Pattern {pattern!r} needs {{case}} exactly once, such as '{{case}}_0000.nii.gz'.")
    known = pattern.lower().endswith(IMAGE_SUFFIXES)
    suffix = "" if known else f"(?i:{'|'.join(map(re.escape, IMAGE_SUFFIXES))})"
    return re.compile(f"{before}(?P<case>[^/]+?){'(?P=case)'.join(after)}{suffix}")
