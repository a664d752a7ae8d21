"""Write predicted label maps as files on the source image's grid."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import SaveImaged
from PIL import Image

from medseg.dicom.algorithm import Algorithm
from medseg.errors import DataError
from medseg.labels import LabelSpace
from medseg.storage import whole_file
from medseg.transforms.each_key import EachKey
from medseg.transforms.nifti import new_image, placed_like
from medseg.transforms.nrrd import write_nrrd
from medseg.transforms.picture import as_stored
from medseg.transforms.reader import is_2d_file, stem_of
from medseg.version import __version__

__all__ = [
    "FORMATS",
    "LabelOutput",
    "SaveLabelsd",
    "find_label_map",
    "label_map_case",
    "label_map_name",
    "write_label_map",
]

FORMATS = {
    "nifti": ".nii.gz",
    "nrrd": ".nrrd",
    "seg.nrrd": ".seg.nrrd",
    "dicom-seg": ".seg.dcm",
    "rtstruct": ".rtstruct.dcm",
}  # of volumes, by the name of the option; 2D images have PNG
_PNG = ".png"
_DICOM = tuple(suffix for suffix in FORMATS.values() if suffix.endswith(".dcm"))
_SUFFIXES = sorted((_PNG, *FORMATS.values()), key=len, reverse=True)


def label_map_name(case_id: str, image: str | Path, form: str | None = None) -> str:
    """File name of a case's label map: of the format of ``FORMATS``, by default the image's: PNG where that is a PNG,
    JPEG, TIFF or BMP, NRRD of NRRD, else NIfTI.
    """
    if is_2d_file(image):
        return case_id + _PNG
    return case_id + FORMATS[form or ("nrrd" if str(image).lower().endswith(".nrrd") else "nifti")]


def label_map_case(path: str | Path) -> str:
    """The case id in such a name."""
    name = Path(path).name
    return next((name.removesuffix(suffix) for suffix in _SUFFIXES if name.endswith(suffix)), name)


def find_label_map(folder: str | Path, case_id: str) -> Path | None:
    """The label map that a folder holds of a case; ``None`` without."""
    found = (Path(folder) / f"{case_id}{suffix}" for suffix in _SUFFIXES)
    return next((path for path in found if path.is_file()), None)


@dataclass(frozen=True)
class LabelOutput:
    """How label maps are written.

    Attributes:
        form: one of ``FORMATS``; ``None``: that of the image.
        reference: folder of the source series, for DICOM; ``None``: the image itself.
        algorithm: what drew them, for DICOM.
    """

    form: str | None = None
    reference: Path | None = None
    algorithm: Algorithm = Algorithm("medseg", __version__, "")

    def write(self, indices: np.ndarray, item: Mapping[Hashable, Any], folder: Path, space: LabelSpace) -> None:
        """Write label indices ``(*spatial)`` of a case, whose image and id are in ``item``.

        A dictionary of another program has no ``case_id``: the name of the image's file takes its place.
        """
        meta, dataset = item["image"].meta, item.get("dataset")
        image = str(meta["filename_or_obj"])
        path = folder / label_map_name(str(item.get("case_id", stem_of(image))), image, self.form)
        if path.name.endswith(_DICOM):
            from medseg.dicom.write import write_dicom

            with whole_file(path, flush=False) as temporary:
                source = Path(image) if self.reference is None else self.reference
                label_map = new_image(indices.astype(np.int32), np.asarray(meta["original_affine"], float))
                write_dicom(label_map, space, source, Path(temporary), self.algorithm)
            return
        values = space.decode(indices, dataset)
        if path.suffix == ".nrrd":
            with whole_file(path, flush=False) as temporary:
                write_nrrd(values, np.asarray(meta["original_affine"], float), Path(temporary), space, dataset)
        else:
            write_label_map(values, meta, path)


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
    """Write label indices ``(1, *spatial)`` as the data set's own raw values to ``output_dir/<case_id>`` and the suffix
    of ``label_map_name``.

    An image that does not come from ``Case.to_dict``, but from another program's dictionary, has no ``case_id``: the
    name of its file takes the place.

    Attributes:
        written: how; by default in the format of the image.
    """

    def __init__(
        self, keys: KeysCollection, output_dir: str | Path, label_space: LabelSpace, allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.output_dir = Path(output_dir)
        self.label_space = label_space
        self.written = LabelOutput()

    def change(self, value: Any, data: Mapping[Hashable, Any]) -> Any:
        self.written.write(torch.as_tensor(value)[0].numpy(), data, self.output_dir, self.label_space)
        return value
