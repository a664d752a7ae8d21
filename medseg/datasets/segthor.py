"""SegTHOR: four organs at risk in CT of the thorax, at 1.5 mm; a downstream data set of Hermes (arXiv 2306.02416)."""

from __future__ import annotations

from pathlib import Path

from medseg.datasets import DatasetFacts

__all__ = ["FACTS", "prepare"]

FACTS = DatasetFacts(
    title="SegTHOR",
    spatial_dims=3,
    modality=("CT",),
    labels={0: "background", 1: "oesophagus", 2: "heart", 3: "trachea", 4: "aorta"},
    source="competitions.codalab.org/competitions/21145 (registration); Lambert et al. 2020, arXiv 1912.05950",
    terms="the terms accepted with the download; no redistribution",
    layout="train/Patient_01/{Patient_01.nii.gz, GT.nii.gz}, … Patient_40",
    splits={"training": 40},
)

_CONTEXT = (20, 20, 20)  # voxels (z, y, x), as most CT data sets of the publication


def prepare(
    raw_dir: str | Path,
    out_dir: str | Path,
    *,
    num_folds: int = 5,
    seed: int = 0,
    isotropic: bool = True,
    crop: bool = True,
) -> Path:
    """Write ``<out_dir>/segthor.json`` and, beside it, volumes of 1.5 mm.

    All 40 labelled patients are training cases, in folds: the publication names no split. The 20 test images have no
    labels; segment them as they are, with ``medseg infer``.

    Args:
        num_folds: number of folds of the patients.
        seed: random seed of the folds.
        isotropic: volumes of 1.5 mm; otherwise they keep their grid.
        crop: to the labels and 20 voxels around them.

    Raises:
        DataError: cases are missing.
        CasesFailed: some cannot be converted; the others are done.
    """
    from medseg.data.converted_pairs import convert_pairs
    from medseg.data.isotropic import pairs_from_files

    raw = Path(raw_dir)
    names = [f"Patient_{number:02}" for number in range(1, FACTS.splits["training"] + 1)]
    files = {name: (f"train/{name}/{name}.nii.gz", f"train/{name}/GT.nii.gz") for name in names}
    FACTS.require(raw, [file for pair in files.values() for file in pair])
    sources = {name: (raw / image, raw / label) for name, (image, label) in files.items()}
    return convert_pairs(
        FACTS.table(),
        {"training": [{"case_id": name} for name in names]},
        pairs_from_files(sources, isotropic=isotropic, context=_CONTEXT if crop else None),
        Path(out_dir) / "segthor.json",
        form={"isotropic": isotropic, "crop": crop},
        num_folds=num_folds,
        seed=seed,
    )
