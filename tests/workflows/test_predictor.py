"""One image at a time from Python: the kind that goes in comes out, equal to the command's files."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from monai.data import MetaTensor, ThreadDataLoader
from monai.transforms import Compose

from medseg.bundle.draft import Draft
from medseg.bundle.folder import Bundle
from medseg.data import Case, CaseDataset, PlanSettings, inspect_cases, make_plan, read_datalist
from medseg.errors import DataError
from medseg.networks import create_network
from medseg.transforms import load
from medseg.transforms.in_memory import InMemory
from medseg.weights import save_file
from medseg.workflows import predict
from medseg.workflows.inference import Inference, InferenceSettings
from medseg.workflows.predictor import Predictor

_UNET = {"spatial_dims": 3, "in_channels": 1, "out_channels": 3, "channels": [4, 8], "strides": [2]}
_OBLIQUE = np.array([[0.0, -2.0, 0.25, 5.0], [1.5, 0.0, 0.0, -7.0], [0.0, 0.25, 2.0, 11.0], [0.0, 0.0, 0.0, 1.0]])


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    """A bundle with random weights, whose networks work on another grid than the images."""
    folder = tmp_path_factory.mktemp("predictor")
    rng = np.random.default_rng(0)
    label = rng.integers(0, 3, (12, 11, 10)).astype(np.uint8)
    for name in "ab":
        voxels = rng.normal(100, 20, label.shape).astype(np.float32)
        nibabel.save(nibabel.Nifti1Image(voxels, _OBLIQUE), folder / f"{name}.nii.gz")
    nibabel.save(nibabel.Nifti1Image(label, _OBLIQUE), folder / "label.nii.gz")
    table = {
        "modality": {"0": "MR"},
        "labels": {"background": 0, "one": 1, "two": 2},
        "training": [{"image": f"{name}.nii.gz", "label": "label.nii.gz"} for name in "ab"],
    }
    (folder / "list.json").write_text(json.dumps(table))
    datalist = read_datalist(folder / "list.json")
    facts = inspect_cases(datalist.sections["training"], datalist.label_space, datalist.channels)
    plan = make_plan(datalist, facts, PlanSettings(roi_size=(8, 8, 8)))
    made = Draft.planned("UNet", _UNET, datalist, plan).write(folder / "bundle")
    config = (made / "configs" / "inference.yaml").read_text()
    (made / "configs" / "inference.yaml").write_text(config.replace("scale: 1.0", "scale: 0.8"))
    torch.manual_seed(0)
    save_file(create_network("UNet", **_UNET).state_dict(), made / "models" / "model.pt")
    predict(made, folder / "out", inputs=[folder / "a.nii.gz", folder / "b.nii.gz"], device="cpu")
    return made


@pytest.fixture(scope="module")
def predictor(bundle: Path) -> Predictor:
    return Predictor(Inference.of(Bundle(bundle), InferenceSettings(device="cpu")))


def _file(bundle: Path, name: str) -> np.ndarray:
    return np.asarray(nibabel.load(bundle.parent / "out" / f"{name}.nii.gz").dataobj)


def test_every_kind_comes_back_as_it_went_in_equal_to_the_commands_file(bundle: Path, predictor: Predictor) -> None:
    path = bundle.parent / "a.nii.gz"
    image = nibabel.load(path)
    voxels, expected = np.asarray(image.dataobj), _file(bundle, "a")
    assert len(np.unique(expected)) > 1
    for given in (path, str(path), image, nibabel.Nifti1Image(voxels, image.affine)):
        made = predictor.predict(given)
        np.testing.assert_array_equal(np.asarray(made.dataobj), expected)
        np.testing.assert_array_equal(made.affine, image.affine)
    for array in (voxels, voxels.astype(np.float64), voxels[None], np.asfortranarray(voxels)):
        made = predictor.predict(array, affine=image.affine)
        assert isinstance(made, np.ndarray)
        np.testing.assert_array_equal(made, expected)
    tensor = predictor.predict(torch.from_numpy(voxels.copy()), affine=image.affine)
    assert type(tensor) is torch.Tensor
    np.testing.assert_array_equal(tensor.numpy(), expected)
    meta = predictor.predict(MetaTensor(torch.from_numpy(voxels.copy())[None], affine=torch.tensor(image.affine)))
    assert isinstance(meta, MetaTensor)
    assert meta.shape == (1, *voxels.shape)
    np.testing.assert_array_equal(meta.numpy()[0], expected)
    np.testing.assert_array_equal(meta.affine.numpy(), image.affine)


def test_a_resampled_tensor_is_answered_on_its_own_grid(bundle: Path, predictor: Predictor) -> None:
    from monai.transforms import Spacing

    (loaded,) = Compose(load(["image"]))({"image": str(bundle.parent / "a.nii.gz")}).values()
    resampled = Spacing((3.0, 3.0, 3.0))(loaded)
    made = predictor.predict(resampled)
    assert made.shape == resampled.shape
    torch.testing.assert_close(made.affine, resampled.affine)


def test_spacing_alone_is_an_upright_place(predictor: Predictor) -> None:
    voxels = np.random.default_rng(1).normal(100, 20, (10, 11, 12)).astype(np.float32)
    upright = nibabel.Nifti1Image(voxels, np.diag([1.5, 2.0, 2.5, 1.0]))
    expected = np.asarray(predictor.predict(upright).dataobj)
    np.testing.assert_array_equal(predictor.predict(voxels, spacing=(1.5, 2.0, 2.5)), expected)


@pytest.mark.parametrize(
    ("item", "place", "sentence"),
    [
        (np.zeros((9, 9, 9)), {}, "neither spacing nor affine"),
        (np.zeros((9, 9, 9)), {"spacing": 1, "affine": np.eye(4)}, "both spacing and affine"),
        (np.zeros((9, 9, 9)), {"spacing": (1, 1)}, "one number, or 3 of them"),
        (np.zeros((9, 9)), {"spacing": 1}, "3 spatial axes are expected"),
        (np.zeros((9, 9, 9)), {"spacing": 1}, "all voxels equal 0"),
        (np.where(np.arange(729) == 5, np.nan, np.arange(729.0)).reshape(9, 9, 9), {"spacing": 1}, "1 NaN voxels"),
        (np.full((9, 9, 9), 1e300), {"spacing": 1}, "float32"),
        (np.ones((2, 9, 9, 9)) * np.arange(9), {"spacing": 1}, "model expects 1 channels, image has 2"),
        (MetaTensor(torch.rand(1, 9, 9, 9)), {"spacing": 1}, "knows its own place"),
        (3, {}, "of type int"),
        ("nowhere.nii.gz", {}, "nowhere.nii.gz not found"),
    ],
)
def test_what_cannot_be_used_is_named(predictor: Predictor, item, place, sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        predictor.predict(item, **place)


def test_a_refused_image_leaves_the_predictor_as_it_was(bundle: Path, predictor: Predictor) -> None:
    with pytest.raises(DataError):
        predictor.predict(np.zeros((9, 9, 9)), spacing=1)
    np.testing.assert_array_equal(np.asarray(predictor.predict(bundle.parent / "b.nii.gz").dataobj), _file(bundle, "b"))


def test_files_and_images_in_memory_mix_in_one_data_set(bundle: Path) -> None:
    path = bundle.parent / "a.nii.gz"
    image = nibabel.load(path)
    voxels = np.asarray(image.dataobj)
    items = [
        str(path),
        InMemory.of(image, 3),
        InMemory.of(voxels, 3, affine=image.affine),
        InMemory.of(MetaTensor(torch.from_numpy(voxels.copy())[None], affine=torch.tensor(image.affine)), 3),
    ]
    cases = [Case(str(number), (item,)).to_dict() for number, item in enumerate(items)]
    loader = ThreadDataLoader(CaseDataset(cases, Compose(load(["image"]))), batch_size=1)
    first, *others = [batch["image"] for batch in loader]
    assert len(others) == 3
    for other in others:
        torch.testing.assert_close(other.as_tensor(), first.as_tensor(), rtol=0, atol=0)
        torch.testing.assert_close(other.affine, first.affine, rtol=0, atol=0)
