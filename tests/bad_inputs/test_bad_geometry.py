"""Grids (numbers 18 to 20, 22, 24 to 27 of the matrix)."""

from __future__ import annotations

from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK
from PIL import Image

from medseg.data.case import Case
from medseg.data.inspect import inspect_cases
from medseg.errors import DataError
from medseg.labels import LabelSpace
from medseg.transforms import preprocessing
from medseg.workflows.checks import unfit


def test_18_shapes_differ(study: Any) -> None:
    result = study.check([study.case("a", label=study.label("l.nii.gz", (12, 10, 5))), study.case("b")])
    assert result.status == 3
    result.has("a", "image 12×10×8, label 12×10×5 voxels; one grid is expected", "resample the label")


def test_19_spacing_differs(study: Any) -> None:
    affine = np.diag([0.98, 0.98, 3.27, 1])
    case = study.case("a", image=study.image("a.nii.gz", affine=affine), label=study.label("l.nii.gz"))
    result = study.check([case, study.case("b")])
    assert result.status == 3
    result.has("a", "image spacing 0.98×0.98×3.27 mm, label spacing 1×1×1 mm", "resample the label")


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha"])
def test_20_origin_differs(study: Any, suffix: str) -> None:
    for name, shift, pixels in (("image", 0.0, np.int16), ("label", 4.2, np.uint8)):
        values = study.random.integers(0, 2, (8, 10, 12)).astype(pixels)
        image = SimpleITK.GetImageFromArray(values)
        image.SetOrigin((shift, 0, 0))
        SimpleITK.WriteImage(image, str(study.folder / f"{name}{suffix}"))
    result = study.check([study.case("a", image=f"image{suffix}", label=f"label{suffix}"), study.case("b")])
    assert result.status == 3
    result.has(
        "image",
        "the label's corners are up to 4.2 mm from the image's; at most 0.1 mm (0.1 voxel) are expected",
        "Resample the label to the image's grid; if only its header is wrong, copy the image's affine to it.",
    )


def test_20_direction_differs(study: Any) -> None:
    flipped = np.diag([-1.0, 1, 1, 1])
    flipped[0, 3] = 11
    result = study.check([study.case("a", label=study.label("l.nii.gz", affine=flipped)), study.case("b")])
    assert result.status == 3
    result.has("a", "the label's corners are up to 11 mm from the image's", "Resample the label")


def test_20_below_a_tenth_of_a_voxel_is_silent(study: Any) -> None:
    near = np.eye(4)
    near[:3, 3] = 0.05
    result = study.check([study.case("a", label=study.label("l.nii.gz", affine=near)), study.case("b")])
    assert result.status == 0
    assert "corner" not in result.log


def test_20_a_label_almost_on_the_grid_keeps_its_image_s_shape(study: Any) -> None:
    space = LabelSpace.from_table({"liver": 1})
    # 11 mm in steps of 11 / 15.5: where rounding tips over
    steps = preprocessing(
        ["image", "label"],
        normalization=[{"kind": "case"}],
        roi_size=(8, 8, 8),
        spacing=(11 / 15.5,) * 3,
        label_space=space,
    )
    for shift in (0.995, 0.998, 1.002, 1.005):  # 12 voxels: the corners stay within a tenth of one
        data: Any = {
            "image": str(study.folder / study.image("i.nii.gz")),
            "label": str(study.folder / study.label("l.nii.gz", affine=np.diag([shift, shift, shift, 1]))),
        }
        for step in steps:
            data = step(data)
        assert data["image"].shape == data["label"].shape
    far = np.eye(4)
    far[0, 3] = 2
    data = {"image": str(study.folder / "i.nii.gz"), "label": str(study.folder / study.label("l.nii.gz", affine=far))}
    with pytest.raises(DataError, match="the label's corners are up to 2 mm from the image's; see `medseg check`"):
        for step in steps:
            data = step(data)


