"""The fixed-window recipes of the publications: order of the grid's steps, and the augmentation of 3D UX-Net."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose

from medseg.labels import LabelSpace
from medseg.transforms import window_affine_augmentation, window_preprocessing

SPACE = LabelSpace.from_table({"background": 0, "liver": 1})


@pytest.fixture
def case(tmp_path: Path) -> dict[str, str]:
    """A CT whose file has the axes superior, left, anterior, of 2, 1 and 1 mm."""
    affine = np.array([[0, -1.0, 0, 0], [0, 0, 1.0, 0], [2.0, 0, 0, 0], [0, 0, 0, 1]])
    rng = np.random.default_rng(0)
    for name, values in (
        ("image", rng.uniform(-100, 200, (20, 36, 32)).astype(np.float32)),
        ("label", rng.integers(0, 2, (20, 36, 32)).astype(np.uint8)),
    ):
        nibabel.save(nibabel.Nifti1Image(values, affine), tmp_path / f"{name}.nii.gz")
    return {name: str(tmp_path / f"{name}.nii.gz") for name in ("image", "label")}


def prepared(case: dict[str, str], **options: object) -> dict[str, MetaTensor]:
    arguments = {"window": [-125, 275], "roi_size": [8, 8, 8], "label_space": SPACE} | options
    return Compose(window_preprocessing(["image", "label"], **arguments))(case)  # type: ignore[arg-type]


def test_the_spacing_is_in_the_files_order_of_axes_where_it_comes_first(case: dict[str, str]) -> None:
    turned = prepared(case, spacing=[1.0, 1.0, 1.2])
    first = prepared(case, spacing=[1.0, 1.0, 1.2], spacing_first=True)
    assert turned["image"].pixdim.tolist() == pytest.approx([1.0, 1.0, 1.2])
    assert first["image"].pixdim.tolist() == pytest.approx([1.0, 1.2, 1.0])  # the file's third axis is anterior
    for result in (turned, first):
        assert nibabel.aff2axcodes(result["image"].affine.numpy()) == ("R", "A", "S")
        assert float(result["image"].min()) >= 0 and float(result["image"].max()) <= 1
        assert result["label"].shape == result["image"].shape
    kept = prepared(case, spacing=None)
    assert tuple(kept["image"].shape) == (1, 36, 32, 20)


def test_windows_are_turned_about_the_third_axis_and_scaled() -> None:
    label = torch.zeros(1, 24, 24, 24)
    label[:, 8:16, 8:16, 8:16] = 1
    image = torch.linspace(0.1, 0.9, 24).expand(1, 24, 24, 24).clone()  # grows along the third axis
    data = {"image": MetaTensor(image), "label": MetaTensor(label), "case_id": "a"}
    only_turned = Compose(window_affine_augmentation([16, 16, 16], samples_per_case=3, scale=0.0, shift=0.0))
    only_turned.set_random_state(0)
    windows = only_turned(data)
    assert len(windows) == 3
    for window in windows:
        assert set(window) == {"image", "label", "case_id"}
        assert tuple(window["image"].shape) == (1, 16, 16, 16)
        assert not isinstance(window["image"], MetaTensor)
        assert set(window["label"].unique().tolist()) <= {0.0, 1.0}
        slope = window["image"].diff(dim=3)  # no turn about another axis, no scale: the slope along z stays
        torch.testing.assert_close(slope, torch.full_like(slope, 0.8 / 23), rtol=1e-3, atol=1e-5)
    whole = Compose(window_affine_augmentation([16, 16, 16], samples_per_case=8, shift=1.0))
    whole.set_random_state(0)
    slopes = [float(window["image"].diff(dim=3)[:, 4:12, 4:12, 4:12].mean() * 23 / 0.8) for window in whole(data)]
    assert max(slopes) - min(slopes) > 0.02
    assert all(0.88 < slope < 1.12 for slope in slopes)
    assert any(float(window["image"].min()) < 0.1 or float(window["image"].max()) > 0.9 for window in whole(data))
