"""Label maps lie on their images for nibabel and for ITK, whatever the images' headers say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK
import torch
from monai.data import decollate_batch, list_data_collate
from monai.transforms import Compose

from medseg.data.files import read_volume
from medseg.errors import DataError
from medseg.labels import LabelSpace
from medseg.transforms import SaveLabelsd, load
from medseg.transforms.nifti import Placement

SPACE = LabelSpace.from_table({"liver": 1})
VALUES = np.random.default_rng(0).integers(-5, 5, (6, 7, 4)).astype(np.int16)
CORNERS = [(0, 0, 0), (5, 0, 0), (0, 6, 0), (0, 0, 3), (5, 6, 3)]


def affine(axes: np.ndarray, origin: tuple[float, float, float] = (40, -20, 9)) -> np.ndarray:
    result = np.eye(4)
    result[:3, :3], result[:3, 3] = axes, origin
    return result


def turn(degrees: float) -> np.ndarray:
    cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]]) @ np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]])


OBLIQUE = affine(turn(20) @ np.diag([1, 2, 3]))
LEFT = affine(np.diag([-1, 2, 3]), (-30, 12, 5))
REGISTERED = affine(turn(5) @ np.diag([1.1, 2.3, 2.7]) @ np.array([[1, 0.05, 0.02], [0, 1, 0.03], [0, 0, 1]]))


def header(**fields: Any) -> Callable[[Any], None]:
    """Change a header: ``q``, ``s`` are affines, the others are fields of NIfTI."""

    def change(target: Any) -> None:
        for key, value in fields.items():
            if key in "qs":
                (target.set_qform if key == "q" else target.set_sform)(value, 1)
            elif key == "qfac":
                target["pixdim"][0] = value
            else:
                target[key] = value

    return change


HEADERS = {
    **{
        f"codes-{q}-{s}": header(q=LEFT, s=OBLIQUE, qform_code=q, sform_code=s)
        for q, s in [(0, 0), (1, 0), (0, 2), (1, 1), (1, 2), (2, 3), (4, 4), (1, 5), (6, 2), (2, 6)]
    },
    **{f"qfac-{value}": header(q=LEFT, qfac=value) for value in (-1, 0, 1, -2)},
    **{f"units-{code}": header(q=LEFT, s=LEFT, xyzt_units=code) for code in (0, 1, 3, 10)},
    "affine-registered": header(q=LEFT, s=REGISTERED, sform_code=4),
    "pixdim-of-another-size": header(q=np.eye(4), s=OBLIQUE, qform_code=0),
    "intent": header(q=LEFT, s=OBLIQUE, intent_code=1002, intent_name=b"parcels"),
}


def predicted(path: Path, folder: Path) -> Path:
    """The label map of an image, read, batched and saved as all commands do."""
    item = list_data_collate([Compose(load(["image"]))({"image": str(path), "case_id": "a"})])
    (item,) = decollate_batch(item)
    SaveLabelsd("pred", folder, SPACE)({**item, "pred": torch.ones(1, *item["image"].shape[1:], dtype=int)})
    return folder / ("a.nrrd" if path.suffix == ".nrrd" else "a.nii.gz")


def itk(path: Path) -> np.ndarray:
    image = SimpleITK.ReadImage(str(path))
    return np.array([image.TransformIndexToPhysicalPoint(corner[: image.GetDimension()]) for corner in CORNERS])


@pytest.mark.parametrize("change", HEADERS.values(), ids=HEADERS)
def test_a_label_map_has_its_image_s_place_for_every_reader(change: Callable[[Any], None], tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(VALUES, None)
    change(image.header)
    nibabel.save(image, tmp_path / "image.nii.gz")
    path = predicted(tmp_path / "image.nii.gz", tmp_path / "out")
    np.testing.assert_allclose(itk(path), itk(tmp_path / "image.nii.gz"), atol=1e-4)
    source, made = nibabel.load(tmp_path / "image.nii.gz"), nibabel.load(path)
    np.testing.assert_array_equal(made.affine, source.affine)
    fields = ("qform_code", "sform_code", "xyzt_units", "intent_code", "intent_name")
    assert all(made.header[field] == source.header[field] for field in fields)
    np.testing.assert_array_equal(made.header["pixdim"][:4], source.header["pixdim"][:4])


@pytest.mark.parametrize("shape", [(6, 7), (6, 7, 4, 1), (6, 7, 4)], ids=["2D", "4D-of-one", "NIfTI-2"])
def test_other_shapes_and_nifti_2(shape: tuple[int, ...], tmp_path: Path) -> None:
    kind = nibabel.Nifti2Image if len(shape) == 3 else nibabel.Nifti1Image
    image = kind(np.resize(VALUES, shape), None)
    header(q=LEFT, s=OBLIQUE, sform_code=2)(image.header)
    nibabel.save(image, tmp_path / "image.nii")
    made = nibabel.load(predicted(tmp_path / "image.nii", tmp_path / "out"))
    assert made.shape == shape[:3]
    np.testing.assert_allclose(made.get_sform(), OBLIQUE, atol=1e-5)
    np.testing.assert_allclose(made.get_qform(), LEFT, atol=1e-5)


@pytest.mark.parametrize("suffix", [".mha", ".nrrd"])
@pytest.mark.parametrize("axes", [turn(20), np.diag([-1.0, 1, 1]), np.array([[0, 0, 1.0], [1, 0, 0], [0, -1, 0]])])
def test_a_label_map_of_another_format(suffix: str, axes: np.ndarray, tmp_path: Path) -> None:
    """NRRD of NRRD, NIfTI of MetaImage."""
    image = SimpleITK.GetImageFromArray(VALUES.transpose(2, 1, 0))
    image.SetSpacing((1, 2, 3))
    image.SetOrigin((4, 5, 6))
    image.SetDirection(axes.ravel())
    SimpleITK.WriteImage(image, str(tmp_path / f"image{suffix}"))
    path = predicted(tmp_path / f"image{suffix}", tmp_path / "out")
    np.testing.assert_allclose(itk(path), itk(tmp_path / f"image{suffix}"), atol=1e-4)
    affine = read_volume(path).affine
    lps = np.array([(np.diag([-1, -1, 1, 1]) @ affine @ [*corner, 1])[:3] for corner in CORNERS])
    np.testing.assert_allclose(lps, itk(path), atol=1e-4)  # and medseg sees it where ITK does


def test_training_reads_the_sform_in_mm(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(VALUES, None)
    header(q=LEFT, s=np.diag([1e-3, 2e-3, 3e-3, 1]), xyzt_units=1)(image.header)
    nibabel.save(image, tmp_path / "image.nii")
    loaded = Compose(load(["image"]))({"image": str(tmp_path / "image.nii")})["image"]
    np.testing.assert_allclose(loaded.affine, np.diag([1, 2, 3, 1]), atol=1e-6)


def test_headers_without_a_reading_are_refused() -> None:
    made = nibabel.Nifti1Header()
    made["xyzt_units"] = 5
    with pytest.raises(DataError, match="unit of length has code 5 in the header; 1 .* are expected. Fix the header"):
        Placement.of(made)
    made = nibabel.Nifti1Header()
    made["qform_code"], made["quatern_b"], made["quatern_c"] = 1, 0.9, 0.9
    with pytest.raises(DataError, match="the qform is not a rotation; a unit quaternion is expected. Fix the header"):
        Placement.of(made)
    made.set_sform(OBLIQUE, 1)
    placement = Placement.of(made)  # the sform is sound
    np.testing.assert_allclose(placement.affine, OBLIQUE, atol=1e-5)
    assert placement.qform is not None and np.isnan(placement.qform).all()