def test_20_channels_on_one_grid(study: Any) -> None:
    near, far = np.eye(4), np.eye(4)
    near[0, 3], far[0, 3] = 0.01, 3
    names = {"0": "T1", "1": "T2"}
    pair = [study.image("t1.nii.gz"), study.image("t2.nii.gz", affine=near)]
    other = [study.image("u1.nii.gz"), study.image("u2.nii.gz", affine=far)]
    result = study.check(
        [study.case("a", image=pair, case_id="a"), study.case("b", image=other, case_id="b")],
        modality=names,
        validation=[],
    )
    assert result.status == 3
    assert len(result.rows()) == 1
    result.has("b", "the channel 1's corners are up to 3 mm from the image's", "Resample the channel 1")
    steps = preprocessing(["image"], normalization=[{"kind": "case"}] * 2, roi_size=(8, 8, 8))
    data: Any = {"image": [str(study.folder / name) for name in pair]}
    for step in steps:  # what the checks let pass, training reads
        data = step(data)
    assert tuple(data["image"].shape) == (2, 12, 10, 8)


def with_header(
    study: Any, name: str, affine: np.ndarray, *, q: np.ndarray | None = None, unit: int = 2, pixdim: Any = None
) -> str:
    """An image whose sform is ``affine`` (code 2) and whose qform is ``q``."""
    image = nibabel.Nifti1Image(study.random.integers(-900, 900, (12, 10, 8)).astype(np.int16), None)
    if q is not None:
        image.header.set_qform(q, 1)
    image.header.set_sform(affine, 2)
    image.header["pixdim"][1:4] = np.linalg.norm(affine[:3, :3], axis=0) if pixdim is None else pixdim
    image.header["xyzt_units"] = unit
    nibabel.save(image, study.folder / name)
    return name


def sheared(degrees: float) -> np.ndarray:
    affine = np.eye(4)
    affine[:2, 1] = np.sin(np.deg2rad(degrees)), np.cos(np.deg2rad(degrees))
    return affine


def on_its_grid(study: Any, name: str, affine: np.ndarray, **header: Any) -> dict[str, Any]:
    """A case whose label has the image's header."""
    image = with_header(study, f"{name}.nii.gz", affine, **header)
    volume = nibabel.load(study.folder / image)
    mask = np.zeros(volume.shape, np.int16)
    mask[2:5, 2:5, 2:5] = 1
    mask.flat[study.labels] = 1  # no two are alike
    study.labels += 1
    nibabel.save(nibabel.Nifti1Image(mask, None, volume.header), study.folder / f"{name}_label.nii.gz")
    return {"image": image, "label": f"{name}_label.nii.gz"}


def test_21_shear(study: Any) -> None:
    result = study.check([on_its_grid(study, "a", sheared(12.5)), study.case("b")])
    assert result.status == 3
    result.has("a", "axes are not perpendicular (12.5° shear); at most 10° are expected", "Resample it to perp")
    result = study.check([on_its_grid(study, "c", sheared(3)), on_its_grid(study, "d", sheared(0.001))])
    assert result.status == 0, result.err
    result.warns("c", "axes are not perpendicular (3° shear); right angles are expected", "Label maps lie where")
    assert "0.001°" not in result.log


def test_23_qform_and_sform_differ(study: Any) -> None:
    moved, near = np.diag([1.0, 1, 1, 1]), np.diag([1.0, 1, 1, 1])
    moved[0, 3], near[0, 3] = 7, 0.05
    cases = [on_its_grid(study, "a", np.eye(4), q=moved), on_its_grid(study, "b", np.eye(4), q=near)]
    result = study.check(cases)
    assert result.status == 0, result.err
    result.warns("a", "qform and sform place the voxels 7 mm apart; one place is expected", "The sform is used")
    assert len(result.rows(result.log)) == 1


def test_23_pixdim_is_another_size_than_the_sform(study: Any) -> None:
    result = study.check([on_its_grid(study, "a", np.diag([1.1, 1.2, 0.9, 1]), pixdim=(1, 1, 1)), study.case("b")])
    assert result.status == 0, result.err
    result.warns("a", "voxel size is 1×1×1 mm by pixdim and 1.1×1.2×0.9 mm by the sform", "The sform's is used.")


