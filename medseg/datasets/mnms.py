"""M&Ms: the heart in short-axis cine MR of several vendors, the two labelled phases of each subject, at 1.5 mm."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING

from medseg.datasets import DatasetFacts
from medseg.errors import DataError

if TYPE_CHECKING:
    from medseg.data.isotropic import Pair

__all__ = ["FACTS", "prepare"]

FACTS = DatasetFacts(
    title="M&Ms",
    spatial_dims=3,
    modality=("cine MRI",),
    labels={0: "background", 1: "left ventricle cavity", 2: "left ventricle myocardium", 3: "right ventricle cavity"},
    source="www.ub.edu/mnms (registration); Campello et al. 2021, IEEE TMI 40, 3543",
    terms="the terms accepted with the download",
    layout="{Training/Labeled, Validation, Testing}/{A0S9V9/{A0S9V9_sa.nii.gz, A0S9V9_sa_gt.nii.gz}, …} and "
    "the table …Dataset_Information….csv",
    splits={"training": 300, "validation": 68, "test": 272},
)

_CONTEXT = (20, 40, 40)  # voxels (z, y, x)
_FOLDERS = {"training": "Training/Labeled", "validation": "Validation", "test": "Testing"}
_PHASES = 2


def prepare(
    raw_dir: str | Path,
    out_dir: str | Path,
    *,
    num_folds: int = 5,
    seed: int = 0,
    isotropic: bool = True,
    crop: bool = True,
) -> Path:
    """Write ``<out_dir>/mnms.json`` and, beside it, volumes of 1.5 mm, ``A0S9V9_0.nii.gz``, ``A0S9V9_1.nii.gz`` ….

    A subject's two cases are the frames with labels, in order of time. Where the archive's table is there, a case names
    its ``phase``, ED or ES, and the scanner's ``vendor``. Sections are the challenge's; those of Hermes are in
    ``data_json/hermes/mnm.json``, which fits the files made here.

    Args:
        num_folds: number of folds of the training subjects.
        seed: random seed of the folds.
        isotropic: volumes of 1.5 mm; otherwise they keep their grid.
        crop: to the labels and 20, 40 and 40 voxels (z, y, x) around them, as published, of the test cases too, which
            makes those easier.

    Raises:
        DataError: subjects are missing, or the table cannot be used.
        CasesFailed: some cannot be converted; the others are done.
    """
    from medseg.data.converted_pairs import convert_pairs
    from medseg.data.isotropic import to_form

    raw = Path(raw_dir)
    subjects = {section: _subjects(raw, folder) for section, folder in _FOLDERS.items()}
    _refuse_incomplete(raw, subjects)
    table = _read_table(raw)
    folders = {name: raw / _FOLDERS[section] / name for section, names in subjects.items() for name in names}

    def make(case: str) -> Pair:
        name, _, index = case.rpartition("_")
        return to_form(_read(folders[name], int(index)), isotropic=isotropic, context=_CONTEXT if crop else None)

    sections = {
        section: [
            {"case_id": f"{name}_{index}", "subject": name, **facts}
            for name in names
            for index, facts in enumerate(table.get(name, [{}] * _PHASES))
        ]
        for section, names in subjects.items()
    }
    return convert_pairs(
        FACTS.table(),
        sections,
        make,
        Path(out_dir) / "mnms.json",
        form={"isotropic": isotropic, "crop": crop},
        num_folds=num_folds,
        seed=seed,
    )


def _subjects(raw: Path, folder: str) -> list[str]:
    return sorted(path.name for path in (raw / folder).glob("*") if path.is_dir())


def _refuse_incomplete(raw: Path, subjects: dict[str, list[str]]) -> None:
    counts = [
        f"{_FOLDERS[section]} has {len(names)} of {FACTS.splits[section] // _PHASES} subjects"
        for section, names in subjects.items()
        if len(names) != FACTS.splits[section] // _PHASES
    ]
    if counts:
        raise DataError(f"M&Ms is incomplete in {raw}: {'; '.join(counts)}. {FACTS.hint(raw, '*/Training')}")
    files = [
        f"{_FOLDERS[section]}/{name}/{name}_{kind}.nii.gz"
        for section, names in subjects.items()
        for name in names
        for kind in ("sa", "sa_gt")
    ]
    FACTS.require(raw, files)


def _read_table(raw: Path) -> dict[str, list[dict[str, str]]]:
    """Subject -> what the archive's table says of its earlier and its later phase; empty without a table."""
    file = next((path for path in sorted(raw.glob("*.csv")) if "information" in path.name.lower()), None)
    if file is None:
        return {}
    with file.open(encoding="utf-8-sig", newline="") as stream:
        rows = list(csv.DictReader(stream))
    try:
        phases = {row["External code"]: sorted((int(row[phase]), phase) for phase in ("ED", "ES")) for row in rows}
        vendors = {row["External code"]: row["VendorName"] for row in rows}
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{file} is not the table of M&Ms ({error}); expected the columns External code, VendorName, ED and ES. "
            "Copy it from the archive again, or take it away: it is not needed."
        ) from error
    return {
        name: [{"phase": phase, "vendor": vendors[name]} for _, phase in ordered] for name, ordered in phases.items()
    }


def _read(folder: Path, index: int) -> Pair:
    """The frame and the label of a subject's labelled phase ``index``."""
    import numpy as np
    import SimpleITK as sitk

    from medseg.data.isotropic import refuse_other_grid

    image, label = (sitk.ReadImage(str(folder / f"{folder.name}_{kind}.nii.gz")) for kind in ("sa", "sa_gt"))
    refuse_other_grid(image, label, f"{folder.name}_sa.nii.gz", f"{folder.name}_sa_gt.nii.gz")
    frames = np.flatnonzero(sitk.GetArrayViewFromImage(label).any(axis=(1, 2, 3)))
    if len(frames) != _PHASES:
        raise DataError(
            f"{folder.name}_sa_gt.nii.gz has labels in {len(frames)} frames ({', '.join(map(str, frames)) or 'none'}); "
            "expected two, ED and ES. Get the file again."
        )
    frame = int(frames[index])
    image, label = image[:, :, :, frame], label[:, :, :, frame]
    label.CopyInformation(image)
    return image, label
