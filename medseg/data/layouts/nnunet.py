"""nnU-Net's raw folders: ``DatasetXXX_Name`` of version 2 and ``TaskXXX_Name`` of version 1.

``imagesTr/<case>_0000<ending>``, ``_0001``, … are the channels that ``dataset.json`` names, ``labelsTr/<case><ending>``
the labels. Version 2 may list files anywhere under ``dataset``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medseg.data.case import numbered_channels
from medseg.data.entry import Entry
from medseg.data.layouts import Found, image_files
from medseg.errors import DataError, few
from medseg.labels import LabelSpace
from medseg.storage import read_json, read_table
from medseg.transforms.reader import IMAGE_SUFFIXES, is_2d_file, stem_of

__all__ = ["TITLE", "read", "recognises"]

TITLE = "nnU-Net raw folder"

_SPLITS = "splits_final.json"


def recognises(folder: Path) -> bool:
    """Whether ``dataset.json`` has the keys of version 2, or, of version 1, files have the suffixes of channels."""
    source = folder / "dataset.json"
    table = read_json(source) if source.is_file() else None
    if not isinstance(table, dict):
        return False
    # A folder of the Decathlon may have files that end so: there the list names them with it.
    listed = [str(entry.get("image")) for entry in table.get("training", []) if isinstance(entry, dict)]
    absent = bool(listed) and not (folder / listed[0]).is_file() and any((folder / "imagesTr").glob("*_0000.*"))
    return "channel_names" in table or "file_ending" in table or absent


def read(folder: Path) -> Found:
    """Every case with all channels and its label.

    Raises:
        DataError: a channel, an image or a label is missing, or ``dataset.json`` lacks what is needed.
    """
    source = folder / "dataset.json"
    table = read_table(source, "an object with 'channel_names', 'labels' and 'file_ending'")
    channels = _names(table, source)
    ending = str(table.get("file_ending", ".nii.gz"))
    if not ending.lower().endswith(IMAGE_SUFFIXES):
        raise DataError(
            f"{source} names the file ending '{ending}'; known are {' '.join(IMAGE_SUFFIXES)}. Convert the images."
        )
    if "dataset" in table:
        training, root = _listed(table["dataset"], folder, source)
    else:
        training, root = _labelled(folder, ending, len(channels)), folder.resolve()
    if all(len(case["image"]) == 1 and is_2d_file(case["image"][0]) for case in training) and len(channels) == 3:
        channels = ["RGB"]  # one 2D image holds the three
    for case in training:
        if len(case["image"]) != len(channels):
            raise DataError(
                f"{case['case_id']} has {len(case['image'])} channel files, {source} names {len(channels)} channels "
                f"({', '.join(channels)}); expected one file each. Fix the list."
            )
    tests = _images(folder / "imagesTs", ending, len(channels)) if (folder / "imagesTs").is_dir() else {}
    found = Found(
        str(table.get("name") or re.sub(r"^(Dataset|Task)\d{3}_", "", folder.resolve().name)),
        root,
        {
            "training": training,
            "validation": [],
            "test": [_test(case, files, folder, ending) for case, files in tests.items()],
        },
        channels,
        about={
            key: table[key] for key in ("description", "reference", "licence", "license", "release") if key in table
        },
    )
    _set_labels(found, table.get("labels", {}), source)
    _find_splits(found, folder)
    if isinstance(number := table.get("numTraining"), int) and number != len(training):
        found.warnings.append(f"{source} states {number} training cases, the folder has {len(training)}.")
    if any(name.lower() == "nonorm" for name in channels):
        found.warnings.append("Channel 'noNorm' is without normalisation in nnU-Net; here it gets a z-score per case.")
    return found


def _names(table: Mapping[str, Any], source: Path) -> list[str]:
    names = table.get("channel_names", table.get("modality"))
    if not isinstance(names, Mapping) or sorted(map(str, names)) != sorted(map(str, range(len(names)))) or not names:
        raise DataError(f'{source}: \'channel_names\' is {names!r}; expected for example {{"0": "CT"}}. Fix the file.')
    return [str(names[key]) for key in sorted(names, key=int)]


def _images(folder: Path, ending: str, number: int) -> dict[str, list[Path]]:
    """Case -> its channel files, complete and in order; of one case in one colour image, that file."""
    numbered, _ = numbered_channels(path for path in image_files(folder) if path.name.endswith(ending))
    files = {stem_of(case): channels for case, channels in numbered.items()}
    if not files:
        raise DataError(
            f"{folder} holds no file *_0000{ending}; expected one per case and channel. Name the folder of the raw "
            "data, or fix 'file_ending' in dataset.json."
        )
    colour = number == 3 and is_2d_file(ending) and all(list(channels) == [0] for channels in files.values())
    for case, channels in sorted(files.items()):
        expected = [0] if colour else range(number)
        lacking = [folder / f"{case}_{channel:04}{ending}" for channel in expected if channel not in channels]
        if lacking:
            raise DataError(
                f"Case {case} lacks {', '.join(path.name for path in lacking)} in {folder}; dataset.json names "
                f"{number} channels. Add the file, or remove the case."
            )
        if len(channels) > len(expected):
            raise DataError(
                f"Case {case} has {len(channels)} channel files in {folder}, dataset.json names {number}; name them "
                "all in 'channel_names', or remove the others."
            )
    return {case: [channels[index] for index in sorted(channels)] for case, channels in sorted(files.items())}


def _labelled(folder: Path, ending: str, number: int) -> list[Entry]:
    for name in ("imagesTr", "labelsTr"):
        if not (folder / name).is_dir():
            raise DataError(
                f"{folder} has no {name}; expected an nnU-Net raw folder with imagesTr and labelsTr. Name the one "
                "below nnUNet_raw, not that of preprocessed data."
            )
    images = _images(folder / "imagesTr", ending, number)
    labels = {path.name.removesuffix(ending): path for path in image_files(folder / "labelsTr", f"*{ending}")}
    for have, lack, what in (
        (labels, images, "labelsTr has {} without an image in imagesTr: {}. Add the images, or remove the labels."),
        (images, labels, "imagesTr has {} without a label in labelsTr: {}. Add the labels, or move the images away."),
    ):
        alone = sorted(set(have) - set(lack))
        if alone:
            count = f"{len(alone)} case{'s' if len(alone) > 1 else ''}"
            raise DataError(f"{folder}: {what.format(count, few(alone))}")
    return [{"case_id": case, "image": files, "label": labels[case]} for case, files in images.items()]


def _listed(cases: Any, folder: Path, source: Path) -> tuple[list[Entry], Path]:
    """The cases that version 2 lists with their files, and the folder that holds them all."""
    entries = cases.items() if isinstance(cases, Mapping) else ()
    found: list[Entry] = [
        {
            "case_id": str(case),
            "image": [_normal(folder / str(file)) for file in entry.get("images", ())],
            "label": _normal(folder / str(entry.get("label"))),
        }
        for case, entry in entries
        if isinstance(entry, Mapping)
    ]
    files = [file for case in found for file in (*case["image"], case["label"])]
    missing = [file for file in files if not file.is_file()]
    if missing or not found:
        what = f"{len(missing)} of {len(files)} files are missing: {few(missing)}" if files else "no case is listed"
        raise DataError(f"'dataset' of {source}: {what}; expected 'images' and 'label' of each case. Fix the list.")
    return found, Path(os.path.commonpath([folder.resolve(), *(file.parent for file in files)]))


def _normal(path: Path) -> Path:
    """Without ``..``; the file itself may be a link."""
    return path.parent.resolve() / path.name


def _test(case: str, files: list[Path], folder: Path, ending: str) -> Entry:
    label = folder / "labelsTs" / f"{case}{ending}"
    return {"case_id": case, "image": files} | ({"label": label} if label.is_file() else {})


def _set_labels(found: Found, labels: Any, source: Path) -> None:
    """The label table; regions that are not nested cannot be sigmoid channels, but evaluated all the same."""
    found.labels = labels
    try:
        LabelSpace.from_table({"labels": labels})
    except DataError as error:
        if "cannot be written to a label map" not in str(error):
            raise DataError(f"{source}: {error}") from error
        LabelSpace.from_table({"labels": labels, "mode": "softmax"})
        found.about["label_space"] = {"labels": labels, "mode": "softmax"}
        found.notes.append("The regions are not nested: labels are learned as exclusive, regions are evaluated.")


def _find_splits(found: Found, folder: Path) -> None:
    """``splits_final.json`` in the folder, or in the preprocessed one that nnU-Net keeps beside the raw one."""
    here = folder.resolve()
    for place in (here, *(parent / "nnUNet_preprocessed" / here.name for parent in here.parents[:3])):
        if (place / _SPLITS).is_file():
            found.splits = place / _SPLITS
            return
        if (place / "splits_final.pkl").is_file():
            found.warnings.append(
                f"{place / 'splits_final.pkl'} is a pickle, which could run code and is not opened; write it as "
                f"{_SPLITS} to keep its folds."
            )
            return
