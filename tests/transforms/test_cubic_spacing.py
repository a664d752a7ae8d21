"""Resampling as nnU-Net does it: splines, masks of labels, and coarse slices by themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose

from medseg.transforms import preprocessing
from medseg.transforms.cubic_spacing import CubicSpacingd
from medseg.transforms.separable import source_grid
from medseg.transforms.spacing import OwnSpacingd


def volume(values: np.ndarray, spacing: tuple[float, float, float]) -> MetaTensor:
    return MetaTensor(
        torch.from_numpy(values[None].astype(np.float32)), affine=torch.diag(torch.tensor([*spacing, 1.0]))
    )


def resample(of: type[OwnSpacingd], to: tuple[float, float, float], **images: MetaTensor) -> dict[str, MetaTensor]:
    modes = ["nearest" if key == "label" else "bilinear" for key in images]
    return of(list(images), pixdim=to, mode=modes, padding_mode="border")(images)


def test_splines_follow_a_wave_and_the_grid_is_monais() -> None:
    x = np.arange(24.0)[:, None, None] + np.zeros((24, 12, 12))
    image = volume(np.sin(x / 2), (1.0, 1.0, 1.0))
    cubic, linear = (resample(of, (0.6, 0.6, 0.6), image=image)["image"] for of in (CubicSpacingd, OwnSpacingd))
    places = np.linalg.solve(image.affine.numpy(), linear.affine.numpy())
    true = np.sin((places[0, 0] * np.arange(linear.shape[1]) + places[0, 3]) / 2)
    errors = [np.abs(made[0, :, 5, 5].numpy() - true)[4:-4].max() for made in (cubic, linear)]
    assert errors[0] < 0.2 * errors[1]
    assert torch.equal(cubic.affine, linear.affine) and cubic.shape == linear.shape
    grids = [source_grid(made) for made in (cubic, linear)]
    assert grids[0] is not None and grids[1] is not None and grids[0].shape == grids[1].shape


def test_coarse_slices_are_taken_as_they_are() -> None:
    rng = np.random.default_rng(0)
    slices = np.broadcast_to(rng.permutation(6).astype(float), (10, 10, 6))
    made = resample(CubicSpacingd, (1.5, 1.5, 2.0), image=volume(slices, (1.0, 1.0, 4.0)))["image"].numpy()[0]
    assert made.shape[2] == 11
    np.testing.assert_allclose(made, np.rint(made), atol=1e-4)  # no value between two slices


def test_labels_are_rounder_than_the_nearest_ones_and_no_new_ones_appear() -> None:
    grid = np.stack(np.meshgrid(*[np.arange(20) - 9.5] * 3, indexing="ij"))
    ball = np.where((grid**2).sum(0) < 49, 3, 0)
    ball[:, :, :2] = -1
    found = {
        of: resample(of, (0.5, 0.5, 0.5), label=volume(ball, (1.0, 1.0, 1.0)))["label"]
        for of in (CubicSpacingd, OwnSpacingd)
    }
    assert set(np.unique(found[CubicSpacingd].numpy())) == {-1.0, 0.0, 3.0}
    places, sizes = found[OwnSpacingd].affine.numpy(), found[OwnSpacingd].shape[1:]
    fine = np.stack(
        np.meshgrid(*[places[i, i] * np.arange(n) + places[i, 3] - 9.5 for i, n in enumerate(sizes)], indexing="ij")
    )
    true = (fine**2).sum(0) < 49
    wrong = [np.count_nonzero((found[of][0].numpy() == 3) != true) for of in (CubicSpacingd, OwnSpacingd)]
    assert wrong[0] < 0.8 * wrong[1]


def test_background_is_told_before_it_is_resampled(tmp_path: Path) -> None:
    """Splines leave no voxel at 0: the z-score of a masked case is that of its voxels before."""
    draw, ball = np.random.default_rng(0), np.linalg.norm(np.indices((24, 24, 24)) - 11.5, axis=0) < 8
    values = np.where(ball, draw.normal(100, 10, ball.shape), 0).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), tmp_path / "x.nii.gz")
    scheme: list[dict[str, Any]] = [{"kind": "case", "nonzero": True}]
    found = {}
    for spacing in (1.0, 0.8):
        steps = preprocessing(["image"], normalization=scheme, roi_size=(8, 8, 8), spacing=(spacing,) * 3, cubic=True)
        found[spacing] = Compose(steps)({"image": str(tmp_path / "x.nii.gz")})["image"].numpy()[0]
    center = found[0.8][10:18, 10:18, 10:18]  # of a ball of 20 voxels
    assert abs(center.mean()) < 0.3 and abs(found[0.8][:2]).max() < 0.05  # outside stays near 0
    assert found[1.0][ball].mean() == pytest.approx(0, abs=1e-3)
