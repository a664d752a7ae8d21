"""Saved probabilities: those of the network, in a form that others read, beside label maps that stay as they were."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
import torch
import yaml
from brightness import label_map, write_cases, write_run
from monai.data import MetaTensor
from monai.transforms import Invertd
from PIL import Image

from medseg.bundle.draft import Draft
from medseg.bundle.folder import Bundle
from medseg.cli import main
from medseg.data import PlanSettings, inspect_cases, make_plan, read_datalist
from medseg.errors import CasesFailed, ConfigError
from medseg.networks import create_network
from medseg.transforms.probability_file import read_probabilities
from medseg.weights import save_file
from medseg.workflows import evaluate, predict
from medseg.workflows.ensemble import ensemble
from medseg.workflows.inference import Inference
from medseg.workflows.prediction import PredictSettings

_OBLIQUE = np.array([[0.0, -2.0, 0.3, 5.0], [1.5, 0.0, 0.0, -7.0], [0.0, 0.3, 2.0, 11.0], [0.0, 0.0, 0.0, 1.0]])
_REGIONS = {  # nnU-Net's form: sigmoid channels that lie within each other
    "labels": {"background": 0, "whole": [1, 2], "core": 2},
    "regions_class_order": [1, 2],
}


def _bundle(folder: Path, **labels: Any) -> Path:
    """A bundle with random weights whose grid differs from the oblique image beside it."""
    rng = np.random.default_rng(0)
    voxels = np.zeros((14, 12, 10), np.float32)
    voxels[2:12, 1:11, 2:9] = rng.normal(100, 20, (10, 10, 7))
    nibabel.save(nibabel.Nifti1Image(voxels, _OBLIQUE), folder / "a.nii.gz")
    nibabel.save(nibabel.Nifti1Image((voxels > 100).astype(np.uint8), _OBLIQUE), folder / "a_label.nii.gz")
    table = {
        "modality": {"0": "MR"},
        "labels": {"background": 0, "edema": 1, "core": 2},
        **labels,
        "training": [{"image": "a.nii.gz", "label": "a_label.nii.gz"}],
    }
    (folder / "list.json").write_text(json.dumps(table))
    datalist = read_datalist(folder / "list.json")
    facts = inspect_cases(datalist.sections["training"], datalist.label_space, datalist.channels)
    plan = make_plan(datalist, facts, PlanSettings(roi_size=(8, 8, 8)))
    plan.spacing = (1.3, 1.7, 2.2)
    plan.crop_foreground = True
    channels = datalist.label_space.num_channels
    unet = {"spatial_dims": 3, "in_channels": 1, "out_channels": channels, "channels": [4, 8], "strides": [2]}
    made = Draft.planned("UNet", unet, datalist, plan).write(folder / "bundle")
    torch.manual_seed(1)
    network = create_network("UNet", **unet)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    save_file(network.state_dict(), made / "models" / "model.pt")
    return made


def _logits(bundle: Path) -> tuple[torch.Tensor, Any, Any]:
    """Of the network on its own grid, by a path that saves nothing; with image and preprocessing."""
    parser = Inference.of(Bundle(bundle), PredictSettings(bundle, "", device="cpu")).workflow([]).parser
    preprocessing = parser.get_parsed_content("preprocessing")
    item = preprocessing({"image": str(bundle.parent / "a.nii.gz"), "case_id": "a"})
    network = parser.get_parsed_content("network").eval()
    network.load_state_dict(torch.load(bundle / "models" / "model.pt", weights_only=True))
    with torch.no_grad():
        logits = parser.get_parsed_content("inferer")(item["image"][None].as_tensor(), network)[0]
    return logits, item["image"], preprocessing


@pytest.mark.parametrize("labels", [{}, _REGIONS], ids=["softmax", "nested sigmoid"])
@pytest.mark.parametrize("dtype", ["float16", "uint8"])
def test_values_are_those_of_the_network(tmp_path: Path, labels: dict[str, Any], dtype: str) -> None:
    bundle = _bundle(tmp_path, **labels)
    images = [tmp_path / "a.nii.gz"]
    plain = predict(bundle, tmp_path / "plain", inputs=images, device="cpu")
    own = {"inputs": images, "device": "cpu", "probabilities": dtype}
    (saved,) = predict(bundle, tmp_path / "out", **own)
    (on_model,) = predict(bundle, tmp_path / "model", **own, probability_grid="model")
    for path in (saved, on_model):
        np.testing.assert_array_equal(label_map(path), label_map(plain[0]))
    logits, image, preprocessing = _logits(bundle)
    expected = logits.sigmoid() if labels else logits.softmax(0)
    step = 1 / 255 / 2 if dtype == "uint8" else 1e-3
    found = read_probabilities(tmp_path / "model" / "a.npz", rows=False)
    np.testing.assert_allclose(found.values, expected.numpy(), atol=step + 1e-5)
    np.testing.assert_allclose(found.affine, image.affine.numpy())
    assert found.space == "model"
    source = read_probabilities(tmp_path / "out" / "a.npz", rows=False)
    assert source.values.shape[1:] == (14, 12, 10)
    assert tuple(source.channels) == (("whole", "core") if labels else ("background", "edema", "core"))
    np.testing.assert_allclose(source.affine, _OBLIQUE, atol=1e-6)
    inverse = Invertd("pred", transform=preprocessing, orig_keys="image", nearest_interp=False)
    back = inverse({"pred": MetaTensor(expected, meta=image.meta), "image": image})["pred"].numpy()
    inside = back.sum(0) > 0.999 if not labels else np.ones(back.shape[1:], bool)
    np.testing.assert_allclose(source.values[:, inside], back[:, inside], atol=step + 1e-5)
    if not labels:
        np.testing.assert_allclose(source.values.sum(0), 1, atol=3 * step + 1e-3)
        assert (source.values[0][back.sum(0) == 0] == 1).all()  # outside the crop
        assert not inside.all()


def test_others_read_the_file(tmp_path: Path) -> None:
    bundle = _bundle(tmp_path)
    (made,) = predict(bundle, tmp_path / "out", inputs=[tmp_path / "a.nii.gz"], device="cpu", probabilities="float16")
    stored = np.load(tmp_path / "out" / "a.npz")["probabilities"]  # as nnU-Net's programs do
    assert stored.dtype == np.float16
    labels = sitk.GetArrayFromImage(sitk.ReadImage(str(made)))
    top_two = np.sort(stored.astype(float), axis=0)[-2:]
    clear = top_two[1] - top_two[0] > 2e-3
    assert clear.mean() > 0.9
    np.testing.assert_array_equal(stored.argmax(0)[clear], labels[clear])


def test_uncertainty_is_the_entropy(tmp_path: Path) -> None:
    for name, labels in (("softmax", {}), ("sigmoid", _REGIONS)):
        (tmp_path / name).mkdir()
        bundle = _bundle(tmp_path / name, **labels)
        own = {"device": "cpu", "probabilities": "float16", "uncertainty": True}
        (made,) = predict(bundle, bundle / "out", inputs=[tmp_path / name / "a.nii.gz"], **own)
        found = nibabel.load(bundle / "out" / "uncertainty" / "a.nii.gz")
        np.testing.assert_array_equal(found.affine, nibabel.load(made).affine)
        p = read_probabilities(bundle / "out" / "a.npz", rows=False).values.astype(float)
        terms = [p] if name == "softmax" else [p, 1 - p]
        entropy = sum(-values * np.log(np.maximum(values, 1e-12)) for values in terms)
        expected = entropy.sum(0) / np.log(3) if name == "softmax" else entropy.mean(0) / np.log(2)
        np.testing.assert_allclose(np.asarray(found.dataobj), expected, atol=6e-3)
        assert expected.max() > 0.5


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two runs whose networks are sure in different degrees."""
    folder = tmp_path_factory.mktemp("runs")
    datalist = write_cases(folder, validation=2)
    made = [write_run(folder / f"run{number}", datalist) for number in range(2)]
    save_file({"sharpness": torch.tensor(0.7)}, made[1] / "models" / "model.pt")
    return made


