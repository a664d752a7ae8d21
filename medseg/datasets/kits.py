"""KiTS 2023: kidneys, tumours and cysts in CT, split as BraTS is in the neural-operator publications."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medseg.datasets import DatasetFacts
from medseg.errors import DataError, few

__all__ = ["FACTS", "REGIONS", "SIZES", "prepare"]

FACTS = DatasetFacts(
    title="KiTS 2023",
    spatial_dims=3,
    modality=("CT",),
    labels={0: "background", 1: "kidney", 2: "tumor", 3: "cyst"},
    source="github.com/neheller/kits23; Heller et al. 2023, arXiv 2307.01984",
    terms="CC BY-NC-SA 4.0",
    layout="kits23/dataset/{case_00000/{imaging.nii.gz, segmentation.nii.gz}, …, case_00588/}",
    splits={"training": 489},
)

REGIONS = {"kidney and masses": ["kidney", "tumor", "cyst"], "masses": ["tumor", "cyst"], "tumor": ["tumor"]}
SIZES = ("256x256x128", "128x128x64", "86x86x43", "64x64x32")  # voxels of the resolution study, arXiv 2507.08205


def prepare(
    raw_dir: str | Path,
    out_dir: str | Path,
    *,
    fractions: Sequence[str | float] = (0.6, 0.1, 0.3),
    seed: int = 100,
    num_folds: int = 0,
) -> Path:
    """Write ``<out_dir>/kits23.json``; paths are relative to ``raw_dir``. The challenge's regions are evaluated.

    The resolution study does not publish its split of KiTS; this is its rule for BraTS, which is our inference.

    Args:
        fractions: shares of training, validation and test.
        seed: random seed of the split, and of the folds.
        num_folds: number of folds of the training cases.

    Raises:
        ConfigError: the fractions' sum is not 1.
        DataError: a file is missing, or there is no case.
    """
    from medseg.data.random_split import random_split

    raw = Path(raw_dir)
    cases = sorted(path.name for path in raw.glob("case_*") if path.is_dir())
    files = [f"{case}/{name}" for case in cases for name in ("imaging.nii.gz", "segmentation.nii.gz")]
    missing = [file for file in files if not (raw / file).is_file()]
    if missing or not cases:
        what = f"{len(missing)} of {len(files)} files are missing: {few(missing)}" if cases else "no case"
        hint = FACTS.hint(raw, *([] if cases else ["**/case_00000"]), otherwise="Download it again")
        raise DataError(f"KiTS is incomplete in {raw}: {what}. {hint}")
    parts = random_split(cases, [float(share) for share in fractions], seed)
    sections: dict[str, list[dict[str, Any]]] = {
        name: [
            {"image": f"{case}/imaging.nii.gz", "label": f"{case}/segmentation.nii.gz", "case_id": case}
            for case in part
        ]
        for name, part in zip(("training", "validation", "test"), parts, strict=True)
    }
    return FACTS.write(
        Path(out_dir) / "kits23.json",
        raw,
        sections,
        num_folds=num_folds,
        seed=seed,
        name="KiTS'23",
        description="Kidneys, tumours and cysts in CT; random split by the rule that the resolution study has for "
        "BraTS (inferred)",
        tensorImageSize="3D",
        label_space={"labels": {name: value for value, name in FACTS.labels.items()}, "regions": REGIONS},
    )
