"""NIfTI headers: the one affine by which an image lies in space, and the same place for what is made from the image.

A header can hold three answers: the sform (an affine), the qform (rotation and voxel size) and pixdim (voxel size
alone). ``Placement`` chooses among them as nibabel and FSL do, and all of medseg uses its choice. Programs based on ITK
choose otherwise. So a label map gets every field that says where its image lies: each program puts it on the image.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import nibabel
import numpy as np
from monai.data import NibabelReader
from monai.utils import MetaKeys, ensure_tuple
from nibabel.spatialimages import HeaderDataError

from medseg.errors import DataError
from medseg.transforms.nifti_scale import open_nifti

__all__ = ["NiftiReader", "Placement", "new_image", "placed_like"]

_HEADER = "source_header"  # key of a MetaTensor's meta: the source's header as bytes, (348,) or NIfTI-2 (540,)
_PLACE = (
    *("qform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"),
    *("sform_code", "srow_x", "srow_y", "srow_z", "xyzt_units"),
    *("intent_code", "intent_p1", "intent_p2", "intent_p3", "intent_name"),
)
_UNITS = {0: ("", 1.0), 1: ("m", 1e3), 2: ("mm", 1.0), 3: ("µm", 1e-3)}  # code in xyzt_units: name, mm


@dataclass(frozen=True)
class Placement:
    """Where a NIfTI header puts its voxels.

    Attributes:
        affine: index -> RAS mm, 4 x 4.
        form: what it is from: "sform", "qform" or, where both codes are 0, "pixdim".
        qform: the affine (mm) of a qform that is set too and not used.
        voxel: pixdim's voxel size in mm, 3 numbers.
        unit: the header's unit of length: "m", "mm", "µm", or "" (not stated, taken as mm).
    """

    affine: np.ndarray
    form: str
    qform: np.ndarray | None
    voxel: tuple[float, ...]
    unit: str

    @classmethod
    def of(cls, header: nibabel.Nifti1Header) -> Placement:
        """Of a header as nibabel loads it.

        Raises:
            DataError: another unit, or a qform in use that is not a rotation.
        """
        code = int(header["xyzt_units"]) & 7
        if code not in _UNITS:
            raise DataError(
                f"unit of length has code {code} in the header; 1 (m), 2 (mm), 3 (µm) or 0 (not stated) are expected. "
                "Fix the header, for example with nibabel's set_xyzt_units('mm')."
            )
        unit, mm = _UNITS[code]
        scale = np.diag([mm, mm, mm, 1.0])
        sform, qform = int(header["sform_code"]) > 0, int(header["qform_code"]) > 0
        try:
            other = scale @ header.get_qform() if qform else None
        except (ValueError, HeaderDataError) as error:
            if not sform:
                raise DataError(
                    "the qform is not a rotation; a unit quaternion is expected. Fix the header, for example with "
                    "nibabel's set_qform."
                ) from error
            other = np.full((4, 4), np.nan)
        return cls(
            affine=scale @ np.asarray(header.get_best_affine(), dtype=float),
            form="sform" if sform else "qform" if qform else "pixdim",
            qform=other if sform else None,
            voxel=tuple(mm * float(size) for size in header["pixdim"][1:4]),
            unit=unit,
        )


class NiftiReader(NibabelReader):
    """MONAI's reader with the affine of ``Placement``, and the source's header in ``meta`` for ``placed_like``.

    MONAI's own replaces a form whose voxel size is not pixdim's, in silence.
    """

    filenames = ("",)  # of an image that is in memory

    def read(self, data: Any, **kwargs: Any) -> Any:
        self.filenames = ensure_tuple(data)  # MONAI's get_data wants them
        return open_nifti(self.filenames[0])

    def get_data(self, img: Any) -> tuple[np.ndarray, dict[Any, Any]]:
        # Not in read(): what fails there, LoadImage tries with another reader.
        affine = Placement.of(img.header).affine
        array, meta = super().get_data(img)
        block = _stored_header(img).as_byteswapped("<").binaryblock
        place = {MetaKeys.AFFINE: affine, MetaKeys.ORIGINAL_AFFINE: affine.copy()}
        return array, meta | place | {_HEADER: np.frombuffer(block, np.uint8).copy()}


def placed_like(values: np.ndarray, meta: Mapping[Any, Any]) -> nibabel.Nifti1Image:
    """Values ``(*spatial)`` as an image that every program places as the one that ``meta`` is of.

    The unit and the intent are the source's too. Sources of other formats have no such header: theirs is a new one of
    ``original_affine`` (index -> RAS mm).
    """
    stored = meta.get(_HEADER)
    if stored is None:
        return new_image(values, np.asarray(meta.get(MetaKeys.ORIGINAL_AFFINE, np.eye(4)), dtype=float))
    block = np.asarray(stored, np.uint8).tobytes()
    kind: type[nibabel.Nifti1Header] = (
        nibabel.Nifti1Header if len(block) == nibabel.Nifti1Header.sizeof_hdr else nibabel.Nifti2Header
    )
    source = kind(block, endianness="<", check=False)
    image = nibabel.Nifti1Image(values, None)  # without an affine, nibabel leaves the header alone
    for field in _PLACE:
        image.header[field] = source[field]
    image.header["pixdim"][:4] = source["pixdim"][:4]
    return image


def new_image(values: np.ndarray, affine: np.ndarray) -> nibabel.Nifti1Image:
    """Values ``(*spatial)`` as an image whose sform and qform are both ``affine`` (index -> RAS mm, 4 x 4)."""
    image = nibabel.Nifti1Image(values, affine)
    image.set_qform(affine, "scanner")
    image.set_sform(affine, "scanner")
    image.header.set_xyzt_units("mm")
    return image


def _stored_header(image: Any) -> Any:
    """The header as the file holds it: nibabel corrects what it takes for mistakes when it loads."""
    holder = image.file_map["image"]
    if holder.filename is None and holder.fileobj is None:
        return image.header
    with image.file_map["image"].get_prepare_fileobj("rb") as stream:
        return image.header_class.from_fileobj(stream, check=False)