def test_files_of_another_call_do_not_stay(runs: list[Path], tmp_path: Path) -> None:
    image = next(runs[0].parent.glob("case_4_image*"))
    own = {"inputs": [image], "device": "cpu", "probabilities": "uint8", "uncertainty": True}
    (made,) = predict(runs[0], tmp_path, **own)
    files = [tmp_path / "case_4_image.npz", tmp_path / "uncertainty" / made.name]
    assert all(file.is_file() for file in files)
    before = files[0].stat().st_mtime_ns
    predict(runs[0], tmp_path, **own)
    assert files[0].stat().st_mtime_ns == before  # kept
    files[0].unlink()
    predict(runs[0], tmp_path, **own)
    assert files[0].is_file()
    predict(runs[0], tmp_path, inputs=[image], device="cpu")
    assert not any(file.exists() for file in files)


def test_validation_saves_them_and_scores_as_before(runs: list[Path]) -> None:
    plain = evaluate(runs[0])
    saved = evaluate(runs[0], probabilities="float16", uncertainty=True)
    assert plain.cases == saved.cases
    names = {path.name for path in (runs[0] / "predictions").iterdir()}
    assert {"case_2_image.npz", "case_3_image.npz", "uncertainty"} <= names
    evaluate(runs[0])
    assert not list((runs[0] / "predictions").rglob("*.npz"))
    with pytest.raises(ConfigError, match="--space model writes no predictions, so no probabilities"):
        evaluate(runs[0], space="model", probabilities="uint8")


