"""LiTS: liver and liver tumours in CT, at 1.5 mm with the sections of Hermes (arXiv 2306.02416)."""

from __future__ import annotations

from pathlib import Path

from medseg.datasets import DatasetFacts
from medseg.errors import DataError, few

__all__ = ["FACTS", "TEST", "VALIDATION", "WRONG_SPACING", "prepare"]

FACTS = DatasetFacts(
    title="LiTS",
    spatial_dims=3,
    modality=("CT",),
    labels={0: "background", 1: "liver", 2: "liver tumour"},
    source="competitions.codalab.org/competitions/17094; Bilic et al. 2023, Medical Image Analysis 84, 102680",
    terms="CC BY-NC-ND 4.0",
    layout="volume-0.nii, segmentation-0.nii, … volume-130.nii, segmentation-130.nii, in any folders, .gz or not",
    splits={"training": 99, "validation": 6, "test": 26},
)

_CASES = 131
_CONTEXT = (20, 20, 20)  # voxels (z, y, x)
_NUMBERS = (28, *range(31, 39), *range(40, 48))
_SLICES = (1.7, 2.5, 1.5, 1.8, 1.7, 1.9, 2.0, 1.7, 1.7, 1.7, 1.8, 1.6, 1.8, 2.0, 2.5, 2.5, 1.7)
# Cases whose files state a wrong voxel size -> (x, y, z) in mm, as in the publication.
WRONG_SPACING = {number: (1.0, 1.0, z) for number, z in zip(_NUMBERS, _SLICES, strict=True)}

VALIDATION = (0, 3, 16, 23, 25, 98)
TEST = (1, 7, 9, 13, 18, 20, 26, 28, 32, 33, 39, 40, 42, 56, 60, 70, 71, 77, 78, 81, 90, 93, 99, 118, 122, 127)


def prepare(
    raw_dir: str | Path,
    out_dir: str | Path,
    *,
    num_folds: int = 5,
    seed: int = 0,
    isotropic: bool = True,
    crop: bool = True,
) -> Path:
    """Write ``<out_dir>/lits.json`` and, beside it, volumes of 1.5 mm, ``0.nii.gz`` and ``0_gt.nii.gz`` ….

    Training, validation and test are the publication's; the folds of the training cases are ours.

    Args:
        num_folds: number of folds of the training cases.
        seed: random seed of the folds.
        isotropic: volumes of 1.5 mm; otherwise they keep their grid, with the wrong voxel sizes put right.
        crop: to the labels and 20 voxels around them, as published, of the test cases too, which makes those easier.

    Raises:
        DataError: cases are missing.
        CasesFailed: some cannot be converted; the others are done.
    """
    from medseg.data.converted_pairs import convert_pairs, split_sections
    from medseg.data.isotropic import pairs_from_files

    raw = Path(raw_dir)
    found = {path.name.removesuffix(".gz"): path for path in sorted(raw.rglob("*-*.nii*"))}
    sources = {
        str(n): (found[f"volume-{n}.nii"], found[f"segmentation-{n}.nii"])
        for n in range(_CASES)
        if {f"volume-{n}.nii", f"segmentation-{n}.nii"} <= set(found)
    }
    missing = [str(n) for n in range(_CASES) if str(n) not in sources]
    if missing:
        raise DataError(
            f"{raw} has {len(sources)} of {_CASES} cases of LiTS, without {few(missing)}; expected "
            f"{FACTS.layout}. Unpack all parts of the download."
        )

    context = _CONTEXT if crop else None
    spacings = {str(number): spacing for number, spacing in WRONG_SPACING.items()}
    return convert_pairs(
        FACTS.table(),
        split_sections(range(_CASES), VALIDATION, TEST),
        pairs_from_files(sources, isotropic=isotropic, context=context, spacings=spacings),
        Path(out_dir) / "lits.json",
        form={"isotropic": isotropic, "crop": crop},
        num_folds=num_folds,
        seed=seed,
    )
