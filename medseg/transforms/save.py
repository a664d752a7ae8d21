"""Write predicted label maps as files on the source image's grid."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import SaveImaged
from PIL import Image

from medseg.errors import DataError
from medseg.labels import LabelSpace
from medseg.storage import whole_file
from medseg.transforms.each_key import EachKey
from medseg.transforms.nifti import placed_like
from medseg.transforms.picture import as_stored
from medseg.transforms.reader import is_2d_file, stem_of

__all__ = ["SaveLabelsd", "find_label_map", "label_map_name", "write_label_map"]

_SUFFIXES = {True: ".png", False: ".nii.gz"}  # of 2D images, of volumes


def label_map_name(case_id: str, image: str | Path) -> str:
    """File name of a case's label map: NIfTI, or PNG where the image is a PNG, JPEG, TIFF or BMP."""
    return case_id + _SUFFIXES[is_2d_file(image)]


def find_label_map(folder: str | Path, case_id: str) -> Path | None:
    """The label map that a folder holds of a case; ``None`` without."""
    found = (Path(folder) / f"{case_id}{suffix}" for suffix in _SUFFIXES.values())
    return next((path for path in found if path.is_file()), None)


_PNG_LARGEST = 65535  # 16 bits


def write_label_map(values: np.ndarray, meta: Mapping[Any, Any], path: str | Path) -> None:
    """Write raw label values ``(*spatial)`` on the grid of their image, whole or not at all.

    Args:
        values: label values.
        meta: metadata of the image (``MetaTensor.meta``), see ``placed_like``; PNG has no place, but the rows and the
            ``orientation`` tag of the image's file (``as_stored``).
        path: ``.nii.gz`` or ``.png``.

    Raises:
        DataError: a value that PNG does not hold.
    """
    path = Path(path)
    with whole_file(path, flush=False) as temporary:
        if path.suffix == ".png":
            if values.min() < 0 or values.max() > _PNG_LARGEST:
                raise DataError(
                    f"label values {values.min()} to {values.max()} do not fit {path.name}; 0 to {_PNG_LARGEST} are "
                    "expected. Declare such values in the datalist's labels, and convert the label files."
                )
            values, options = as_stored(values, int(meta.get("orientation", 1)))
            picture = Image.fromarray(values if values.dtype == np.uint8 else values.astype(np.uint16))
            picture.save(temporary, compress_level=1, **options)  # label maps are small at any level
        else:
            nibabel.save(placed_like(values, meta), temporary)


@SaveImaged.register  # servers that write results themselves, such as MONAI Label, drop what is a SaveImaged
class SaveLabelsd(EachKey):
    """Write label indices ``(1, *spatial)`` as the data set's own raw values to ``output_dir/<case_id>.nii.gz``, or
    ``.png`` where the image was a PNG, JPEG, TIFF or BMP.

    An image that does not come from ``Case.to_dict``, but from another program's dictionary, has no ``case_id``: the
    name of its file takes the place.
    """

    def __init__(
        self, keys: KeysCollection, output_dir: str | Path, label_space: LabelSpace, allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.output_dir = Path(output_dir)
        self.label_space = label_space

    def change(self, value: Any, data: Mapping[Hashable, Any]) -> Any:
        values = self.label_space.decode(torch.as_tensor(value)[0].numpy(), data.get("dataset"))
        meta = data["image"].meta
        file = meta["filename_or_obj"]
        name = label_map_name(str(data.get("case_id", stem_of(file))), file)
        write_label_map(values, meta, self.output_dir / name)
        return value
