"""What a run allows: test-time augmentation along trained axes alone, and options that contradict the run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
import yaml

from medseg.bundle import TRAINED_AXES
from medseg.bundle.draft import Draft
from medseg.data import PlanSettings, inspect_cases, make_plan, read_datalist
from medseg.engines.mirrored import mirrored_note
from medseg.errors import ConfigError, DataError
from medseg.metrics import Scores
from medseg.networks import create_network
from medseg.reports import write_report
from medseg.weights import save_file
from medseg.workflows import predict
from medseg.workflows.ensemble import ensemble
from medseg.workflows.training import train
from medseg.workflows.validation import evaluate

_UNET = {"spatial_dims": 3, "in_channels": 1, "out_channels": 3, "channels": [4, 8], "strides": [2]}
SWAPPED = {"background": 0, "one": 2, "two": 1}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with random weights, which no mirror image leaves alone; trained with mirror images along axis 0."""
    folder = tmp_path_factory.mktemp("limits")
    rng = np.random.default_rng(0)
    entries = []
    for name in "abc":
        voxels = rng.normal(100, 20, (12, 11, 10)).astype(np.float32)
        for path, values in (
            (f"{name}.nii.gz", voxels),
            (f"{name}_label.nii.gz", rng.integers(0, 3, voxels.shape, np.uint8)),
        ):
            nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), folder / path)
        entries.append({"image": f"{name}.nii.gz", "label": f"{name}_label.nii.gz"})
    table = {
        "modality": {"0": "MR"},
        "labels": {"background": 0, "one": 1, "two": 2},
        "training": entries[:2],
        "validation": entries[2:],
    }
    (folder / "list.json").write_text(json.dumps(table))
    datalist = read_datalist(folder / "list.json")
    facts = inspect_cases(datalist.sections["training"], datalist.label_space, datalist.channels)
    plan = make_plan(datalist, facts, PlanSettings(roi_size=(8, 8, 8)))
    run = Draft.planned("UNet", _UNET, datalist, plan).write(folder / "run")
    torch.manual_seed(0)
    save_file(create_network("UNet", **_UNET).state_dict(), run / "models" / "model.pt")
    return run


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "run"))


def edit(run: Path, name: str, **changes: Any) -> None:
    path = run / "configs" / f"{name}.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | changes, sort_keys=False))


def labels(run: Path, output: Path, made: Path, **settings: Any) -> np.ndarray:
    (path,) = predict(run, output, inputs=[made.parent / "a.nii.gz"], device="cpu", **settings)
    return np.asarray(nibabel.load(path).dataobj)


def settings_of_predictions(output: Path) -> dict[str, Any]:
    (origin,) = (output / "provenance" / "origins").glob("*.json")
    return json.loads(origin.read_text())["settings"]


def test_tta_is_along_the_axes_that_training_mirrored(run: Path, made: Path, tmp_path: Path) -> None:
    plain, trained, other = (
        labels(run, tmp_path / name, made, **settings)
        for name, settings in (
            ("plain", {}),
            ("tta", {"tta": True}),
            ("explicit", {"overrides": {"mirror_axes": [0]}}),
        )
    )
    assert (trained != plain).any()  # the network is not symmetric
    np.testing.assert_array_equal(trained, other)
    assert settings_of_predictions(tmp_path / "tta")["mirror_axes"] == [0]
    np.testing.assert_array_equal(labels(run, tmp_path / "plain", made, tta=True), trained)  # made again


def test_mirrored_validation_scores_lie_apart_and_the_report_says_what_they_bring(run: Path) -> None:
    own = evaluate(run, device="cpu")
    assert mirrored_note(run) == ""
    mirrored = evaluate(run, device="cpu", tta=True)
    assert Scores.read(run) == own and mirrored.mean_dice != own.mean_dice
    assert Scores.read(run / "scores" / "validation_tta") == mirrored
    change = f"{own.mean_dice:.4f} to {mirrored.mean_dice:.4f} of 1 case), for 2 passes instead of one."
    assert change in mirrored_note(run) and change in write_report(run).read_text()
    edit(run, "inference", mirror_axes=[0])
    with pytest.raises(ConfigError, match="averages over mirror images by default"):
        evaluate(run, device="cpu", tta=True)


