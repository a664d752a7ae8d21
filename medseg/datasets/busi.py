"""BUSI: breast lesions in ultrasound; 437 benign and 210 malignant images, some with several masks."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from medseg.datasets import DatasetFacts
from medseg.errors import DataError, few

__all__ = ["FACTS", "prepare"]

FACTS = DatasetFacts(
    title="BUSI: breast ultrasound images",
    spatial_dims=2,
    modality=("RGB",),
    labels={0: "background", 255: "lesion"},
    source="scholar.cu.edu.eg/?q=afahmy/pages/dataset; Al-Dhabyani et al. 2020, Data in Brief 28, 104863",
    terms="no licence stated by its owners; cite the article",
    layout="Dataset_BUSI_with_GT/{benign, malignant, normal}/{benign (1).png, benign (1)_mask.png, "
    "benign (100)_mask_1.png, …}",
    splits={"training": 647},
)

_CLASSES = ("benign", "malignant")  # images of normal tissue have no lesion and are not used
_MASK = re.compile(r"(.+)_mask(_\d+)?\.png")


def prepare(raw_dir: str | Path, out_dir: str | Path, *, num_folds: int = 5) -> Path:
    """Write ``<out_dir>/busi.json``; paths are relative to ``out_dir``.

    ``images`` holds links into ``raw_dir`` (copies where the system has no links), ``labels`` one mask of 0 and 255 per
    image, the union of its masks. Folds are those of the QTSeg publication: per class, the sorted names in equal
    slices; the last two benign images are in no slice, so they are trained on in every fold.

    Args:
        num_folds: number of folds; the publication has 5.

    Raises:
        DataError: a folder is missing, an image has no mask, or a mask no image.
        CasesFailed: files could not be made.
    """
    from medseg.data.convert import convert_files, link_or_copy
    from medseg.data.picture_masks import sliced_entries, write_union

    raw, out = Path(raw_dir), Path(out_dir)
    cases: list[dict[str, Any]] = []
    images: list[tuple[Path, Path]] = []
    masks: list[tuple[list[Path], Path]] = []
    for name in _CLASSES:
        found = _pictures(raw, name)
        cases += sliced_entries([f"{stem}.png" for stem in found], num_folds)
        images += [(raw / name / f"{stem}.png", out / "images" / f"{stem}.png") for stem in found]
        masks += [(files, out / "labels" / f"{stem}.png") for stem, files in found.items()]
    convert_files(images, link_or_copy)
    convert_files(masks, write_union)
    return FACTS.write(
        out / "busi.json",
        out,
        {"training": cases},
        name="BUSI",
        description="Breast lesions in ultrasound, benign and malignant; folds of the QTSeg publication",
    )


def _pictures(raw: Path, name: str) -> dict[str, list[Path]]:
    """Stem -> its masks, sorted, of one class."""
    folder = raw / name
    files = sorted(path.name for path in folder.glob("*.png")) if folder.is_dir() else []
    if not files:
        raise DataError(f"{folder} holds no image. {FACTS.hint(raw, f'*/{name}')}")
    masks: dict[str, list[Path]] = {file.removesuffix(".png"): [] for file in files if not _MASK.fullmatch(file)}
    orphans = []
    for file in files:
        if match := _MASK.fullmatch(file):
            masks[match[1]].append(folder / file) if match[1] in masks else orphans.append(file)
    alone = [f"{stem}.png" for stem, found in masks.items() if not found] + orphans
    if alone:
        raise DataError(
            f"{len(alone)} files in {folder} lack their mask or image: {few(alone)}. Expected X.png with X_mask.png; "
            "unpack the archive again."
        )
    return masks
