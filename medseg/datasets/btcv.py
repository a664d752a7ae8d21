"""Beyond the Cranial Vault (BTCV), abdomen: 13 organs in portal-venous CT, with the 24/6 split of the literature."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from medseg.datasets import DatasetFacts
from medseg.errors import DataError

__all__ = ["FACTS", "prepare"]

FACTS = DatasetFacts(
    title="BTCV",
    spatial_dims=3,
    modality=("CT",),
    labels={
        0: "background",
        1: "spleen",
        2: "right kidney",
        3: "left kidney",
        4: "gallbladder",
        5: "esophagus",
        6: "liver",
        7: "stomach",
        8: "aorta",
        9: "inferior vena cava",
        10: "portal and splenic veins",
        11: "pancreas",
        12: "right adrenal gland",
        13: "left adrenal gland",
    },
    source="Synapse syn3193805, Abdomen/RawData.zip (registration); MICCAI 2015 challenge, Vanderbilt University",
    terms="the terms accepted at Synapse; no redistribution",
    layout="RawData/{Training/img/img0001.nii.gz, Training/label/label0001.nii.gz, Testing/img/img0061.nii.gz, …}",
    splits={"training": 24, "validation": 6, "test": 20},
)

# The split of UNETR, Swin UNETR and SSH-UNet.
_IDS = {"training": (*range(1, 11), *range(21, 35)), "validation": range(35, 41), "test": range(61, 81)}


def prepare(raw_dir: str | Path, out_dir: str | Path, *, num_folds: int = 0, seed: int = 0) -> Path:
    """Write ``<out_dir>/btcv.json``, and links to the images as a Decathlon archive has them.

    Paths are relative to ``out_dir``, where ``imagesTr``, ``labelsTr`` and ``imagesTs`` hold links into ``raw_dir``
    (copies where the system has no links), so that the datalist is the published one.

    Args:
        raw_dir: ``RawData`` as unpacked.
        out_dir: where the datalist and the links go.
        num_folds: folds of the 24 training cases; 0 keeps the published split alone.
        seed: of the folds.

    Raises:
        DataError: files are missing.
    """
    from medseg.data import assign_folds, write_datalist
    from medseg.data.convert import convert_files, link_or_copy

    raw, out = Path(raw_dir), Path(out_dir)
    files = [pair for section, ids in _IDS.items() for number in ids for pair in _files(section, number)]
    _refuse_missing(raw, [source for source, _ in files])
    convert_files([(raw / source, out / target) for source, target in files], link_or_copy)
    sections = {section: [_entry(section, number) for number in ids] for section, ids in _IDS.items()}
    if num_folds:
        sections["training"] = assign_folds(sections["training"], num_folds, seed)
    table: dict[str, Any] = {
        "name": "BTCV",
        "description": "Beyond the Cranial Vault: 13 organs in portal-venous abdominal CT; the published 24/6 split",
        "reference": "Vanderbilt University Medical Center; MICCAI 2015 challenge, Synapse syn3193805",
        "release": "1.0",
        "tensorImageSize": "3D",
        "modality": {str(index): name for index, name in enumerate(FACTS.modality)},
        "labels": {str(value): name for value, name in FACTS.labels.items()},
        "numTraining": len(sections["training"]),
        "numValidation": len(sections["validation"]),
        "numTest": len(sections["test"]),
    }
    return write_datalist(table | sections, out / "btcv.json")


def _entry(section: str, number: int) -> dict[str, Any]:
    if section == "test":
        return {"image": f"imagesTs/img{number:04}.nii.gz"}
    return {"image": f"imagesTr/img{number:04}.nii.gz", "label": f"labelsTr/label{number:04}.nii.gz"}


def _files(section: str, number: int) -> list[tuple[str, str]]:
    """A case's files: in the archive, and in the datalist."""
    entry = _entry(section, number)
    folder = "Testing" if section == "test" else "Training"
    raw = {"image": f"{folder}/img/img{number:04}.nii.gz", "label": f"{folder}/label/label{number:04}.nii.gz"}
    return [(raw[key], path) for key, path in entry.items()]


def _refuse_missing(raw: Path, files: list[str]) -> None:
    missing = [file for file in files if not (raw / file).is_file()]
    if not missing:
        return
    inner = next((folder.parent for folder in raw.glob("*/Training")), None)
    hint = f"Did you mean {inner}?" if inner else f"Unpack the archive again; expected {FACTS.layout}."
    listed = ", ".join(missing[:5]) + (", …" if len(missing) > 5 else "")
    raise DataError(f"{len(missing)} of {len(files)} files of BTCV are missing in {raw}: {listed}. {hint}")
