"""Label maps made as the logits come, against the long way: blend, softmax, inverse of all channels, argmax."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from monai.data import MetaTensor, list_data_collate
from monai.inferers import SlidingWindowInferer
from monai.transforms import Compose, Invertd, Spacingd
from torch import nn

from medseg.inferers import SlidingWindow, Streamed, WholeVolume, even_overlap
from medseg.labels import LabelSpace
from medseg.transforms import ToSourceGridd, load, preprocessing

ROI = (16, 12, 10)
THREE = LabelSpace.from_table({"labels": {"background": 0, "a": 1, "b": 2}})
MANY = LabelSpace.from_table({"labels": {"background": 0, **{f"l{i}": i for i in range(1, 30)}}})
REGIONS = LabelSpace.from_table(
    {
        "mode": "sigmoid",
        "labels": {"background": 0, "a": 1, "b": 2, "c": 4},
        "regions": {"whole": ["a", "b", "c"], "core": ["b", "c"], "inner": ["c"]},
    }
)
PLAIN = np.diag([1.0, 1.0, 1.0])
TURNED = np.array([[0, 0, 3.0], [-0.8, 0, 0], [0, 1.1, 0]])
OBLIQUE = np.array([[0.9, -0.2, 0], [0.2, 0.9, 0.1], [0, -0.1, 2.5]])


def _image(folder: Path, grid: np.ndarray, spacing: Any, crop: bool) -> tuple[Compose, MetaTensor]:
    """A preprocessing and what it makes of a volume with an empty border, as a batch of one."""
    array = np.zeros((41, 34, 29), dtype=np.float32)
    array[5:-3, 2:-6, 4:-2] = np.random.default_rng(0).normal(size=(33, 26, 23))
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = grid, (-31.0, 12.5, 7.0)
    nibabel.save(nibabel.Nifti1Image(array, affine), folder / "image.nii.gz")
    if spacing == "diagonal":
        steps = [Spacingd("image", (1.5, 1.2, 2.0), diagonal=True, mode="bilinear", padding_mode="border")]
        transform = Compose([*load(["image"]), *steps])
    else:
        options = {"spacing": spacing, "crop_foreground": crop, "roi_size": ROI}
        transform = Compose(preprocessing(["image"], normalization=[{"kind": "case"}], **options))
    return transform, list_data_collate([transform({"image": str(folder / "image.nii.gz")})])["image"]


def _network(space: LabelSpace) -> nn.Module:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv3d(1, 6, 5, padding=2), nn.Tanh(), nn.Conv3d(6, space.num_channels, 1)).eval()
    with torch.no_grad():
        network[0].weight *= 4
        network[2].weight *= 8
        network[2].bias.zero_()
    return network


def _long_way(image: torch.Tensor, network: nn.Module, transform: Compose, space: LabelSpace, **options: Any) -> Any:
    axes = options.pop("mirror_axes", ())
    flips = [[a + 2 for a in some] for n in range(len(axes) + 1) for some in itertools.combinations(axes, n)]
    overlap = [even_overlap(n, r, 0.5) for n, r in zip(image.shape[2:], ROI, strict=True)]
    settings = {"mode": "gaussian", "sw_batch_size": 1} | options
    window = SlidingWindowInferer(ROI, overlap=overlap, **settings)
    logits = window(image.as_tensor(), lambda x: sum(network(x.flip(f)).flip(f) for f in flips) / len(flips))[0]
    values = logits.softmax(0) if space.mode == "softmax" else logits.sigmoid()
    inverse = Invertd("pred", transform=transform, orig_keys="image", nearest_interp=False)
    (item,) = decollated(image)
    found = inverse({"pred": MetaTensor(values, meta=item.meta), "image": item})["pred"]
    if space.mode == "softmax":
        return found.argmax(0).numpy(), found.affine
    return space.compose((found > 0.5).numpy()), found.affine


def decollated(image: torch.Tensor) -> list[MetaTensor]:
    from monai.data import decollate_batch

    return decollate_batch(image)


SETTINGS: dict[str, dict[str, Any]] = {
    "as stored": {},
    "anisotropic": {"spacing": (0.8, 1.3, 2.0)},
    "cropped and padded": {"spacing": (2.5, 2.5, 3.0), "crop": True},
    "flipped, permuted": {"grid": TURNED, "crop": True, "spacing": (1.2, 1.0, 1.5)},
    "oblique": {"grid": OBLIQUE, "spacing": (1.3, 1.0, 1.5)},
    "across the axes": {"grid": OBLIQUE, "spacing": "diagonal"},
    "regions": {"space": REGIONS, "spacing": (1.3, 1.0, 1.5), "crop": True},
    "mirror images": {"mirror_axes": (0, 1, 2)},
    "many classes": {"space": MANY},
    "many classes, mirrored, resampled": {"space": MANY, "spacing": (1.3, 1.0, 1.5), "mirror_axes": (0, 2)},
    "batches": {"space": MANY, "sw_batch_size": 4, "crop": True},
    "constant blending": {"mode": "constant", "grid": TURNED},
}


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("setting", SETTINGS)
@torch.no_grad()
def test_labels_equal_the_long_way(tmp_path: Path, setting: str, double: bool) -> None:
    """Not one voxel differs, in single and in double precision; the affine is the file's."""
    options = dict(SETTINGS[setting])
    grid, space = options.pop("grid", PLAIN), options.pop("space", THREE)
    transform, image = _image(tmp_path, grid, options.pop("spacing", None), options.pop("crop", False))
    network = _network(space)
    if double:
        network, image = network.double(), image.double()
    inferer = Streamed(SlidingWindow(ROI, 0.5, **options), ToSourceGridd("pred", transform, space))
    labels = inferer(image, network)
    expected, affine = _long_way(image, network, transform, space, **options)
    assert labels.dtype == torch.uint8 and labels.shape == (1, 1, 41, 34, 29)
    assert np.array_equal(labels[0, 0], expected)
    assert len(np.unique(expected)) > 2
    item = decollated(labels)[0]
    assert torch.allclose(item.affine, affine, atol=1e-6)
    assert np.allclose(item.affine, nibabel.load(tmp_path / "image.nii.gz").affine, atol=1e-6)


@torch.no_grad()
def test_whole_volumes_stream_from_their_output(tmp_path: Path) -> None:
    transform, image = _image(tmp_path, TURNED, (1.2, 1.0, 1.5), crop=True)
    network, to_source = _network(MANY), ToSourceGridd("pred", transform, MANY)
    labels = Streamed(WholeVolume(mirror_axes=(1,)), to_source)(image, network)
    logits = WholeVolume(mirror_axes=(1,))(image, network)[0]
    (item,) = decollated(image)
    assert torch.equal(labels[0], to_source({"pred": logits, "image": item})["pred"])
