"""BKAI-IGH NeoPolyp-Small: polyps in colonoscopy, neoplastic and not; masks are painted red and green."""

from __future__ import annotations

from pathlib import Path

from medseg.datasets import DatasetFacts
from medseg.errors import ConfigError, DataError

__all__ = ["FACTS", "prepare"]

FACTS = DatasetFacts(
    title="BKAI-IGH NeoPolyp-Small",
    spatial_dims=2,
    modality=("RGB",),
    labels={0: "background", 1: "non-neoplastic polyp", 2: "neoplastic polyp"},
    source="kaggle.com/c/bkai-igh-neopolyp; Ngoc Lan et al. 2021, NeoUNet, arXiv 2107.05023",
    terms="the competition's rules, accepted at Kaggle",
    layout="{train/train/X.jpeg, train_gt/train_gt/X.jpeg, test/test/Y.jpeg}",
    splits={"training": 1000, "test": 200},
)

_LISTS = {2: "bkai_binary.json", 3: "bkai_three_classes.json"}  # by the number of classes; the masks are the same


def prepare(raw_dir: str | Path, out_dir: str | Path, *, classes: int = 2, num_folds: int = 5) -> Path:
    """Write ``<out_dir>/bkai_binary.json`` or ``bkai_three_classes.json``; paths are relative to ``out_dir``.

    ``images`` holds links into ``raw_dir`` (copies where the system has no links), ``labels`` the painted masks as 0, 1
    (green) and 2 (red). Folds are those of the QTSeg publication: the sorted names in equal slices.

    Args:
        classes: 2 (background and polyp) or 3.
        num_folds: number of folds; the publication has 5.

    Raises:
        ConfigError: another number of classes.
        DataError: a folder is missing, or an image or a mask is.
        CasesFailed: masks could not be read.
    """
    from medseg.data.convert import convert_files, link_or_copy
    from medseg.data.picture_masks import pair_pictures, sliced_entries

    if classes not in _LISTS:
        raise ConfigError(f"NeoPolyp has no list of {classes} classes; use 2 (background and polyp) or 3.")
    raw, out = Path(raw_dir), Path(out_dir)
    pairs = pair_pictures(_folder(raw, "train"), _folder(raw, "train_gt"), ".jpeg", ".jpeg")
    tests = sorted(_folder(raw, "test").glob("*.jpeg"))
    images = [image for image, _ in pairs]
    convert_files([(image, out / "images" / image.name) for image in (*images, *tests)], link_or_copy)
    convert_files([(mask, out / "labels" / f"{image.stem}.png") for image, mask in pairs], _write_classes)
    three = {name: value for value, name in FACTS.labels.items()}
    return FACTS.write(
        out / _LISTS[classes],
        out,
        {
            "training": sliced_entries([image.name for image in images], num_folds),
            "test": [{"image": f"images/{image.name}"} for image in tests],
        },
        name="NeoPolyp-Small",
        description="Polyps in colonoscopy; folds of the QTSeg publication",
        labels=three if classes == 3 else {"background": 0, "polyp": [value for value in FACTS.labels if value]},
    )


def _folder(raw: Path, name: str) -> Path:
    """The archive holds each folder in one of its own name."""
    nested = raw / name / name
    return nested if nested.is_dir() else raw / name


def _write_classes(source: Path, target: Path) -> None:
    import numpy as np
    from PIL import Image

    from medseg.transforms import GREEN, RED, colors_to_labels

    with Image.open(source) as picture:
        if picture.mode != "RGB":
            raise DataError(f"{source} is an image of mode {picture.mode}; expected a mask painted in RGB.")
        labels = colors_to_labels(np.asarray(picture), {1: GREEN, 2: RED})
    Image.fromarray(labels).save(target, "PNG")
