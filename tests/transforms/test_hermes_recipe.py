"""The Hermes recipe: the original's numbers, and the recipe on cases of two data sets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from full_set import FULL_SET
from monai.data import MetaTensor
from monai.transforms import Compose, Padd

from medseg.errors import ConfigError
from medseg.labels import LabelSpace
from medseg.transforms import hermes_augmentation, hermes_preprocessing
from medseg.transforms.file_order import FileOrderd
from medseg.transforms.hermes import HERMES_NORMALIZATION, EqualPad, NormalizeByModalityd
from medseg.transforms.hermes_affine import RandHermesAffined, affine_matrix, warp
from medseg.transforms.hermes_intensity import RandHermesIntensityd, adjust_contrast, adjust_gamma, blur

FIXTURES = FULL_SET / "hermes"
SPACE = LabelSpace.merge({"one": {"labels": {"a": 1, "b": 2}}, "two": {"labels": {"c": 7}}})


def fixture(name: str) -> tuple[Any, dict[str, torch.Tensor]]:
    arrays = {key: torch.from_numpy(value) for key, value in np.load(FIXTURES / f"{name}.npz").items()}
    return json.loads((FIXTURES / f"{name}.json").read_text()), arrays


@pytest.mark.usefixtures("full_set")
@pytest.mark.parametrize("modality", ["ct", "mr"])
def test_normalisation_of_the_original(modality: str) -> None:
    facts, arrays = fixture(f"normalise_{modality}")
    data = {"image": arrays["img"][None], "modality": modality}
    normal = NormalizeByModalityd("image", HERMES_NORMALIZATION)(data)
    torch.testing.assert_close(normal["image"].as_tensor()[0], arrays["normalised"], rtol=0, atol=1e-5)
    padded = Padd("image", EqualPad((128,) * 3))(normal)["image"]
    assert list(padded.shape[1:]) == facts["padded_shape"]
    a, b, c = facts["pad_each_side"]
    inner = padded[0, a:-a, b:-b, c:-c]
    assert torch.equal(inner, normal["image"][0]) and padded.abs().sum() == inner.abs().sum()


def test_the_files_own_order_and_back() -> None:
    """Flipped and turned files alike: only the axes are reversed, and the way back is exact."""
    affine = torch.tensor([[0.0, 0, -2, 5], [-1, 0, 0, 3], [0, 1.5, 0, 1], [0, 0, 0, 1]], dtype=torch.float64)
    volume = MetaTensor(torch.arange(24.0).reshape(1, 2, 3, 4), affine=affine)
    reverse = FileOrderd("image")
    found = reverse({"image": volume.clone()})
    assert torch.equal(found["image"].as_tensor(), volume.as_tensor().permute(0, 3, 2, 1))
    assert torch.equal(found["image"].affine[:3, :3], affine[:3, [2, 1, 0]])
    back = reverse.inverse(found)["image"]
    assert torch.equal(back.as_tensor(), volume.as_tensor()) and torch.equal(back.affine, affine)


@pytest.mark.usefixtures("full_set")
def test_intensity_changes_of_the_original() -> None:
    facts, arrays = fixture("intensity_augment")
    image = arrays["img"][None]
    for name, changed in {
        "gamma": adjust_gamma(image, facts["gamma"]),
        "contrast": adjust_contrast(image, facts["contrast_factor"]),
        "blur": blur(image, facts["blur_sigma"]),
        "brightness_multiply": image * facts["brightness_factor"],
    }.items():
        torch.testing.assert_close(changed[0], arrays[name], rtol=0, atol=1e-5)


@pytest.mark.usefixtures("full_set")
def test_affine_maps_of_the_original() -> None:
    facts, arrays = fixture("affine_augment")
    for i, fact in enumerate(facts):
        matrix = affine_matrix(fact["angle_deg_xyz"], fact["scale_xyz"], fact["shear_xy_xz_yx_yz_zx_zy"])
        np.testing.assert_allclose(matrix, fact["theta_3x4"], atol=1e-6)
        image = warp(arrays[f"img{i}"][None], matrix, "bilinear")[0]
        torch.testing.assert_close(image, arrays[f"out_img{i}"], rtol=0, atol=1e-5)
        assert torch.equal(warp(arrays[f"lab{i}"][None], matrix, "nearest")[0], arrays[f"out_lab{i}"])


def test_gamma_of_a_constant_image() -> None:
    image = torch.full((1, 4, 4, 4), 2.0)
    assert torch.equal(adjust_gamma(image, 1.3), image)


def test_each_intensity_change_is_made_alone_with_its_chance() -> None:
    image = torch.randn(1, 6, 6, 6, generator=torch.Generator().manual_seed(0))
    change = RandHermesIntensityd("image", prob=0.0, prob_of={"mr": 1.0})
    change.set_random_state(0)
    assert torch.equal(change({"image": image, "dataset": "ct"})["image"], image)
    assert not torch.allclose(change({"image": image, "dataset": "mr"})["image"], image, atol=0.01)
    rare = RandHermesIntensityd("image", prob=0.05)
    rare.set_random_state(1)
    kept = sum(torch.equal(rare({"image": image})["image"], image) for _ in range(200)) / 200
    assert kept == pytest.approx(0.95**6, abs=0.1)


def test_affine_keeps_image_and_label_together() -> None:
    label = torch.zeros(1, 24, 24, 24, dtype=torch.int16)
    label[:, 8:16, 6:18, 8:14] = 2
    both = RandHermesAffined(["image", "label"], (16, 16, 16), modes=["bilinear", "nearest"], prob=1.0)
    both.set_random_state(3)
    result = both({"image": label.float() / 2, "label": label})
    assert result["label"].shape == (1, 16, 16, 16) and result["label"].dtype == torch.int16
    inside, image = result["label"] == 2, result["image"]
    assert inside.any() and (image[inside] > 0.2).all() and (image[~inside] < 0.8).all()
    crop = RandHermesAffined(["image", "label"], (16, 16, 16), modes=["bilinear", "nearest"], prob=0.0)
    crop.set_random_state(3)
    result = crop({"image": label.float() / 2, "label": label})
    assert torch.equal(result["image"] * 2, result["label"].float())


def test_recipe(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    raw = np.zeros((20, 22, 12), np.uint8)
    raw[5:12, 6:14, 3:9] = 7
    affine = np.diag([1.5, 1.5, 3.0, 1.0])
    for kind, array in (("image", rng.normal(100, 400, raw.shape).astype(np.float32)), ("label", raw)):
        nibabel.save(nibabel.Nifti1Image(array, affine), tmp_path / f"{kind}.nii.gz")
    case = {"image": str(tmp_path / "image.nii.gz"), "label": str(tmp_path / "label.nii.gz"), "case_id": "x"}
    both = ["image", "label"]
    prepare = Compose(hermes_preprocessing(both, roi_size=(24, 24, 24), label_space=SPACE))
    ready = prepare(case | {"dataset": "two", "modality": "ct"})
    assert ready["image"].shape == ready["label"].shape == (1, 24, 24, 25)  # 23 slices of 1.5 mm
    assert ready["label"].unique().tolist() == [0, SPACE.dataset_tasks("two")[2]]
    assert not torch.equal(ready["image"], prepare(case | {"dataset": "two"})["image"])  # clipped by percentiles
    cropped = Compose(hermes_preprocessing(both, roi_size=(4, 4, 4), label_space=SPACE, label_context=(2, 2, 1)))
    assert cropped(case | {"dataset": "two"})["label"].shape == (1, 7 + 4, 8 + 4, 12 + 2)

    augment = Compose(hermes_augmentation((16, 16, 16), intensity=0.9))
    augment.set_random_state(5)
    one, other = augment(ready), augment(ready)
    for window in (one, other):
        assert window["image"].shape == window["label"].shape == (1, 16, 16, 16)
        assert (window["dataset"], window["modality"], window["case_id"]) == ("two", "ct", "x")
        assert window["image"].isfinite().all() and window["image"].dtype == torch.float32
    assert not torch.equal(one["image"], other["image"])


def test_no_normalisation_for_a_modality() -> None:
    with pytest.raises(ConfigError, match="No normalisation for modality 'ctt'. Did you mean 'ct'"):
        NormalizeByModalityd("image", {"ct": [{"kind": "case"}]})({"image": torch.ones(1, 2, 2, 2), "modality": "ctt"})
