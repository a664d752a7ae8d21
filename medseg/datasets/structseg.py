"""StructSeg 2019: organs at risk in CT of the head and neck, or of the thorax, with the sections of Hermes."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from medseg.datasets import DatasetFacts
from medseg.errors import ConfigError

__all__ = ["FACTS", "PARTS", "prepare"]


class _Part(NamedTuple):
    """One task of the challenge, and the numbers that Hermes holds out of its 50 (arXiv 2306.02416)."""

    title: str
    folder: str
    labels: dict[int, str]
    validation: tuple[int, ...]
    test: tuple[int, ...]


# The archive has numbers only; names and their order are of third parties.
_HEAD = (
    *("brain stem", "left eye", "right eye", "left lens", "right lens", "left optic nerve", "right optic nerve"),
    *("optic chiasm", "left temporal lobe", "right temporal lobe", "pituitary", "left parotid", "right parotid"),
    *("left inner ear", "right inner ear", "left middle ear", "right middle ear", "left temporomandibular joint"),
    *("right temporomandibular joint", "spinal cord", "left mandible", "right mandible"),
)
_THORAX = ("left lung", "right lung", "heart", "oesophagus", "trachea", "spinal cord")

PARTS = {
    "head": _Part(
        "StructSeg 2019, head and neck",
        "HaN_OAR",
        dict(enumerate(("background", *_HEAD))),
        validation=(25,),
        test=(1, 2, 45, 22, 47, 10, 5, 42, 40, 18),
    ),
    "thorax": _Part(
        "StructSeg 2019, thorax",
        "Thoracic_OAR",
        dict(enumerate(("background", *_THORAX))),
        validation=(3, 4),
        test=(44, 6, 29, 15, 37, 13, 1, 28, 48, 8),
    ),
}

FACTS = DatasetFacts(
    title="StructSeg 2019",
    spatial_dims=3,
    modality=("CT",),
    labels=PARTS["head"].labels,
    source="structseg2019.grand-challenge.org (registration)",
    terms="the terms accepted with the download; no redistribution",
    layout="HaN_OAR/{1/{data.nii.gz, label.nii.gz}, … 50}; for --part thorax (6 organs) Thoracic_OAR likewise",
    splits={"training": 39, "validation": 1, "test": 10},
)

_CASES = 50
_CONTEXT = (20, 20, 20)  # voxels (z, y, x)


def prepare(
    raw_dir: str | Path,
    out_dir: str | Path,
    *,
    part: str = "head",
    num_folds: int = 5,
    seed: int = 0,
    isotropic: bool = True,
    crop: bool = True,
) -> Path:
    """Write ``<out_dir>/structseg_<part>.json`` and, beside it, volumes of 1.5 mm, ``1.nii.gz``, ``1_gt.nii.gz`` ….

    Training, validation and test are the publication's; the folds of the training cases are ours.

    Args:
        out_dir: folder of the datalist and all copies; both parts have equal case names, so use one each.
        part: ``head`` (head and neck) or ``thorax``.
        num_folds: number of folds of the training cases.
        seed: random seed of the folds.
        isotropic: volumes of 1.5 mm; otherwise they keep their grid.
        crop: to the labels and 20 voxels around them, as published, of the test cases too, which makes those easier.

    Raises:
        ConfigError: another part.
        DataError: cases are missing.
        CasesFailed: some cannot be converted; the others are done.
    """
    from medseg.data.converted_pairs import convert_pairs, split_sections
    from medseg.data.isotropic import pairs_from_files

    if part not in PARTS:
        raise ConfigError(f"StructSeg has no part '{part}'; use {' or '.join(PARTS)}.")
    chosen, raw = PARTS[part], Path(raw_dir)
    numbers = range(1, _CASES + 1)
    files = {str(n): [f"{chosen.folder}/{n}/{kind}.nii.gz" for kind in ("data", "label")] for n in numbers}
    FACTS.require(raw, [file for pair in files.values() for file in pair])
    sources = {name: (raw / image, raw / label) for name, (image, label) in files.items()}
    return convert_pairs(
        FACTS.table(name=chosen.title, labels={str(value): name for value, name in chosen.labels.items()}),
        split_sections(numbers, chosen.validation, chosen.test),
        pairs_from_files(sources, isotropic=isotropic, context=_CONTEXT if crop else None),
        Path(out_dir) / f"structseg_{part}.json",
        form={"part": part, "isotropic": isotropic, "crop": crop},
        num_folds=num_folds,
        seed=seed,
    )
