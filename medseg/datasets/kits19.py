"""KiTS 2019: kidneys and kidney tumours in CT, at 1.5 mm with the sections of Hermes (arXiv 2306.02416)."""

from __future__ import annotations

from pathlib import Path

from medseg.datasets import DatasetFacts

__all__ = ["FACTS", "TEST", "VALIDATION", "prepare"]

FACTS = DatasetFacts(
    title="KiTS 2019",
    spatial_dims=3,
    modality=("CT",),
    labels={0: "background", 1: "kidney", 2: "kidney tumour"},
    source="github.com/neheller/kits19; Heller et al. 2021, Medical Image Analysis 67, 101821",
    terms="CC BY-NC-SA 4.0",
    layout="case_00000/{imaging.nii.gz, segmentation.nii.gz}, … case_00209",
    splits={"training": 159, "validation": 9, "test": 42},
)

_CASES = 210
_CONTEXT = (30, 40, 20)  # voxels (z, y, x)
VALIDATION = (1, 18, 37, 40, 55, 89, 110, 127, 161)
TEST = (
    *(6, 10, 13, 17, 19, 22, 26, 31, 32, 43, 44, 46, 49, 51, 54, 58, 70, 71, 72, 76, 92, 93, 97, 104, 108, 118, 131),
    *(134, 144, 146, 159, 165, 167, 170, 178, 179, 181, 184, 188, 193, 195, 196),
)


def prepare(
    raw_dir: str | Path,
    out_dir: str | Path,
    *,
    num_folds: int = 5,
    seed: int = 0,
    isotropic: bool = True,
    crop: bool = True,
) -> Path:
    """Write ``<out_dir>/kits19.json`` and, beside it, volumes of 1.5 mm, ``0.nii.gz`` and ``0_gt.nii.gz`` ….

    Training, validation and test are the publication's; the folds of the training cases are ours.

    Args:
        num_folds: number of folds of the training cases.
        seed: random seed of the folds.
        isotropic: volumes of 1.5 mm; otherwise they keep their grid.
        crop: to the labels and 30, 40 and 20 voxels (z, y, x) around them, as published, of the test cases too, which
            makes those easier.

    Raises:
        DataError: cases are missing.
        CasesFailed: some cannot be converted; the others are done.
    """
    from medseg.data.converted_pairs import convert_pairs, split_sections
    from medseg.data.isotropic import pairs_from_files

    raw = Path(raw_dir)
    files = {str(n): [f"case_{n:05}/{kind}.nii.gz" for kind in ("imaging", "segmentation")] for n in range(_CASES)}
    FACTS.require(raw, [file for pair in files.values() for file in pair])
    sources = {name: (raw / image, raw / label) for name, (image, label) in files.items()}
    return convert_pairs(
        FACTS.table(),
        split_sections(range(_CASES), VALIDATION, TEST),
        pairs_from_files(sources, isotropic=isotropic, context=_CONTEXT if crop else None),
        Path(out_dir) / "kits19.json",
        form={"isotropic": isotropic, "crop": crop},
        num_folds=num_folds,
        seed=seed,
    )
