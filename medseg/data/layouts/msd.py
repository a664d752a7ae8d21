"""A task of the Medical Segmentation Decathlon, or a folder made like one: ``dataset.json`` lists every file."""

from __future__ import annotations

from pathlib import Path

from medseg.data.datalist_file import read_datalist
from medseg.data.datalist_form import SECTIONS
from medseg.data.layouts import Found
from medseg.errors import DataError, few
from medseg.storage import read_json

__all__ = ["TITLE", "read", "recognises"]

TITLE = "Medical Segmentation Decathlon"

_MADE_ANEW = (*SECTIONS, "testing", "name", "modality", "labels", "numTraining", "numValidation", "numTest")


def recognises(folder: Path) -> bool:
    """Whether there is a ``dataset.json`` with a list of training cases."""
    source = folder / "dataset.json"
    table = read_json(source) if source.is_file() else None
    return isinstance(table, dict) and isinstance(table.get("training"), list)


def read(folder: Path) -> Found:
    """The cases that ``dataset.json`` lists, with its folds, subjects and label table.

    Raises:
        DataError: the list is not valid, or files that it names are missing.
    """
    datalist = read_datalist(folder / "dataset.json", folder)
    sections = {
        name: [case.to_dict() | {"image": [Path(file) for file in case.images]} for case in cases]
        for name, cases in datalist.sections.items()
        if cases or name in SECTIONS
    }
    for case in (case for cases in sections.values() for case in cases if case.get("label")):
        case["label"] = Path(case["label"])
    named = [file for cases in sections.values() for c in cases for file in (*c["image"], c.get("label")) if file]
    missing = [file for file in named if not file.is_file()]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(named)} files that {datalist.path} names are missing: "
            f"{few([path.relative_to(folder) for path in missing])}. Unpack the archive again, or fix the list."
        )
    return Found(
        datalist.name,
        folder.resolve(),
        sections,
        list(datalist.channels),
        datalist.table.get("labels", {}),
        {key: value for key, value in datalist.table.items() if key not in _MADE_ANEW},
    )
