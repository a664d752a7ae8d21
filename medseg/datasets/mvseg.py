"""MVSeg 2023: the leaflets of the mitral valve in 3D transoesophageal echocardiography, with the challenge's split."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from medseg.datasets import DatasetFacts
from medseg.errors import DataError

__all__ = ["FACTS", "SIZES", "prepare"]

FACTS = DatasetFacts(
    title="MVSeg 2023",
    spatial_dims=3,
    modality=("US",),
    labels={0: "background", 1: "posterior leaflet", 2: "anterior leaflet"},
    source="synapse.org/MVSeg2023 (registration); Carnahan et al. 2021, DeepMitral, MICCAI",
    terms="the terms accepted at Synapse; no redistribution",
    layout="{train/{train_001-US.nii.gz, train_001-label.nii.gz, …}, val/{val_001-US.nii.gz, …}, test/{…}}",
    splits={"training": 105, "validation": 30, "test": 40},
)

SIZES = ("224x160x208", "112x80x104", "75x54x70", "56x40x52")  # voxels of the resolution study, arXiv 2507.08205
_FOLDERS = {"training": "train", "validation": "val", "test": "test"}


def prepare(raw_dir: str | Path, out_dir: str | Path, *, num_folds: int = 0, seed: int = 0) -> Path:
    """Write ``<out_dir>/mvseg23.json`` with the challenge's sections; paths are relative to ``raw_dir``.

    The test section is empty where its folder is not there; its cases have labels where the archive has them.

    Args:
        num_folds: number of folds of the training cases; 0 keeps the challenge's split alone.
        seed: random seed of the folds.

    Raises:
        DataError: a section is empty, or an image has no label.
    """
    raw = Path(raw_dir)
    sections = {section: _entries(raw, section) for section in _FOLDERS}
    for section in ("training", "validation"):
        if not sections[section]:
            hint = FACTS.hint(raw, "*/train", otherwise="Unpack the archives again")
            raise DataError(f"{raw / _FOLDERS[section]} holds no image <case>-US.nii.gz. {hint}")
    return FACTS.write(
        Path(out_dir) / "mvseg23.json",
        raw,
        sections,
        num_folds=num_folds,
        seed=seed,
        name="MVSeg'23",
        description="Leaflets of the mitral valve in 3D transoesophageal echocardiography; the challenge's split",
        tensorImageSize="3D",
    )


def _entries(raw: Path, section: str) -> list[dict[str, Any]]:
    entries = []
    for image in sorted((raw / _FOLDERS[section]).glob("*-US.nii.gz")):
        case = image.name.removesuffix("-US.nii.gz")
        entry = {"image": image.relative_to(raw).as_posix(), "case_id": case}
        label = image.with_name(f"{case}-label.nii.gz")
        if label.is_file():
            entry["label"] = label.relative_to(raw).as_posix()
        elif section != "test":
            raise DataError(f"{label.relative_to(raw)} is missing in {raw}; unpack the archives again.")
        entries.append(entry)
    return entries
