"""Readers, preprocessing, the way back to the source grid, and files of predictions."""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Invertd, Spacingd
from PIL import Image

from medseg.errors import DataError
from medseg.labels import IGNORE, LabelSpace
from medseg.transforms import (
    EncodeLabelsd,
    LogitsToLabelsd,
    NormalizeChannelsd,
    SaveLabelsd,
    ToSourceGridd,
    load,
    preprocessing,
)
from medseg.transforms.spacing import OwnSpacingd

SPACE = LabelSpace.from_table({"labels": {"background": 0, "a": 10, "b": [20, 21]}})
REGIONS = LabelSpace.from_table(
    {
        "mode": "sigmoid",
        "labels": {"background": 0, "a": 1, "b": 2, "c": 4},
        "regions": {"whole": ["a", "b", "c"], "core": ["b", "c"], "inner": ["c"]},
    }
)
CASE = [{"kind": "case"}]


def rotation(degrees: float) -> np.ndarray:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.array([[1, 0, 0], [0, c, -s], [0, s, c]])


GRIDS = {
    "plain": np.diag([1.0, 1.0, 1.0]),
    "flipped": np.diag([-1.2, -0.9, 2.0]),
    "permuted": np.array([[0, 0, 3.0], [-0.8, 0, 0], [0, 1.1, 0]]),
    "oblique": rotation(20) @ np.diag([0.9, 1.1, 2.5]),
    "oblique, flipped, permuted": rotation(-12) @ np.array([[0, 0, -2.0], [0.7, 0, 0], [0, -1.0, 0]]),
}


def write(path: Path, array: np.ndarray, grid: np.ndarray) -> Path:
    affine = np.eye(4)
    affine[:3, :3] = grid
    affine[:3, 3] = (-31.0, 12.5, 7.0)
    nibabel.save(nibabel.Nifti1Image(array, affine), path)
    return path


def image_with_border(shape: tuple[int, ...]) -> np.ndarray:
    array = np.zeros(shape, dtype=np.float32)
    inside = tuple(slice(2, n - 3) for n in shape)
    array[inside] = np.random.default_rng(0).normal(size=array[inside].shape)
    return array


@pytest.mark.parametrize(
    ("crop", "spacing"), [(False, None), (True, (1.5, 1.5, 1.5)), (True, None), (False, (0.8, 1.3, 2))]
)
@pytest.mark.parametrize("grid", GRIDS)
def test_source_grid_equals_the_long_way(tmp_path: Path, grid: str, crop: bool, spacing: Any) -> None:
    """Softmax, inverse of all channels, argmax: not one voxel differs; regions likewise at the threshold 0.5."""
    source = nibabel.load(write(tmp_path / "image.nii.gz", image_with_border((17, 13, 11)), GRIDS[grid]))
    transform = Compose(
        preprocessing(["image"], normalization=CASE, roi_size=(12, 12, 12), spacing=spacing, crop_foreground=crop)
    )
    image = transform({"image": str(tmp_path / "image.nii.gz")})["image"]
    logits = 2 * torch.randn(3, *image.shape[1:], generator=torch.Generator().manual_seed(0))

    invert = Invertd(keys="pred", transform=transform, orig_keys="image", nearest_interp=False)

    def long_way(probabilities: torch.Tensor) -> torch.Tensor:
        return invert({"pred": MetaTensor(probabilities, meta=image.meta), "image": image})["pred"]

    before = logits.clone()
    data = {"image": image, "pred": logits}
    labels = ToSourceGridd("pred", transform, SPACE)(data)["pred"]
    assert torch.equal(labels, long_way(logits.softmax(0)).argmax(0, keepdim=True).to(torch.uint8))
    assert labels.dtype == torch.uint8 and labels.shape == (1, *source.shape)
    assert np.allclose(labels.affine, source.affine, atol=1e-6)
    assert torch.equal(logits, before)

    regions = ToSourceGridd("pred", transform, REGIONS)(data)["pred"]
    binary = (long_way(logits.sigmoid()) > 0.5).numpy()
    assert np.array_equal(regions[0], REGIONS.compose(binary))
    assert regions.shape == (1, *source.shape)
    assert len(np.unique(labels)) == 3 and len(np.unique(regions)) == 4


