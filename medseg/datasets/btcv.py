"""Beyond the Cranial Vault (BTCV), abdomen: 13 organs in portal-venous CT, with the 24/6 split of the literature."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from medseg.datasets import DatasetFacts
from medseg.errors import ConfigError

__all__ = ["FACTS", "HERMES", "prepare"]

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


# Of the 30 labelled cases, what Hermes holds out (arXiv 2306.02416).
HERMES = {"validation": (32,), "test": (6, 38, 22, 34, 26, 31)}
_HERMES_CONTEXT = (20, 20, 20)  # voxels (z, y, x)
_SPLITS = ("published", "hermes")


def prepare(
    raw_dir: str | Path,
    out_dir: str | Path,
    *,
    split: str = "published",
    num_folds: int = 0,
    seed: int = 0,
    isotropic: bool = True,
    crop: bool = True,
) -> Path:
    """Write ``<out_dir>/btcv.json``, and links to the images as a Decathlon archive has them.

    Paths are relative to ``out_dir``, where ``imagesTr``, ``labelsTr`` and ``imagesTs`` hold links into ``raw_dir``
    (copies where the system has no links), so that the datalist is the published one. With ``split="hermes"`` it is
    ``bcv.json``, the 30 labelled cases, and, beside it, volumes of 1.5 mm, ``img0001.nii.gz``, ``img0001_gt.nii.gz`` ….

    Args:
        split: ``published`` (24 and 6) or ``hermes`` (23, 1 and 6).
        num_folds: number of folds of the training cases; 0 keeps the split alone.
        seed: random seed of the folds.
        isotropic: for the split ``hermes``, volumes of 1.5 mm; otherwise they keep their grid.
        crop: for the split ``hermes``, a crop to the labels and 20 voxels around them, as published, of the test
            cases too, which makes those easier.

    Raises:
        ConfigError: another split.
        DataError: files are missing.
        CasesFailed: some cannot be converted; the others are done.
    """
    from medseg.data.convert import convert_files, link_or_copy

    raw, out = Path(raw_dir), Path(out_dir)
    if split not in _SPLITS:
        raise ConfigError(f"BTCV has no split '{split}'; use {' or '.join(_SPLITS)}.")
    if split == "hermes":
        return _prepare_hermes(raw, out, isotropic, crop, num_folds, seed)
    files = [pair for section, ids in _IDS.items() for number in ids for pair in _files(section, number)]
    FACTS.require(raw, [source for source, _ in files])
    convert_files([(raw / source, out / target) for source, target in files], link_or_copy)
    sections = {section: [_entry(section, number) for number in ids] for section, ids in _IDS.items()}
    return FACTS.write(
        out / "btcv.json",
        out,
        sections,
        num_folds=num_folds,
        seed=seed,
        description="Beyond the Cranial Vault: 13 organs in portal-venous abdominal CT; the published 24/6 split",
        reference="Vanderbilt University Medical Center; MICCAI 2015 challenge, Synapse syn3193805",
        licence=None,
        release="1.0",
        tensorImageSize="3D",
    )


def _prepare_hermes(raw: Path, out: Path, isotropic: bool, crop: bool, num_folds: int, seed: int) -> Path:
    """The labelled cases at 1.5 mm, in the sections of Hermes."""
    from medseg.data.converted_pairs import convert_pairs, split_sections
    from medseg.data.isotropic import pairs_from_files

    names = {number: f"img{number:04}" for section in ("training", "validation") for number in _IDS[section]}
    files = {names[n]: [source for source, _ in _files("training", n)] for n in names}
    FACTS.require(raw, [file for pair in files.values() for file in pair])
    sources = {name: (raw / image, raw / label) for name, (image, label) in files.items()}
    held_out = {section: [names[n] for n in numbers] for section, numbers in HERMES.items()}
    return convert_pairs(
        FACTS.table(),
        split_sections(files, held_out["validation"], held_out["test"]),
        pairs_from_files(sources, isotropic=isotropic, context=_HERMES_CONTEXT if crop else None),
        out / "bcv.json",
        form={"isotropic": isotropic, "crop": crop},
        num_folds=num_folds,
        seed=seed,
    )


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