def test_a_packaged_bundle_without_train_yaml_knows_the_axes(run: Path, made: Path, tmp_path: Path) -> None:
    expected = labels(run, tmp_path / "run_tta", made, tta=True)
    (run / "configs" / "train.yaml").unlink()
    np.testing.assert_array_equal(labels(run, tmp_path / "packaged", made, tta=True), expected)
    with pytest.raises(ConfigError, match="only axes \\[0\\].*along 2"):
        labels(run, tmp_path / "beyond", made, overrides={"mirror_axes": [0, 2]})


@pytest.mark.parametrize(
    "beyond",
    [{"mirror_axes": [1]}, {"mirror_axes": [0, 1]}, {"inferer::mirror_axes": [2]}],
)
def test_untrained_axes_are_refused_however_they_are_given(beyond: dict, run: Path, made: Path, tmp_path: Path) -> None:
    for settings in ({"overrides": beyond}, {"overrides": beyond, "tta": True}):
        with pytest.raises(ConfigError, match="training mirrored only axes \\[0\\]"):
            labels(run, tmp_path / "out", made, **settings)


def test_stored_axes_are_judged_too(run: Path, made: Path, tmp_path: Path) -> None:
    edit(run, "inference", mirror_axes=[0, 1, 2])
    with pytest.raises(ConfigError, match="along 1, 2"):
        labels(run, tmp_path / "out", made)
    with pytest.raises(ConfigError, match="along 1, 2"):
        ensemble([made, run], tmp_path / "joint", device="cpu")
    with pytest.raises(ConfigError, match="along 1"):
        evaluate(run, device="cpu", overrides={"validate::inferer::mirror_axes": [1]})


def test_without_trained_axes_tta_is_refused(run: Path, made: Path, tmp_path: Path) -> None:
    train = yaml.safe_load((run / "configs" / "train.yaml").read_text())
    edit(run, "train", augment={**train["augment"], "flip_axes": []})
    with pytest.raises(ConfigError, match="trained without mirror images"):
        labels(run, tmp_path / "out", made, tta=True)
    inference = yaml.safe_load((run / "configs" / "inference.yaml").read_text())
    del inference[TRAINED_AXES]
    (run / "configs" / "inference.yaml").write_text(yaml.safe_dump(inference, sort_keys=False))
    (run / "configs" / "train.yaml").unlink()
    with pytest.raises(ConfigError, match="do not tell which axes.*--set mirror_axes"):
        labels(run, tmp_path / "out", made, tta=True)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"overrides": {"network_def::num_res_units": 2}}, "weights belong to the network"),
        ({"overrides": {"labels::labels": {"background": 0, "one": 2, "two": 1}}}, "outputs have the labels"),
        ({"overrides": {"output_dir": "elsewhere"}}, "use --output"),
        ({"overrides": {"ckpt_path": "other.pt"}}, "use --checkpoint"),
        ({"section": "test"}, "--section: of a datalist"),
        ({"data_dir": "."}, "--data_dir: of a datalist"),
        ({"json_list": "list.json"}, "not both"),
        ({"modality": "ct"}, "--tasks and --modality are for networks trained on several"),
    ],
)
def test_options_that_contradict_the_run(settings: dict, sentence: str, run: Path, made: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=sentence):
        labels(run, tmp_path / "out", made, **settings)