@pytest.mark.parametrize("spacing", [(1.5, 1.2, 1.0), (0.7, 0.7, 2.0), (0.8, 0.9, 2.5)])
def test_resampling_along_the_axes_is_that_of_monai(spacing: tuple[float, ...]) -> None:
    """The same record, and labels to the voxel; the image to float32's last digit, where it is constant to the bit."""
    affine = torch.diag(torch.tensor([0.8, 0.9, 2.5, 1.0], dtype=torch.float64))
    draw = torch.Generator().manual_seed(0)
    image, label = torch.randn(2, 20, 13, 9, generator=draw), torch.randint(0, 5, (1, 20, 13, 9), generator=draw)
    image[1] = -1024.3
    case = {"image": MetaTensor(image, affine=affine), "label": MetaTensor(label.short(), affine=affine)}
    ours, theirs = (
        kind(["image", "label"], pixdim=spacing, mode=["bilinear", "nearest"], padding_mode="border")
        for kind in (OwnSpacingd, Spacingd)
    )
    found, expected = ours(case), theirs(case)
    assert torch.equal(found["label"], expected["label"]) and found["label"].dtype == expected["label"].dtype
    assert torch.allclose(found["image"], expected["image"], atol=1e-6, rtol=0)
    assert set(found["image"][1].unique().tolist()) == {image[1, 0, 0, 0].item()}
    assert torch.allclose(found["image"].affine, expected["image"].affine, atol=1e-12)
    (record,), (usual,) = (one["image"].applied_operations for one in (found, expected))
    assert {key: str(record[key]) for key in record if key != "id"} == {
        key: str(usual[key]) for key in usual if key != "id"
    }
    assert torch.allclose(ours.inverse(found)["image"], theirs.inverse(expected)["image"], atol=1e-6, rtol=0)


def test_source_grid_across_the_axes_keeps_one_class_at_a_time(tmp_path: Path) -> None:
    """Voxels that move across the axes go through MONAI's inverse: no more than one float per class and voxel."""
    array = np.random.default_rng(0).normal(size=(64, 64, 64)).astype(np.float32)
    write(tmp_path / "image.nii.gz", array, GRIDS["oblique"])
    spacing = Spacingd("image", (4.0, 4.0, 4.0), diagonal=True, mode="bilinear", padding_mode="border")
    transform = Compose([*load(["image"]), spacing])
    image = transform({"image": str(tmp_path / "image.nii.gz")})["image"]
    space = LabelSpace.from_table({"labels": {"background": 0, **{f"l{i}": i for i in range(1, 40)}}})
    inverted: list[tuple[int, ...]] = []
    to_source = ToSourceGridd("pred", transform, space)
    original = to_source.inverse
    alive: list[Any] = []

    def inverse(data: dict[str, Any]) -> Any:
        result = original(data)
        inverted.append(tuple(result["pred"].shape))
        alive.append(weakref.ref(result["pred"]))
        assert sum(ref() is not None for ref in alive) <= 3  # the best so far, the last and this one
        return result

    to_source.inverse = inverse  # type: ignore[assignment]
    logits = torch.randn(40, *image.shape[1:])
    labels = to_source({"image": image, "pred": logits})["pred"]
    assert inverted == [(1, 64, 64, 64)] * 40 and labels.max() > 30
    expected = original({"image": image, "pred": MetaTensor(logits.softmax(0), meta=image.meta)})["pred"].argmax(0)
    assert torch.equal(labels[0], expected.to(torch.int16))


def test_logits_to_labels() -> None:
    logits = torch.randn(3, 4, 5, 6)
    labels = LogitsToLabelsd("pred", SPACE)({"pred": logits})["pred"]
    assert torch.equal(labels, logits.argmax(0, keepdim=True).to(torch.int16))
    regions = LogitsToLabelsd("pred", REGIONS)({"pred": logits})["pred"]
    assert np.array_equal(regions[0], REGIONS.compose((logits > 0).numpy()))


