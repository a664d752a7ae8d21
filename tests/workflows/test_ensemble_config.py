"""``ensemble.yaml``: other bundles, or several weights of one, joined by MONAI's own command as by ours."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
import yaml
from monai.bundle import run

from medseg.bundle.draft import Draft
from medseg.bundle.folder import Bundle
from medseg.data import PlanSettings, inspect_cases, make_plan, read_datalist
from medseg.errors import ConfigError, ModelError
from medseg.networks import create_network
from medseg.weights import save_file
from medseg.workflows import joined as ensemble_of
from medseg.workflows import predict
from medseg.workflows.cleanup import store_rules
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
    folder = Draft.planned("UNet", network, datalist, plan).write(tmp_path / "bundle")
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
    shutil.copyfile(bundle / "models" / "model.pt", bundle / "models" / "again.pt")
    both = joined(bundle, "both", members=["models/model.pt", "models/again.pt"], method=method)
    np.testing.assert_array_equal(both, alone)


def test_all_weights_of_the_bundle_are_joined_by_default(bundle: Path) -> None:
    every = joined(bundle, "every")
    named = joined(bundle, "named", members=[f"models/{name}.pt" for name in ("model", "second", "third")])
    pair = joined(bundle, "pair", members=["models/model.pt", "models/second.pt"])
    np.testing.assert_array_equal(every, named)
    assert (every != pair).any()


@pytest.mark.parametrize("method", ["mean", "vote"])
def test_both_commands_give_the_same_label_maps(method: str, bundle: Path) -> None:
    """Members of two voxel sizes, by their folders; and the same weights by their files."""
    second, third = (_copy(bundle, bundle.parent / name, f"{name}.pt") for name in ("second", "third"))
    config = yaml.safe_load((third / "configs" / "inference.yaml").read_text())
    config["preprocess"]["spacing"] = [1.5, 1.5, 2.5]
    (third / "configs" / "inference.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    table = bundle.parent / "list.json"
    members = [bundle, second, third]
    ensemble(members, bundle / "ours", json_list=table, section="test", method=method, device="cpu")
    ours = np.asarray(nibabel.load(bundle / "ours" / "predictions" / "a.nii.gz").dataobj)
    np.testing.assert_array_equal(joined(bundle, "theirs", members=list(map(str, members)), method=method), ours)
    ensemble(members[:2], bundle / "two", json_list=table, section="test", method=method, device="cpu")
    two = np.asarray(nibabel.load(bundle / "two" / "predictions" / "a.nii.gz").dataobj)
    files = ["models/model.pt", "models/second.pt"]
    np.testing.assert_array_equal(joined(bundle, "files", members=files, method=method), two)


def _copy(bundle: Path, folder: Path, weights: str) -> Path:
    (folder / "models").mkdir(parents=True)
    shutil.copytree(bundle / "configs", folder / "configs")
    (folder / "models" / "model.pt").write_bytes((bundle / "models" / weights).read_bytes())
    return folder


def test_both_commands_clean_by_the_rules_that_all_members_have(bundle: Path, caplog) -> None:
    names = [name for name in Bundle(bundle).trained["labels"]["labels"] if name != "background"]
    store_rules(Bundle(bundle), {name: {"min_size": 10.0, "keep_largest": True} for name in names})
    second = _copy(bundle, bundle.parent / "second", "second.pt")
    members = [bundle, second]
    table = bundle.parent / "list.json"
    ensemble(members, bundle / "ours", json_list=table, section="test", device="cpu")
    ours = np.asarray(nibabel.load(bundle / "ours" / "predictions" / "a.nii.gz").dataobj)
    np.testing.assert_array_equal(joined(bundle, "theirs", members=list(map(str, members))), ours)
    uncleaned = joined(bundle, "uncleaned", members=list(map(str, members)), rules={})
    assert (uncleaned != ours).any()
    store_rules(Bundle(second), {names[0]: {"min_size": 3.0}})
    np.testing.assert_array_equal(joined(bundle, "differing", members=list(map(str, members))), uncleaned)
    assert "The members' post-processing differs" in caplog.text


def test_one_alone_is_no_ensemble(bundle: Path) -> None:
    with pytest.raises(ConfigError, match="needs two or more members, got .*; list them in 'members'"):
        ensemble_of(None, bundle, "cpu", ["models/model.pt"])
    for twice in (["models/model.pt"] * 2, ["models/model.pt", "."], ["models/model.pt", "models/../models/model.pt"]):
        with pytest.raises(ConfigError, match=r"model\.pt would be joined 2 times; expected each member .* once"):
            ensemble_of(None, bundle, "cpu", twice)
    with pytest.raises(ConfigError, match="would be joined 2 times"):
        ensemble([bundle, bundle], bundle / "ours", json_list=bundle.parent / "list.json", section="test", device="cpu")


def test_without_weights_it_says_where_to_put_them(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=f"No weights in {tmp_path / 'models'}; put the members"):
        ensemble_of(None, tmp_path, "cpu")