def test_23_neither_qform_nor_sform(study: Any) -> None:
    image = nibabel.Nifti1Image(study.random.integers(-900, 900, (12, 10, 8)).astype(np.int16), None)
    nibabel.save(image, study.folder / "a.nii.gz")
    label = nibabel.Nifti1Image((np.asarray(image.dataobj) > 0).astype(np.uint8), None)
    nibabel.save(label, study.folder / "l.nii.gz")
    result = study.check([{"image": "a.nii.gz", "label": "l.nii.gz"}, study.case("b")])
    assert result.status == 0, result.err
    result.warns(
        "a", "qform and sform have code 0, so that the header does not say where", "to the left, front and top"
    )


@pytest.mark.parametrize(("unit", "size", "name"), [(1, 1e-3, "metres"), (3, 1e3, "micrometres")])
def test_30_other_units_are_read_in_mm(study: Any, unit: int, size: float, name: str) -> None:
    affine = np.diag([size, 2 * size, size, 1])
    case = on_its_grid(study, "a", affine, q=affine, unit=unit)
    result = study.check([case, study.case("b")])
    assert result.status == 0, result.err
    shown = "×".join(f"{n * size:g}" for n in (1, 2, 1))
    result.warns("a", f"spacing is {shown}; the header says {name}, where mm is expected", "It is taken as 1×2×1 mm.")
    facts = inspect_cases([Case("a", (str(study.folder / case["image"]),))], LabelSpace.from_table({"liver": 1}))[0]
    np.testing.assert_allclose(facts.spacing, (1, 2, 1), rtol=1e-5)


@pytest.mark.parametrize(
    ("size", "unit", "said"),
    [
        (1000, 2, "spacing 1000×1000×1000 mm; 0.0005 to 100 mm are expected"),
        (1e-4, 0, "spacing 0.0001×0.0001×0.0001 mm; 0.0005 to 100 mm are expected"),
        (1, 1, "spacing 1000×1000×1000 mm (the header is in m); 0.0005 to 100 mm are expected"),
        (1, 3, "spacing 0.001×0.001×0.001 mm, others have about 1×1×1 mm; one order of size is expected"),
        (1, 5, "unit of length has code 5 in the header; 1 (m), 2 (mm), 3 (µm) or 0 (not stated) are expected"),
    ],
)
def test_30_sizes_without_a_reading(study: Any, size: float, unit: int, said: str) -> None:
    case = on_its_grid(study, "a", np.diag([size, size, size, 1.0]), unit=unit)
    result = study.check([case, study.case("b"), study.case("c")])
    assert result.status == 3
    result.has("a", said, "Fix the")


@pytest.mark.parametrize("spacing", [(0, 1, 1), (1, -2, 1), (1, 1, np.nan)])
def test_22_invalid_spacing(study: Any, spacing: tuple[float, ...]) -> None:
    image = nibabel.Nifti1Image(study.random.integers(0, 9, (12, 10, 8)).astype(np.int16), np.eye(4))
    header = image.header.copy()
    header["pixdim"][1:4] = spacing
    body = image.dataobj.astype(np.int16).tobytes(order="F")
    (study.folder / "a.nii").write_bytes(header.binaryblock + bytes(4) + body)
    result = study.check([study.case("a", image="a.nii"), study.case("b")])
    assert result.status == 3
    shown = "×".join(f"{s:g}" for s in spacing)
    result.has("a", f"spacing {shown} mm is not valid; positive numbers are expected", "Fix the header")


@pytest.mark.parametrize("axes", [np.diag([1, 1, 0]), np.array([[1, 1, 0], [0, 0, 0], [0, 0, 1]])])
def test_24_singular_affine(study: Any, axes: np.ndarray) -> None:
    affine = np.eye(4)
    affine[:3, :3] = axes
    image = nibabel.Nifti1Image(study.random.integers(0, 9, (12, 10, 8)).astype(np.int16), np.eye(4))
    header = image.header.copy()
    header["srow_x"], header["srow_y"], header["srow_z"] = affine[:3]
    body = image.dataobj.astype(np.int16).tobytes(order="F")
    (study.folder / "a.nii").write_bytes(header.binaryblock + bytes(4) + body)
    result = study.check([study.case("a", image="a.nii"), study.case("b")])
    assert result.status == 3
    result.has("a", "the affine has determinant 0; three independent axes are expected", "Fix the header's sform")