@pytest.mark.parametrize("suffix", [".nrrd", ".mha", ".mhd"])
def test_itk_formats_have_the_geometry_of_nifti(tmp_path: Path, suffix: str) -> None:
    """The same oblique image written by SimpleITK in two formats is the same voxels on the same grid."""
    image = SimpleITK.GetImageFromArray(np.random.default_rng(0).normal(size=(5, 6, 7)).astype(np.float32))
    image.SetSpacing((0.7, 1.1, 3.0))
    image.SetOrigin((-10.0, 20.0, 30.0))
    image.SetDirection(rotation(25).ravel().tolist())
    volumes = []
    for name in (f"a{suffix}", "a.nii.gz"):
        SimpleITK.WriteImage(image, str(tmp_path / name))
        volumes.append(Compose(load(["image"]))({"image": str(tmp_path / name)})["image"])
    assert volumes[0].shape == (1, 7, 6, 5)
    assert torch.equal(volumes[0].as_tensor(), volumes[1].as_tensor())
    assert np.allclose(volumes[0].affine, volumes[1].affine, atol=1e-5)


def test_several_files_are_channels(tmp_path: Path) -> None:
    arrays = [np.full((4, 5, 6), value, dtype=np.float32) for value in (1, 2)]
    for suffix in (".nii.gz", ".nrrd"):
        paths = [str(tmp_path / f"{i}{suffix}") for i in range(2)]
        for path, array in zip(paths, arrays, strict=True):
            SimpleITK.WriteImage(SimpleITK.GetImageFromArray(array.T), path)
        image = Compose(load(["image"]))({"image": paths})["image"]
        assert image.shape == (2, 4, 5, 6)
        assert image[:, 0, 0, 0].tolist() == [1, 2]


def test_encode_by_data_set() -> None:
    space = LabelSpace.from_table(
        {
            "labels": {"background": 0, "a": 1, "b": 2},
            "ignore": [9],
            "datasets": {"other": {"labels": {"background": 0, "b": [5, 6]}}},
        }
    )
    raw = MetaTensor(torch.tensor([[[0.0, 1, 2, 9]]]), affine=torch.diag(torch.tensor([2.0, 3, 4, 1])))
    encode = EncodeLabelsd("label", space)
    result = encode({"label": raw})["label"]
    assert result.tolist() == [[[0, 1, 2, IGNORE]]] and result.dtype == torch.int16
    assert torch.equal(result.affine, raw.affine)
    other = encode({"label": torch.tensor([[[0.0, 5, 6, 0]]]), "dataset": "other"})["label"]
    assert other.tolist() == [[[0, 2, 2, 0]]]
    with pytest.raises(DataError, match="not declared"):
        encode({"label": raw, "dataset": "other"})


def test_normalisation_by_channel() -> None:
    image = torch.stack(
        [torch.tensor([-2000.0, 0, 100, 3000]), torch.tensor([0.0, 0, 2, 4]), torch.tensor([1.0, 2, 3, 6])]
    )
    before = image.clone()
    schemes = [
        {"kind": "fixed", "lower": -1000, "upper": 1000, "mean": 50, "std": 10},
        {"kind": "case", "nonzero": True},
        {"kind": "case"},
    ]
    result = NormalizeChannelsd("image", schemes)({"image": image})["image"]
    assert result[0].tolist() == pytest.approx([-105, -5, 5, 95])
    assert result[1].tolist() == pytest.approx([0, 0, -1, 1])
    assert result[2].tolist() == pytest.approx([(v - 3) / np.std([1, 2, 3, 6]) for v in (1, 2, 3, 6)])
    assert torch.equal(image, before)


def test_saved_labels(tmp_path: Path) -> None:
    """Raw values, the source's affine to the bit, an integer type."""
    path = write(tmp_path / "image.nii.gz", image_with_border((9, 8, 7)), GRIDS["oblique, flipped, permuted"])
    image = Compose(preprocessing(["image"], normalization=CASE, roi_size=(8, 8, 8), spacing=(1, 1, 1)))(
        {"image": str(path)}
    )["image"]
    indices = torch.randint(0, 3, (1, 9, 8, 7))
    SaveLabelsd("pred", tmp_path / "out", SPACE)({"image": image, "pred": indices, "case_id": "x"})
    saved = nibabel.load(tmp_path / "out" / "x.nii.gz")
    assert saved.get_data_dtype() == np.uint8
    assert np.array_equal(np.asarray(saved.dataobj), np.array([0, 10, 20])[indices[0]])
    assert np.array_equal(saved.affine, nibabel.load(path).affine)
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["x.nii.gz"]


