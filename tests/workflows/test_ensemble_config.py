"""``ensemble.yaml``: several weights of one network, joined by MONAI's own engine and command."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from monai.bundle import run

from medseg.bundle import write_bundle
from medseg.data import PlanSettings, inspect_cases, make_plan, read_datalist
from medseg.errors import ConfigError, ModelError
from medseg.networks import create_network
from medseg.weights import save_file
from medseg.workflows import checkpoints, predict, prediction_keys
from medseg.workflows.ensemble import ensemble

AFFINE = np.array([[0.0, -2.0, 0.3, 5.0], [1.5, 0.0, 0.0, -7.0], [0.0, 0.3, 2.0, 11.0], [0.0, 0.0, 0.0, 1.0]])
SPACES = {
    "softmax": {"labels": {"background": 0, "lesion": 7, "cyst": 3}},
    "sigmoid": {
        "mode": "sigmoid",
        "labels": {"background": 0, "rim": 1, "core": 2},
        "regions": {"whole": ["rim", "core"], "inner": ["core"]},
    },
}


@pytest.fixture(params=SPACES)
def bundle(request, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bundle with three weights, and one test image; the working directory is its folder."""
    space = SPACES[request.param]
    rng = np.random.default_rng(0)
    label = np.zeros((9, 11, 10), np.uint8)
    for value in list(space["labels"].values())[1:]:
        label[value : value + 2, 3:7, 4:6] = value
    for name, values in (("a", rng.normal(100, 20, label.shape).astype(np.float32)), ("a_label", label)):
        nibabel.save(nibabel.Nifti1Image(values, AFFINE), tmp_path / f"{name}.nii.gz")
    case = {"image": "a.nii.gz", "label": "a_label.nii.gz"}
    table = {"modality": {"0": "MR"}, "label_space": space, "training": [case], "test": [{"image": "a.nii.gz"}]}
    (tmp_path / "list.json").write_text(json.dumps(table))
    datalist = read_datalist(tmp_path / "list.json")
    facts = inspect_cases(datalist.sections["training"], datalist.label_space, datalist.channels)
    plan = make_plan(datalist, facts, PlanSettings(roi_size=(8, 8, 8)))
    network = {
        "spatial_dims": 3,
        "in_channels": 1,
        "out_channels": plan.out_channels,
        "channels": [4, 8],
        "strides": [2],
    }
    folder = write_bundle(tmp_path / "bundle", "UNet", network, datalist, plan, {})
    for seed, name in enumerate(("model", "second", "third")):
        torch.manual_seed(seed)
        save_file(create_network("UNet", **network).state_dict(), folder / "models" / f"{name}.pt")
    monkeypatch.chdir(folder)
    return folder


def joined(bundle: Path, name: str, **settings: object) -> np.ndarray:
    run(
        config_file=["configs/inference.yaml", "configs/ensemble.yaml"],
        output_dir=str(bundle / name),
        device="cpu",
        **settings,
    )
    (path,) = (bundle / name).glob("*.nii.gz")
    result = nibabel.load(path)
    np.testing.assert_allclose(result.affine, AFFINE, atol=1e-5)
    return np.asarray(result.dataobj)


@pytest.mark.parametrize("method", ["mean", "vote"])
def test_one_network_twice_is_that_network(method: str, bundle: Path) -> None:
    (path,) = predict(bundle, bundle / "alone", inputs=[bundle.parent / "a.nii.gz"], device="cpu")
    alone = np.asarray(nibabel.load(path).dataobj)
    both = joined(bundle, "both", ckpt_paths=["models/model.pt"] * 2, method=method)
    if method == "mean":
        np.testing.assert_array_equal(both, alone)
    else:  # labels, not probabilities, go back to the source grid
        assert np.mean(both == alone) > 0.8


def test_all_weights_of_the_bundle_are_joined_by_default(bundle: Path) -> None:
    every = joined(bundle, "every")
    named = joined(bundle, "named", ckpt_paths=[f"models/{name}.pt" for name in ("model", "second", "third")])
    pair = joined(bundle, "pair", ckpt_paths=["models/model.pt"] * 2)
    np.testing.assert_array_equal(every, named)
    assert (every != pair).any()


def test_the_mean_is_that_of_medsegs_own_ensemble(bundle: Path) -> None:
    """The bundle averages on the network's grid, ``medseg ensemble`` on the source grid: the inverse is linear."""
    others = []
    for name in ("model", "second"):
        folder = bundle.parent / name
        folder.symlink_to(bundle) if name == "model" else _copy(bundle, folder, f"{name}.pt")
        others.append(folder)
    ensemble(others, bundle / "ours", json_list=bundle.parent / "list.json", section="test", device="cpu")
    ours = np.asarray(nibabel.load(bundle / "ours" / "predictions" / "a.nii.gz").dataobj)
    theirs = joined(bundle, "theirs", ckpt_paths=["models/model.pt", "models/second.pt"])
    assert np.mean(ours == theirs) > 0.999


def _copy(bundle: Path, folder: Path, weights: str) -> None:
    (folder / "models").mkdir(parents=True)
    shutil.copytree(bundle / "configs", folder / "configs")
    (folder / "models" / "model.pt").write_bytes((bundle / "models" / weights).read_bytes())


def test_one_alone_is_no_ensemble() -> None:
    with pytest.raises(ConfigError, match="needs two or more weights, got \\['a.pt'\\]; list them in ckpt_paths"):
        prediction_keys(["a.pt"])
    assert prediction_keys(["a.pt", "b.pt"]) == ["pred_0", "pred_1"]


def test_without_weights_it_says_where_to_put_them(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=f"No weights in {tmp_path}; put the members"):
        checkpoints(str(tmp_path))
