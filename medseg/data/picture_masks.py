"""2D images of a published data set and their masks: which belong together, several masks joined, folds by slices."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from medseg.errors import DataError, few
from medseg.transforms.picture import as_mask

__all__ = ["pair_pictures", "sliced_entries", "sliced_folds", "write_union"]


def pair_pictures(images: Path, masks: Path, image_suffix: str, mask_suffix: str) -> list[tuple[Path, Path]]:
    """Images with the masks of the same name up to the suffixes (``.jpg``, ``_Segmentation.png``), sorted by name.

    Raises:
        DataError: a folder is missing or empty, or a file has no partner.
    """
    found = []
    for folder, suffix in ((images, image_suffix), (masks, mask_suffix)):
        files = [path for path in folder.glob(f"*{suffix}") if not path.name.startswith(".")]
        if not files:
            raise DataError(f"{folder} holds no *{suffix}; unpack the archive again.")
        found.append({path.name.removesuffix(suffix): path for path in files})
    alone = sorted(found[0].keys() ^ found[1].keys())
    if alone:
        first = alone[0]
        lacking = masks / f"{first}{mask_suffix}" if first in found[0] else images / f"{first}{image_suffix}"
        raise DataError(
            f"{len(alone)} of {len(found[0] | found[1])} cases lack an image or a mask ({few(alone)}); expected for "
            f"example {lacking}. Unpack the archive again."
        )
    return [(found[0][name], found[1][name]) for name in sorted(found[0])]


def sliced_folds(names: Sequence[str], num_folds: int) -> list[int | None]:
    """The fold of each name: the sorted names cut into ``num_folds`` equal slices; what is left at the end has none.

    A case without fold is trained on in every fold and never validated.
    """
    size = len(names) // num_folds
    folds = {name: index // size for index, name in enumerate(sorted(names)) if size and index < size * num_folds}
    return [folds.get(name) for name in names]


def sliced_entries(files: Sequence[str], num_folds: int) -> list[dict[str, Any]]:
    """Entries of images in ``images`` and masks in ``labels``, in ``sliced_folds`` by their names."""
    folds = sliced_folds([Path(file).stem for file in files], num_folds)
    return [
        {"image": f"images/{file}", "label": f"labels/{Path(file).stem}.png"} | ({} if fold is None else {"fold": fold})
        for file, fold in zip(files, folds, strict=True)
    ]


def write_union(masks: Sequence[Path], target: Path) -> None:
    """Write the union of masks as a grey PNG: 255 where any of them is not 0.

    Raises:
        DataError: the masks differ in size, or are in colour.
    """
    union: np.ndarray | None = None
    for path in masks:
        with Image.open(path) as picture:
            mask = np.asarray(as_mask(picture)) > 0
        if union is not None and union.shape != mask.shape:
            raise DataError(
                f"{path} has {mask.shape[0]}×{mask.shape[1]} pixels, {masks[0].name} {union.shape[0]}×{union.shape[1]};"
                " expected equal sizes. Unpack the archive again."
            )
        union = mask if union is None else union | mask
    assert union is not None  # callers list at least one mask
    Image.fromarray(union.astype(np.uint8) * 255).save(target, "PNG")