@pytest.mark.parametrize("channels", [1, 3])
def test_photo_keeps_rows_and_columns(tmp_path: Path, channels: int) -> None:
    """A prediction that copies the picture must come back as the same picture."""
    rng = np.random.default_rng(0)
    mask = (rng.random((20, 31)) > 0.5).astype(np.uint8)
    picture = np.repeat(mask[..., None] * 200, 3, axis=-1) if channels == 3 else mask * 200
    Image.fromarray(picture).save(tmp_path / "a.png")
    normalization = [{"kind": "fixed", "mean": 100, "std": 1}] * channels
    transform = Compose(preprocessing(["image"], normalization=normalization, roi_size=(32, 24)))
    data = transform({"image": str(tmp_path / "a.png"), "case_id": "a"})
    assert data["image"].shape == (channels, 32, 31)
    space = LabelSpace.from_table({"labels": {"background": 0, "object": 255}})
    data["pred"] = torch.stack([-data["image"][0], data["image"][0]])
    data = ToSourceGridd("pred", transform, space)(data)
    SaveLabelsd("pred", tmp_path / "out", space)(data)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out" / "a.png")), mask * 255)


def test_flat_nifti_stays_nifti(tmp_path: Path) -> None:
    affine = np.diag([0.5, 0.7, 1.0, 1.0])
    nibabel.save(
        nibabel.Nifti1Image(np.random.default_rng(0).normal(size=(9, 8)).astype(np.float32), affine),
        tmp_path / "a.nii.gz",
    )
    transform = Compose(preprocessing(["image"], normalization=CASE, roi_size=(12, 4)))
    data = transform({"image": str(tmp_path / "a.nii.gz"), "case_id": "a"})
    data["pred"] = torch.stack([-data["image"][0], data["image"][0], data["image"][0] - 9])
    data = ToSourceGridd("pred", transform, SPACE)(data)
    SaveLabelsd("pred", tmp_path / "out", SPACE)(data)
    saved = nibabel.load(tmp_path / "out" / "a.nii.gz")
    assert saved.shape == (9, 8)
    assert np.array_equal(saved.affine, nibabel.load(tmp_path / "a.nii.gz").affine)


def test_crop_keeps_negative_voxels(tmp_path: Path) -> None:
    array = np.zeros((20, 20, 20), dtype=np.float32)
    array[3:8, 3:8, 3:8] = -5
    array[8:15, 8:15, 8:15] = np.random.default_rng(0).normal(size=(7, 7, 7)) + 3
    write(tmp_path / "image.nii.gz", array, np.eye(3))
    steps = preprocessing(["image"], normalization=[{"kind": "fixed"}], roi_size=(4, 4, 4), crop_foreground=True)
    assert Compose(steps)({"image": str(tmp_path / "image.nii.gz")})["image"].shape == (1, 12, 12, 12)


def test_label_stays_small_in_memory(tmp_path: Path) -> None:
    """After resampling, too: a cache holds 16-bit labels with their values and IGNORE."""
    space = LabelSpace.from_table({"labels": {"background": 0, "a": 1, "b": 2}, "ignore": [7]})
    values = np.random.default_rng(0).choice([0, 1, 2, 7], size=(12, 12, 12)).astype(np.uint8)
    write(tmp_path / "image.nii.gz", image_with_border((12, 12, 12)), np.eye(3))
    write(tmp_path / "label.nii.gz", values, np.eye(3))
    steps = preprocessing(
        ["image", "label"], normalization=CASE, roi_size=(16, 16, 16), spacing=(0.9, 1.1, 1.0), label_space=space
    )
    data = Compose(steps)({key: str(tmp_path / f"{key}.nii.gz") for key in ("image", "label")})
    assert data["label"].dtype == torch.int16 and data["image"].dtype == torch.float32
    assert set(data["label"].unique().tolist()) == {IGNORE, 0, 1, 2}
    assert data["label"].shape == data["image"].shape == (1, 16, 16, 16)