def test_another_grid_is_said_and_recorded(run: Path, made: Path, tmp_path: Path, caplog: Any) -> None:
    changes = {"preprocess::spacing": [2.0, 2.0, 2.0], "roi_size": [16, 8, 8], "overlap": 0.25}
    labels(run, tmp_path / "out", made, overrides=changes)
    differs = settings_of_predictions(tmp_path / "out")["differs_from_training"]
    assert differs == {
        "preprocess::spacing": [[1.0, 1.0, 1.0], [2.0, 2.0, 2.0]],
        "roi_size": [[8, 8, 8], [16, 8, 8]],
    }
    assert "preprocess::spacing is [2.0, 2.0, 2.0] here, the network was trained with [1.0, 1.0, 1.0]" in caplog.text
    with pytest.raises(ConfigError, match="does not take roi_size \\[9, 8, 8\\]"):
        labels(run, tmp_path / "odd", made, overrides={"roi_size": [9, 8, 8]})


def test_validation_is_held_to_the_run(run: Path, made: Path, caplog: Any) -> None:
    result = evaluate(run, device="cpu", overrides={"preprocess::spacing": [2.0, 2.0, 2.0]})
    stored = json.loads((run / "metrics.json").read_text())
    assert stored["differs_from_training"] == {"preprocess::spacing": [[1.0, 1.0, 1.0], [2.0, 2.0, 2.0]]}
    assert result == Scores.read(run) and "trained with [1.0, 1.0, 1.0]" in caplog.text
    for key, value, sentence in (("fold", 0, "not trained on"), ("network_def::channels", [4, 4], "weights belong")):
        with pytest.raises(ConfigError, match=sentence):
            evaluate(run, device="cpu", overrides={key: value})
    table = json.loads((made.parent / "list.json").read_text()) | {"labels": SWAPPED}
    (made.parent / "external.json").write_text(json.dumps(table))
    external = {"json_list": str(made.parent / "external.json"), "dataset_dir": str(made.parent)}
    with pytest.raises(ConfigError, match="The run reads \\[1\\] as label 'one', the datalist \\[2\\]"):
        evaluate(run, device="cpu", overrides=external)


def test_members_of_an_ensemble_take_the_same_images(run: Path, made: Path, tmp_path: Path) -> None:
    for change, sentence in (
        ({"network_def": {**_UNET, "_target_": "monai.networks.nets.UNet", "in_channels": 2}}, "in_channels"),
        ({"labels": {"labels": {"background": 0, "one": 2, "two": 1}}}, "same names with other values"),
    ):
        kept = (run / "configs" / "train.yaml").read_text()
        edit(run, "train", **change)
        with pytest.raises(ConfigError, match=sentence):
            ensemble([made, run], tmp_path / "joint", device="cpu")
        (run / "configs" / "train.yaml").write_text(kept)
    with pytest.raises(ConfigError, match="section 'test' has no folds"):
        ensemble([made, run], tmp_path / "joint", section="test", fold=1, device="cpu")
    table = json.loads((made.parent / "list.json").read_text()) | {"labels": {"background": 0, "one": 2, "two": 1}}
    (made.parent / "swapped.json").write_text(json.dumps(table))
    with pytest.raises(ConfigError, match="reads \\[1\\] as label 'one', the datalist \\[2\\]"):
        ensemble([made, run], tmp_path / "joint", json_list=made.parent / "swapped.json", device="cpu")


def test_channels_in_another_order_are_refused(run: Path, made: Path, tmp_path: Path) -> None:
    path = run / "configs" / "metadata.json"
    meta = json.loads(path.read_text())
    meta["network_data_format"]["inputs"]["image"]["channel_def"] = {"0": "T1", "1": "FLAIR"}
    path.write_text(json.dumps(meta))
    table = json.loads((made.parent / "list.json").read_text()) | {"modality": {"0": "flair", "1": "t1"}}
    table["training"] = [{**e, "image": [e["image"], e["image"]]} for e in table["training"]]
    table["validation"] = [{**e, "image": [e["image"], e["image"]]} for e in table["validation"]]
    (made.parent / "reordered.json").write_text(json.dumps(table))
    with pytest.raises(ConfigError, match="the same in another order"):
        predict(run, tmp_path / "out", json_list=made.parent / "reordered.json", section="validation", device="cpu")


