"""FIVES: retinal vessels in fundus photographs of 2048 x 2048 pixels, 600 for training and 200 for the test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from medseg.datasets import DatasetFacts

__all__ = ["FACTS", "prepare"]

FACTS = DatasetFacts(
    title="FIVES: fundus image vessel segmentation",
    spatial_dims=2,
    modality=("RGB",),
    labels={0: "background", 255: "vessel"},
    source="figshare 19688169; Jin et al. 2022, Scientific Data 9, 475",
    terms="CC-BY 4.0",
    layout="{train, test}/{Original/1_A.png, Ground truth/1_A.png}",
    splits={"training": 600, "test": 200},
)


def prepare(raw_dir: str | Path, out_dir: str | Path, *, num_folds: int = 5, seed: int = 0) -> Path:
    """Write ``<out_dir>/fives.json``; paths are relative to ``raw_dir``.

    The split into training and test is the official one; folds of the training cases are created here.

    Args:
        num_folds: number of folds of the training cases.
        seed: random seed of the folds.

    Raises:
        DataError: a folder is missing, or an image or a mask is.
    """
    from medseg.data.picture_masks import pair_pictures

    raw = Path(raw_dir)
    sections: dict[str, list[dict[str, Any]]] = {}
    for section, part in (("training", "train"), ("test", "test")):
        sections[section] = [
            {
                "image": image.relative_to(raw).as_posix(),
                "label": mask.relative_to(raw).as_posix(),
                "case_id": f"{part}_{image.stem}",  # the numbers of both parts begin at 1
            }
            for image, mask in pair_pictures(raw / part / "Original", raw / part / "Ground truth", ".png", ".png")
        ]
    return FACTS.write(
        Path(out_dir) / "fives.json",
        raw,
        sections,
        num_folds=num_folds,
        seed=seed,
        name="FIVES",
        description="Retinal vessels; the official split, folds of the training cases created with a seed",
    )
