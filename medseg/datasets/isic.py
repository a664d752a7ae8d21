"""ISIC 2016, part 1: skin lesions in dermoscopy, 900 training and 379 test photographs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from medseg.datasets import DatasetFacts

__all__ = ["FACTS", "prepare"]

FACTS = DatasetFacts(
    title="ISIC 2016, part 1: lesion segmentation",
    spatial_dims=2,
    modality=("RGB",),
    labels={0: "background", 255: "lesion"},
    source="challenge.isic-archive.com/data; Gutman et al. 2016, arXiv 1605.01397",
    terms="CC-0",
    layout="ISBI2016_ISIC_Part1_{Training_Data/ISIC_0000000.jpg, Training_GroundTruth/ISIC_0000000_Segmentation.png, "
    "Test_Data/, Test_GroundTruth/}",
    splits={"training": 900, "test": 379},
)


def prepare(raw_dir: str | Path, out_dir: str | Path, *, num_folds: int = 5, seed: int = 0) -> Path:
    """Write ``<out_dir>/isic.json``; paths are relative to ``raw_dir``.

    The split into training and test is the official one. It names no validation cases, so folds of the training cases
    are created here, for the choice of a model; the test cases keep their masks, for one last score.

    Args:
        num_folds: number of folds of the training cases.
        seed: random seed of the folds.

    Raises:
        DataError: a folder is missing, or an image or a mask is.
    """
    from medseg.data.picture_masks import pair_pictures

    raw = Path(raw_dir)
    sections: dict[str, list[dict[str, Any]]] = {}
    for section, part in (("training", "Training"), ("test", "Test")):
        images, masks = raw / f"ISBI2016_ISIC_Part1_{part}_Data", raw / f"ISBI2016_ISIC_Part1_{part}_GroundTruth"
        sections[section] = [
            {"image": image.relative_to(raw).as_posix(), "label": mask.relative_to(raw).as_posix()}
            for image, mask in pair_pictures(images, masks, ".jpg", "_Segmentation.png")
        ]
    return FACTS.write(
        Path(out_dir) / "isic.json",
        raw,
        sections,
        num_folds=num_folds,
        seed=seed,
        name="ISIC 2016",
        description="Skin lesions in dermoscopy; the official split, folds of the training cases created with a seed",
    )
