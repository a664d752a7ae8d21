"""DICOM series below a folder, with the RTSTRUCT and DICOM-SEG that are drawn on them.

What is drawn is written once as label maps (NIfTI) on the series' volumes, beside the datalist. Nothing that is written
tells of a patient: cases are named by hashes, or by the user's pattern, and patients are numbered.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel
import numpy as np

from medseg.data.dicom_cases import case_id_of, is_dicom_input
from medseg.data.entry import Entry
from medseg.data.layouts import Found
from medseg.dicom import require_extra
from medseg.errors import ConfigError, DataError, few
from medseg.labels import BACKGROUND
from medseg.storage import whole_file
from medseg.transforms.nifti import new_image

if TYPE_CHECKING:
    from medseg.dicom.series import LabelObject, Series

__all__ = ["TITLE", "read", "recognises"]

TITLE = "DICOM with RTSTRUCT or DICOM-SEG"
_SHOWN = 5  # skipped series that are named
_MODALITIES = {"PT": "PET", "MR": "MR", "CT": "CT"}


def recognises(folder: Path) -> bool:
    """Whether a file below the folder is DICOM, and no image of another format lies in it."""
    return is_dicom_input(folder)


def read(
    folder: Path | None,
    *,
    test: str | Path | None = None,
    series: str | None = None,
    case_pattern: str | None = None,
    modality: Sequence[str] = (),
    label_names: Sequence[str] = (),
    output: Path = Path("dataset.json"),
) -> Found:
    """Pair series with what is drawn on them.

    Args:
        folder: series and labels, in any order of folders.
        test: folder of further series, without labels.
        series: which series (``medseg.dicom.series.choose``); default: those that labels refer to.
        case_pattern: regular expression for the case id in the folder of a series.
        modality: name of the channel; default: that of the series, if all have one.
        label_names: background, then the structures that are labels; default: all.
        output: the datalist, beside which ``<name>_labels`` is made.

    Raises:
        ConfigError: no folder, the extra is missing, or a pattern finds nothing.
        DataError: no series has labels, or several label files; a structure is named that none has.
    """
    require_extra()
    from medseg.dicom.series import choose, scan

    if folder is None:
        raise ConfigError("DICOM needs the folder that holds the series and their labels; name it.")
    choice = choose([folder], series or "all")
    chosen = choice.series
    drawn: dict[str, list[LabelObject]] = {}
    for drawing in scan(folder).labels:
        for uid in drawing.series:
            drawn.setdefault(uid, []).append(drawing)
    # Several volumes may share a UID (echoes of one acquisition); labels are of the one with the most slices.
    main = {item.uid: item for item in sorted(chosen, key=lambda one: len(one.frames))}
    labelled = [item for item in main.values() if item.uid in drawn]
    if not labelled:
        raise DataError(
            f"{folder} holds {len(chosen)} DICOM series and {len(scan(folder).labels)} label files, none of which "
            "refers to one of these series; expected RTSTRUCT or DICOM-SEG of them. Copy them into the folder."
        )
    twice = [item.name for item in labelled if len(drawn[item.uid]) > 1]
    if twice:
        raise DataError(
            f"{few(twice)} {'has' if len(twice) == 1 else 'have'} several label files; expected one RTSTRUCT or "
            "DICOM-SEG for a series. Move the others away."
        )
    labels = {item.name: drawn[item.uid][0] for item in labelled}
    values = _values(list(labels.values()), label_names)
    target = output.parent / f"{output.stem}_labels"
    root = Path(os.path.commonpath([folder.resolve(), target.resolve().parent]))
    found = Found(folder.resolve().name, root, {"training": [], "validation": [], "test": []}, list(modality))
    patients = sorted({item.patient for item in labelled})
    for item in sorted(labelled, key=lambda one: one.name):
        case = case_id_of(item, folder, case_pattern)
        entry: Entry = {"case_id": case, "image": [Path(item.path)], "label": target / f"{case}.nii.gz"}
        if all(patients):
            entry["subject"] = f"subject_{patients.index(item.patient) + 1:03}"
        _write_label(entry["label"], labels[item.name], item, values, found)
        found.sections["training"].append(entry)
    found.notes += choice.notes[:_SHOWN]
    if len(choice.notes) > _SHOWN:
        found.notes.append(f"Further series that are skipped: {len(choice.notes) - _SHOWN}.")
    if test is not None:
        further = choose([Path(test)], series)
        found.notes += further.notes
        found.sections["test"] = [
            {"case_id": case_id_of(item, Path(test), case_pattern), "image": [Path(item.path)]}
            for item in further.series
        ]
        found.root = Path(os.path.commonpath([root, Path(test).resolve()]))
    kinds = {_MODALITIES.get(item.modality, item.modality) for item in labelled}
    if not modality and len(kinds) == 1:
        found.modality = sorted(kinds)
    found.labels = {"0": BACKGROUND, **{str(value): name for name, value in values.items()}}
    if left := [item.about for item in chosen if item not in labelled]:
        found.warnings.append(f"{len(left)} series without label are skipped: {few(left)}.")
    return found


def _values(items: Sequence[LabelObject], names: Sequence[str]) -> dict[str, int]:
    """Structure -> label value: those that the user names, else all, in the order of the files."""
    from medseg.dicom.labels import label_names

    held = {item.uid: label_names(item) for item in items}
    every = dict.fromkeys(name for own in held.values() for name in own)
    wanted = list(names[1:]) or list(every)
    absent = [name for name in wanted if name not in every]
    if absent:
        raise DataError(
            f"No label file has a structure {few(absent)}; expected some of {few(every)}. Name those with "
            "--label_names, background first."
        )
    return {name: value for value, name in enumerate(wanted, 1)}


def _write_label(path: Path, item: LabelObject, series: Series, values: Mapping[str, int], found: Found) -> None:
    from medseg.dicom.labels import read_label_map

    try:
        label_map, shared = read_label_map(item, series, values)
        affine: np.ndarray = series.stack.affine
    except DataError as error:
        raise DataError(f"{series.name}: {error}") from error
    if shared:
        found.warnings.append(
            f"{series.name}: {shared} voxels are in several structures, and are the last one's; order them with "
            "--label_names."
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as temporary:
        image: Any = new_image(label_map, affine)
        nibabel.save(image, temporary)