def test_an_ensemble_of_folders_is_that_of_their_runs(runs: list[Path], tmp_path: Path) -> None:
    own = {"json_list": runs[0].parent / "list.json", "section": "validation", "device": "cpu"}
    for run in runs:
        predict(run, tmp_path / run.name, probabilities="float16", **own)
    of_runs = ensemble(runs, tmp_path / "of_runs", weights=[1, 3], device="cpu", probabilities="float16")
    folders = [tmp_path / run.name for run in runs]
    of_folders = ensemble(folders, tmp_path / "of_folders", weights=[1, 3], probabilities="uint8", **own)
    mixed = ensemble([folders[0], runs[1]], tmp_path / "mixed", weights=[1, 3], device="cpu")
    assert of_runs is not None and of_folders is not None and mixed is not None
    assert of_runs.cases == of_folders.cases == mixed.cases
    one, other = (
        read_probabilities(tmp_path / name / "predictions" / "case_2_image.npz", rows=False).values
        for name in ("of_runs", "of_folders")
    )
    np.testing.assert_allclose(one, other, atol=3e-3)
    each = [read_probabilities(folder / "case_2_image.npz", rows=False).values for folder in folders]
    np.testing.assert_allclose(one, (each[0] + 3 * each[1]) / 4, atol=1e-3)


def test_members_that_do_not_fit_are_named(runs: list[Path], tmp_path: Path) -> None:
    own = {"json_list": runs[0].parent / "list.json", "section": "validation", "device": "cpu"}
    for name, grid in (("a", "source"), ("b", "model")):
        predict(runs[0], tmp_path / name, probabilities="uint8", probability_grid=grid, **own)
    folders = [tmp_path / "a", tmp_path / "b"]
    with pytest.raises(ConfigError, match="do not tell their cases; name a datalist"):
        ensemble(folders, tmp_path / "out")
    with pytest.raises(ConfigError, match="would be joined 2 times"):
        ensemble([folders[0]] * 2, tmp_path / "out", **own)
    with pytest.raises(ConfigError, match="has no validation scores"):
        ensemble(folders, tmp_path / "out", weights="dice", **own)
    with pytest.raises(CasesFailed, match="of grid 'model'"):
        ensemble(folders, tmp_path / "out", **own)
    (folders[1] / "case_2_image.npz").write_bytes(b"PK broken")
    with pytest.raises(CasesFailed, match="holds no probabilities"):
        ensemble(folders, tmp_path / "out", **own)
    (folders[1] / "case_2_image.npz").unlink()
    with pytest.raises(CasesFailed, match=r"has no case_2_image\.npz"):
        ensemble(folders, tmp_path / "out", **own)
    with np.load(folders[0] / "case_2_image.npz") as content:
        np.savez(folders[1] / "case_2_image.npz", probabilities=content["probabilities"][:2])
    with pytest.raises(CasesFailed, match="has the channels 2; expected background, organ, lesion"):
        ensemble(folders, tmp_path / "out", **own)


