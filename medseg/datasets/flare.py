"""FLARE 2021: liver, kidneys, spleen and pancreas in portal-venous CT, with the 341/20 split of 3D RepUX-Net."""

from __future__ import annotations

import re
from pathlib import Path

from medseg.datasets import DatasetFacts
from medseg.errors import DataError, few

__all__ = ["FACTS", "TEST_IDS", "prepare"]

FACTS = DatasetFacts(
    title="FLARE 2021",
    spatial_dims=3,
    modality=("CT",),
    labels={0: "background", 1: "liver", 2: "kidney", 3: "spleen", 4: "pancreas"},
    source="flare.grand-challenge.org; Ma et al. 2022, Medical Image Analysis 82, 102616",
    terms="the terms stated with the download; its images are of MSD Pancreas (CC-BY-SA 4.0) and NIH Pancreas-CT",
    layout="FLARE21/{TrainingImg/train_000_0000.nii.gz, TrainingMask/train_000.nii.gz}, 361 cases",
    splits={"training": 341, "test": 20},
)

_CASES = 361
# The authors' list of held-out cases (Lee et al., MICCAI 2023; ICLR 2023).
TEST_IDS = (36, 39, 44, 54, 80, 125, 135, 157, 158, 183, 193, 220, 230, 242, 286, 296, 299, 323, 341, 351)
_IMAGE = re.compile(r"train_(\d{3})(?:_0000)?\.nii\.gz")


def prepare(raw_dir: str | Path, out_dir: str | Path, *, num_folds: int = 5, seed: int = 0) -> Path:
    """Write ``<out_dir>/flare21.json``; paths are relative to ``raw_dir``.

    Images may be named with or without ``_0000``. The test section has labels; the folds of the other 341 cases are
    ours, because the publications name none.

    Args:
        num_folds: number of folds of the training cases.
        seed: random seed of the folds.

    Raises:
        DataError: cases or labels are missing.
    """
    raw = Path(raw_dir)
    images = _images(raw)
    entries = {
        number: {"image": f"TrainingImg/{name}", "label": f"TrainingMask/train_{number:03}.nii.gz"}
        for number, name in images.items()
    }
    _refuse_missing_labels(raw, [entry["label"] for entry in entries.values()])
    return FACTS.write(
        Path(out_dir) / "flare21.json",
        raw,
        {
            "training": [entry for number, entry in entries.items() if number not in TEST_IDS],
            "test": [entries[number] for number in TEST_IDS],
        },
        num_folds=num_folds,
        seed=seed,
        name="FLARE21",
        description="FLARE 2021: liver, kidneys, spleen, pancreas in CT; the 341/20 split of 3D RepUX-Net",
        licence=None,
        tensorImageSize="3D",
    )


def _images(raw: Path) -> dict[int, str]:
    """Number of each case -> its image's name.

    Raises:
        DataError: not the 361 cases.
    """
    names = sorted(path.name for path in (raw / "TrainingImg").glob("train_*.nii.gz"))
    found = {int(match[1]): name for name in names if (match := _IMAGE.fullmatch(name))}
    missing = [number for number in range(_CASES) if number not in found]
    if missing or len(found) > _CASES:
        lacking = f", without {few([f'train_{number:03}' for number in missing])}" if missing else ""
        what = f"{raw / 'TrainingImg'} has {len(found)} of {_CASES} cases of FLARE 2021{lacking}"
        raise DataError(f"{what}. {FACTS.hint(raw, '*/TrainingImg')}")
    return found


def _refuse_missing_labels(raw: Path, labels: list[str]) -> None:
    missing = [label for label in labels if not (raw / label).is_file()]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(labels)} labels of FLARE 2021 are missing in {raw}: {few(missing)}. Unpack "
            "TrainingMask beside TrainingImg."
        )