def test_25_unexpected_4d_file(study: Any) -> None:
    result = study.check([study.case("a", image=study.image("a.nii.gz", (12, 10, 8, 4))), study.case("b")])
    assert result.status == 3
    result.has(
        "a",
        "shape 12×10×8×4: 4D file where 3D is expected; 'modality' names 1 (CT)",
        "Name all 4 channels in the datalist's 'modality', or split it into one file per channel.",
    )


def test_25_decathlon_4d_file_is_sound(study: Any) -> None:
    cases = [study.case(name, image=study.image(f"{name}.nii.gz", (12, 10, 8, 4))) for name in "abc"]
    names = {str(i): name for i, name in enumerate(("FLAIR", "T1w", "t1gd", "T2w"))}
    result = study.check(cases[:2], modality=names, validation=cases[2:])
    assert result.status == 0, result.err


def test_25_five_axes(study: Any) -> None:
    result = study.check([study.case("a", image=study.image("a.nii.gz", (6, 6, 6, 1, 3))), study.case("b")])
    assert result.status == 3
    result.has("a", "a.nii.gz has shape 6×6×6×1×3; 2 or 3 spatial axes", "Split the file")


def test_26_axes_differ_among_cases(study: Any) -> None:
    Image.fromarray(np.arange(120, dtype=np.uint8).reshape(12, 10)).save(study.folder / "flat.png")
    Image.fromarray(np.eye(12, 10, dtype=np.uint8)).save(study.folder / "flat_label.png")
    result = study.check([study.case("a"), study.case("b"), {"image": "flat.png", "label": "flat_label.png"}])
    assert result.status == 3
    result.has("flat", "has 2 spatial axes, others have 3", "make datalists of one kind each")


def test_27_one_voxel_axis(study: Any) -> None:
    shape = (12, 10, 1)
    case = study.case("a", image=study.image("a.nii.gz", shape), label=study.label("l.nii.gz", (12, 10, 1)))
    result = study.check([case, study.case("b")])
    assert result.status == 3
    result.has("a", "axis 2 has 1 voxel (shape 12×10×1); a volume is expected", "Store the slice as a 2D image")


@pytest.mark.parametrize("codes", ["LPS", "PIR", "SAL"])
def test_unusual_orientations_are_sound_and_reported_in_ras_order(study: Any, codes: str) -> None:
    plain = nibabel.Nifti1Image(study.random.integers(0, 99, (12, 10, 8)).astype(np.int16), np.diag([1, 2, 3, 1]))
    turn = nibabel.orientations.ornt_transform(
        nibabel.orientations.axcodes2ornt("RAS"), nibabel.orientations.axcodes2ornt(codes)
    )
    nibabel.save(plain.as_reoriented(turn), study.folder / "turned.nii.gz")
    facts = inspect_cases([Case("t", (str(study.folder / "turned.nii.gz"),))], LabelSpace.from_table({"liver": 1}))[0]
    assert not facts.problems
    assert facts.ras_shape == (12, 10, 8)
    assert facts.ras_spacing == (1, 2, 3)


def test_30_a_model_refuses_voxels_of_another_order_of_size(study: Any) -> None:
    """Resampled from 0.001 mm to the model's 1 mm, a scan has no voxel left."""
    files = [study.folder / with_header(study, f"{unit}.nii", np.eye(4), unit=unit) for unit in (3, 2)]
    facts = inspect_cases([Case("a", (str(file),)) for file in files], LabelSpace.from_table({"liver": 1}))
    message, remedy = unfit(facts[0], 3, 1, [1.0, 1.0, 2.5]) or ("", "")
    assert message.startswith("model works at spacing 1×1×2.5 mm, a has 0.001×0.001×0.001 mm; one order of size is")
    assert remedy.startswith("Fix the unit or the voxel size")
    assert unfit(facts[1], 3, 1, [1.0, 1.0, 2.5]) is None
