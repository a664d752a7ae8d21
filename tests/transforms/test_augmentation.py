"""The whole recipe, from files to batches."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.transforms import Compose

from medseg.bundle.build import BundleRecipe
from medseg.bundle.plan_layer import LIGHT
from medseg.data import make_dataset, make_loader
from medseg.labels import IGNORE, LabelSpace
from medseg.transforms import augmentation, preprocessing

SPACE = LabelSpace.from_table({"labels": {"background": 0, "a": 1, "b": 2}, "ignore": [255]})
ROI = (12, 10, 8)


def make_cases(folder: Path, shape: tuple[int, ...] = (15, 14, 13), count: int = 3) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    cases = []
    for number in range(count):
        label = rng.choice([0, 0, 0, 1, 2, 255], size=shape).astype(np.uint8)
        for kind, array in (("image", rng.normal(size=shape).astype(np.float32)), ("label", label)):
            nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), folder / f"{kind}{number}.nii.gz")
        case = {kind: str(folder / f"{kind}{number}.nii.gz") for kind in ("image", "label")}
        cases.append(case | {"case_id": f"c{number}", "fold": 0})
    return cases


def changes() -> list[Any]:
    """The intensity changes of the recipe that planned bundles stand on."""
    stated = BundleRecipe((LIGHT,), ()).config("train").tree["augment"]["intensity"]
    return list(ConfigParser({"found": stated}).get_parsed_content("found"))


def recipe(roi: tuple[int, ...] = ROI, spacing: Any = (1.2, 1.0, 1.0), **options: Any) -> Compose:
    steps = preprocessing(
        ["image", "label"], normalization=[{"kind": "case"}], roi_size=roi, spacing=spacing, label_space=SPACE
    )
    options = {"intensity": changes(), "flip_axes": list(range(len(roi))), "rotate": 0.5, "scale": 0.3} | options
    return Compose(steps + augmentation(roi, label_space=SPACE, **options))


@pytest.mark.filterwarnings("error:Corrupt cache")  # MONAI's word for a cache file that it cannot load
@pytest.mark.parametrize("kind", ["cache", "persistent"])
@pytest.mark.parametrize("samples", [1, 2])
def test_batches(tmp_path: Path, kind: str, samples: int) -> None:
    """Plain tensors of the window's size, 16-bit labels within the label space; the cache stays as it was."""
    dataset = make_dataset(
        make_cases(tmp_path), recipe(samples_per_case=samples), kind=kind, cache_dir=tmp_path / "cache", repeats=3
    )
    inner = dataset.dataset
    cached = [{k: v.clone() for k, v in c.items() if isinstance(v, torch.Tensor)} for c in getattr(inner, "_cache", [])]
    assert len(cached) == (3 if kind == "cache" else 0)
    found: set[int] = set()
    distinct: set[float] = set()
    for epoch in range(1, 5):
        dataset.epoch.fill_(epoch)
        for batch in make_loader(dataset, batch_size=3, shuffle=True):
            assert type(batch["image"]) is torch.Tensor and type(batch["label"]) is torch.Tensor
            assert batch["image"].shape == batch["label"].shape == (3 * samples, 1, *ROI)
            assert batch["image"].dtype == torch.float32 and batch["label"].dtype == torch.int16
            assert len(batch["case_id"]) == 3 * samples
            assert torch.isfinite(batch["image"]).all()
            found |= set(batch["label"].unique().tolist())
            distinct |= set(batch["image"].sum((1, 2, 3, 4)).tolist())
    assert found == {IGNORE, 0, 1, 2}
    assert len(distinct) == 4 * 9 * samples
    assert len(list((tmp_path / "cache").glob("*.pt"))) == (3 if kind == "persistent" else 0)
    for before, after in zip(cached, getattr(inner, "_cache", []), strict=True):
        assert all(torch.equal(value, torch.as_tensor(after[key])) for key, value in before.items())
        assert after["label"].dtype == torch.int16


def test_image_and_label_move_together(tmp_path: Path) -> None:
    """An image that is its label's indicator stays so through crops, flips, rotations and scalings."""
    label = np.zeros((20, 20, 20), dtype=np.uint8)
    label[4:14, 6:12, 5:16] = 1
    for kind in ("image", "label"):
        array = label.astype(np.float32) if kind == "image" else label
        nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), tmp_path / f"{kind}.nii.gz")
    case = {kind: str(tmp_path / f"{kind}.nii.gz") for kind in ("image", "label")} | {"case_id": "c"}
    roi = (16, 16, 16)
    steps = preprocessing(["image", "label"], normalization=[{"kind": "fixed"}], roi_size=roi, label_space=SPACE)
    steps += augmentation(roi, label_space=SPACE, flip_axes=[0, 1, 2], rotate=0.5, scale=0.3, intensity=[])
    dataset = make_dataset([case], Compose(steps), kind="cache", repeats=20)
    batches = list(make_loader(dataset, shuffle=True))
    assert len(batches) == 20 and sum(int((batch["label"] == 1).sum()) for batch in batches) > 0
    for batch in batches:
        assert ((batch["image"] > 0.5) != (batch["label"] == 1)).float().mean() < 0.04


@pytest.mark.parametrize("shape", [(5, 14, 3), (1, 1, 1)])
def test_volume_smaller_than_the_window(tmp_path: Path, shape: tuple[int, ...]) -> None:
    dataset = make_dataset(make_cases(tmp_path, shape), recipe(spacing=None), kind="cache")
    shapes = [batch[key].shape for batch in make_loader(dataset, shuffle=True) for key in ("image", "label")]
    assert len(shapes) == 2 * len(dataset) > 0 and set(shapes) == {(1, 1, *ROI)}


def test_two_dimensions(tmp_path: Path) -> None:
    cases = make_cases(tmp_path, (15, 14))
    dataset = make_dataset(cases, recipe((10, 12), spacing=None, rotate=[0.3]), kind="cache")
    shapes = [batch[key].shape for batch in make_loader(dataset, shuffle=True) for key in ("image", "label")]
    assert len(shapes) == 2 * len(cases) > 0 and set(shapes) == {(1, 1, 10, 12)}


def test_case_without_any_foreground(tmp_path: Path) -> None:
    cases = make_cases(tmp_path, count=1)
    nibabel.save(nibabel.Nifti1Image(np.zeros((15, 14, 13), np.uint8), np.eye(4)), cases[0]["label"])
    batch = next(iter(make_loader(make_dataset(cases, recipe(), kind="cache"), shuffle=True)))
    assert batch["label"].unique().tolist() == [0]


_HASH = """
import test_augmentation as t
from monai.data import PersistentDataset, pickle_hashing
print(PersistentDataset([], t.recipe(), cache_dir=None, hash_transform=pickle_hashing).transform_hash)
"""


@pytest.mark.slow
def test_persistent_key_is_equal_in_every_process() -> None:
    """Python's string hashes differ between processes; the cache of yesterday's run must be found all the same."""
    folders = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    keys = [
        subprocess.run(
            [sys.executable, "-c", _HASH],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(folders), "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()[-1]
        for seed in ("1", "2")
    ]
    assert keys[0] == keys[1] != ""