def test_a_run_of_a_bundle_says_what_it_runs(run: Path, made: Path, tmp_path: Path, caplog: Any) -> None:
    overlay = {"learning_rate": 0.25, "augment::flip_axes": [], "preprocess::crop_foreground": True}
    (run / "configs" / "mine.yaml").write_text(yaml.safe_dump(overlay))
    with caplog.at_level("INFO", "medseg"):
        new = train(
            output=tmp_path / "new", bundle=run, json_list=made.parent / "list.json", device="cpu", epochs=1,
            overlays=["mine"], overrides={"batch_size": 1, "repeats": 1, "roi_size": [8, 16, 8]},
        )  # fmt: skip
    config = yaml.safe_load((new / "configs" / "train.yaml").read_text())
    assert (config["learning_rate"], config["batch_size"], config["epochs"]) == (0.25, 1, 1)
    readme = (new / "docs" / "README.md").read_text(encoding="utf-8")
    for line in (
        ("learning_rate", "0.25", "overlay mine"),
        ("batch_size", "1", "set by you"),
        ("epochs", "1", "set by you"),
        ("augment::flip_axes", "none", "overlay mine"),
        ("preprocess::crop_foreground", "yes", "overlay mine"),
        ("roi_size", "8 × 16 × 8 voxels", "set by you"),
    ):
        said = " ".join(line)
        assert said in " ".join(readme.split()) and said in " ".join(caplog.text.split())
    inference = yaml.safe_load((new / "configs" / "inference.yaml").read_text())
    assert (inference["roi_size"], inference[TRAINED_AXES]) == ([8, 16, 8], [])
    formats = json.loads((new / "configs" / "metadata.json").read_text())["network_data_format"]
    assert formats["inputs"]["image"]["spatial_shape"] == formats["outputs"]["pred"]["spatial_shape"] == [8, 16, 8]
    report = write_report(new).read_text(encoding="utf-8")
    assert "1 (set by you)" in report and "intensity times 0.8 to 1.2 (probability 0.3)" in report
    train(
        output=new, bundle=run, json_list=made.parent / "list.json", device="cpu", epochs=2,
        overlays=["mine"], overrides={"batch_size": 1, "repeats": 1, "roi_size": [8, 16, 8]},
    )  # fmt: skip
    assert "epochs 2 set by you" in " ".join((new / "docs" / "README.md").read_text(encoding="utf-8").split())


@pytest.mark.parametrize(
    ("overrides", "sentence", "of_bundle"),
    [
        ({"network_def::out_channels": 5}, "network_def::out_channels: expected 3, one per label", None),
        ({"network_def::in_channels": 4}, "network_def::in_channels: expected 1", "model expects 4 channels"),
        ({"network_def::spatial_dims": 2}, "network_def::spatial_dims: expected 3", "model expects 2 spatial axes"),
        ({"roi_size": [8, 8]}, "roi_size: expected 3 positive integers", None),
        ({"labels::labels": {"background": 0, "one": 1}}, "has 2 output channels", None),
        ({"labels::labels": SWAPPED}, "reads \\[2\\] as label 'one'", None),
        ({"validate::inferer::mirror_axes": [1]}, "training mirrored only axes", None),
        ({"fold": 1}, "use --fold", None),
        ({"seed": 1}, "use --seed", None),
        ({"epochs": 3}, "contradict", None),
    ],
)
@pytest.mark.parametrize("how", ["network", "bundle"])
def test_training_is_held_against_the_data_before_it_begins(
    how: str, overrides: dict[str, Any], sentence: str, of_bundle: str | None, made: Path, tmp_path: Path
) -> None:
    what: dict[str, Any] = {"network": "UNet"} if how == "network" else {"bundle": made}
    fixed = {"network_def::channels": [4, 8], "network_def::strides": [2]} if how == "network" else {}
    with pytest.raises((ConfigError, DataError), match=of_bundle if how == "bundle" and of_bundle else sentence):
        train(
            output=tmp_path / "new", json_list=made.parent / "list.json", device="cpu", epochs=1,
            overrides=fixed | overrides, **what,
        )  # fmt: skip
    assert not (tmp_path / "new" / "configs").exists()