def test_2d_images_have_rows_and_columns(tmp_path: Path) -> None:
    datalist = write_cases(tmp_path, dims=2, validation=2)
    run = write_run(tmp_path / "run", datalist, dims=2)
    own = {"json_list": datalist, "section": "validation", "device": "cpu"}
    (made, _) = predict(run, tmp_path / "out", probabilities="float16", uncertainty=True, **own)
    stored = np.load(tmp_path / "out" / "case_2_image.npz")["probabilities"]
    np.testing.assert_array_equal(stored.argmax(0), np.asarray(Image.open(made)))
    entropy = np.asarray(Image.open(tmp_path / "out" / "uncertainty" / made.name))
    assert entropy.shape == stored.shape[1:] and entropy.dtype == np.uint8
    np.savez(tmp_path / "nnunet.npz", probabilities=stored[:, None])  # as nnU-Net writes 2D images
    np.testing.assert_array_equal(read_probabilities(tmp_path / "nnunet.npz", rows=True).values, stored)
    (tmp_path / "other").mkdir()
    for path in (tmp_path / "out").glob("*.npz"):
        np.savez(tmp_path / "other" / path.name, probabilities=np.load(path)["probabilities"][:, None])
    joined = ensemble([tmp_path / "out", tmp_path / "other"], tmp_path / "joined", **own)
    assert joined is not None and joined.mean_dice > 0.9


def test_settings_that_say_nothing_are_refused(runs: list[Path], tmp_path: Path) -> None:
    image = next(runs[0].parent.glob("case_4_image*"))
    with pytest.raises(ConfigError, match="--probability_grid says where --probabilities lie"):
        predict(runs[0], tmp_path, inputs=[image], device="cpu", probability_grid="model")
    config = runs[0] / "configs" / "inference.yaml"
    written = config.read_text()
    content = yaml.safe_load(written)
    steps = content["postprocessing"]["transforms"]
    steps[0]["_target_"] = "medseg.transforms.LogitsToLabelsd"
    del steps[0]["transform"]
    config.write_text(yaml.safe_dump(content, sort_keys=False))
    try:
        with pytest.raises(ConfigError, match="beside which probabilities could be saved"):
            predict(runs[0], tmp_path, inputs=[image], device="cpu", probabilities="uint8")
    finally:
        config.write_text(written)


def test_the_command_and_the_stock_command(runs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The component may stand in a bundle's own YAML."""
    from monai.bundle import run as stock

    image = next(runs[0].parent.glob("case_4_image*"))
    out = tmp_path / "cli"
    assert main(["infer", "--run", str(runs[0]), "--output", str(out), "--probabilities", "float16", str(image)]) == 0
    config = runs[0] / "configs" / "inference.yaml"
    written = config.read_text()
    content = yaml.safe_load(written)
    steps = content["postprocessing"]["transforms"]
    step = {**steps[0], "_target_": "medseg.transforms.SaveProbabilitiesd", "output_dir": "@output_dir"}
    content["postprocessing"]["transforms"] = [step, *steps]
    config.write_text(yaml.safe_dump(content, sort_keys=False))
    monkeypatch.chdir(runs[0])
    try:
        stock(config_file="configs/inference.yaml", output_dir=str(tmp_path / "stock"), section="validation")
        loaded = __import__("medseg").load(runs[0], device="cpu").predict(image)
    finally:
        config.write_text(written)
    assert sorted(path.suffix for path in (tmp_path / "stock").iterdir())[-1] == ".npz"
    one = read_probabilities(out / "case_4_image.npz", rows=False).values
    np.testing.assert_array_equal(one.argmax(0), label_map(out / "case_4_image.nii.gz"))
    np.testing.assert_array_equal(np.asarray(loaded.dataobj), label_map(out / "case_4_image.nii.gz"))
    assert not (runs[0] / "eval").exists()  # a predictor in memory writes nothing
