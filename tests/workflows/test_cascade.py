"""The cascade: out-of-fold label maps of an earlier run beside the image, from training to a folder that was moved."""

from __future__ import annotations

import json
from pathlib import Path
from shutil import copyfile, copytree, move, rmtree
from typing import Any

import nibabel
import numpy as np
import pytest
from brightness import write_cases, write_run
from scipy import ndimage

import medseg
from medseg.bundle.compose import load_workflow
from medseg.bundle.folder import Bundle
from medseg.bundle.package import package, unpack
from medseg.data import inspect_cases, read_datalist
from medseg.engines.run_facts import RunFacts, write_facts
from medseg.errors import ConfigError, DataError, ModelError
from medseg.storage import read_yaml
from medseg.workflows.ensemble import ensemble
from medseg.workflows.folds import evaluate_folds
from medseg.workflows.inference import Inference, InferenceSettings
from medseg.workflows.new_bundle import PlanRequest, planned_draft

_QUICK: dict[str, Any] = {
    "network": "UNet",
    "epochs": 1,
    "device": "cpu",
    "tracker": "none",
    "overrides": {"repeats": 1},
}
_CASCADE = {**_QUICK, "configuration": "3d_cascade_fullres", "fold": 0}
_WRONG = 30.0  # of a normalisation that takes organ for background and lesion for organ


@pytest.fixture(scope="module", autouse=True)
def _small_patches() -> Any:
    """Patches of 8³ voxels, far smaller than a case."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("medseg.data.plan_grid.CPU_VOXELS", {3: 600, 2: 600})
        yield


@pytest.fixture(scope="module")
def folds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two validated folds of an earlier run, of which the second is wrong, and their datalist."""
    folder = tmp_path_factory.mktemp("cascade")
    datalist = write_cases(folder, validation=4, folds=2)
    for fold in (0, 1):
        run = write_run(folder / "low" / f"fold{fold}", datalist, fold=fold, mean=_WRONG * fold)
        training, validation = read_datalist(datalist).split(fold)
        ids = [tuple(case.id for case in cases) for cases in (training, validation)]
        write_facts(run, RunFacts(training_cases=ids[0], validation_cases=ids[1]))
    evaluate_folds(folder / "low", device="cpu")
    return folder


@pytest.fixture(scope="module")
def run(folds: Path) -> Path:
    """A run of the second stage, whose first stage is gone, in a folder that was moved."""
    given = {"json_list": folds / "list.json", "previous": [folds / "low"], "output": folds / "run"}
    run = medseg.train(**_CASCADE, **given)
    assert medseg.train(**_CASCADE, **given) == run  # the same command: nothing to do
    move(run, folds / "moved")
    return folds / "moved"


def _channels(folds: Path, fold: int, case_id: str) -> np.ndarray:
    """The stored label map of a case, in the box where its image is not 0, which the preprocessing keeps."""
    image, values = (
        np.asarray(nibabel.load(path).dataobj)
        for path in (
            folds / f"{case_id}.nii.gz",
            folds / "low" / f"fold{fold}" / "predictions" / f"{case_id}.nii.gz",
        )
    )
    values = values[ndimage.find_objects(image > 0, max_label=1)[0]]
    return np.stack([values == 1, values == 2])


def test_the_network_sees_the_stored_label_maps(run: Path, folds: Path) -> None:
    parser = load_workflow(run, "train").parser
    assert parser["network_def::in_channels"] == 3
    prepared = parser.get_parsed_content("train::dataset").prepared()
    for case_id, case in prepared.items():
        stored = _channels(folds, 1, case_id)  # of the run that held it out
        np.testing.assert_array_equal(np.stack([case["previous"][0] == n for n in (1, 2)]), stored)
    item = parser.get_parsed_content("validate::dataset")[0]
    np.testing.assert_array_equal(item["image"][1:], _channels(folds, 0, item["case_id"]))
    (patch,) = parser.get_parsed_content("train::dataset")[0]
    assert patch["image"].shape == (3, 8, 8, 8) and "previous" not in patch


def test_inference_runs_the_first_stage_on_the_same_image(run: Path, folds: Path, tmp_path: Path) -> None:
    (case, *_) = read_datalist(folds / "list.json").split(0)[1]
    inference = Inference.of(Bundle(run), InferenceSettings(device="cpu"))
    item = inference.workflow([case], tmp_path).parser.get_parsed_content("dataset")[0]
    np.testing.assert_array_equal(item["image"][1:], _channels(folds, 0, case.id))
    image = case.images[0]
    (found,) = medseg.predict(run, tmp_path / "out", inputs=[image], device="cpu")
    made = np.asarray(nibabel.load(found).dataobj)
    assert made.shape == (26, 24, 14)
    values = medseg.load(run).predict(nibabel.load(image))
    np.testing.assert_array_equal(np.asarray(values.dataobj), made)
    scores = medseg.evaluate(run, device="cpu")
    assert len(scores.cases) == 2
    np.testing.assert_array_equal(np.asarray(nibabel.load(run / "predictions" / found.name).dataobj), made)


def test_it_is_joined_with_other_runs_and_packed(run: Path, folds: Path, tmp_path: Path) -> None:
    joined = ensemble([run, folds / "low" / "fold0"], tmp_path / "joined", device="cpu")
    assert joined is not None and len(joined.cases) == 2
    names = package(run, output=tmp_path / "bundle.zip")
    assert "bundle/previous/models/model.pt" in names and not any("predictions" in name for name in names)
    made = unpack(tmp_path / "bundle.zip", output=tmp_path)
    image = folds / "case_2_image.nii.gz"
    assert len(medseg.predict(made, tmp_path / "out", inputs=[image], device="cpu")) == 1
    assert Bundle(made).channel_names == ["MR"]
    rmtree(made / "previous")
    with pytest.raises(ModelError, match=r"No weights at .*previous"):
        medseg.predict(made, tmp_path / "again", inputs=[image], device="cpu")
    with pytest.raises(ConfigError, match="refines the label maps of an earlier run, which its configs do not hold"):
        medseg.train(bundle=run, json_list=folds / "list.json", output=tmp_path / "copy", device="cpu")


def test_its_augmentation_is_that_of_nnunet(run: Path) -> None:
    train = read_yaml(run / "configs" / "train.yaml")
    assert [(one["prob"], one.get("radius"), one.get("largest")) for one in train["previous_augment"]] == [
        (0.4, [1.0, 8.0], None),
        (0.2, None, 0.15),
    ]


def test_nnunets_recipe_moves_the_label_map_with_the_label(folds: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medseg.data.plan_nnunet.CPU_VOXELS", {3: 600, 2: 600})
    datalist = read_datalist(folds / "list.json")
    facts = inspect_cases(datalist.sections["training"], datalist.label_space, datalist.channels)
    fine = {"preprocess::spacing": [0.3, 0.3, 0.3]}
    asked = PlanRequest("UNet", "cpu", fine, recipe="nnunet", configuration="3d_cascade_fullres")
    draft = planned_draft(asked, datalist, facts, 4)
    draft.check()
    train, inference = (draft.recipe.config(name).tree for name in ("train", "inference"))
    assert train["augment"]["keys"] == train["augment"]["spatial"]["keys"] == ["image", "label", "previous"]
    assert train["preprocess"]["spacing"] == [0.3, 0.3, 0.3]  # full resolution
    assert (train["network_def"]["in_channels"], inference["dataset"]["reader"]["in_channels"]) == (3, 1)


def _other_labels(folder: Path) -> Path:
    table = json.loads((folder / "list.json").read_text())
    table["labels"] = {"background": 0, "organ": 1, "tumour": 2}
    (folder / "other.json").write_text(json.dumps(table))
    return folder / "other.json"


def test_what_cannot_be_is_told(run: Path, folds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "others").mkdir()
    others = write_cases(tmp_path / "others", validation=4, folds=2, blobs=False)  # other images of the same names
    low, given = folds / "low", {**_CASCADE, "json_list": folds / "list.json", "output": tmp_path / "run"}
    for changes, sentence in (
        ({"previous": [low / "fold0"]}, "case_3_image was trained on by the runs of --previous; expected each case"),
        ({"previous": [low / "fold1"]}, "case_2_image was trained on by the runs of --previous"),
        ({"previous": [low, run]}, "is a second stage itself; expected a run that refines no other"),
        ({"previous": [low], "json_list": _other_labels(folds)}, "'lesion': 2}.*'tumour': 2}.*; expected the same"),
        ({"previous": [low], "json_list": others}, "case_2_image has another image than the case of"),
        ({"previous": [low], "recipe": "nnunet"}, "3d_cascade_fullres: the patch holds a quarter of the median case"),
        ({}, "--previous names; expected both or none of them"),
        ({"previous": [low], "configuration": None}, "--previous names; expected both or none of them"),
    ):
        with pytest.raises(ConfigError, match=sentence):
            medseg.train(**given | changes)
    monkeypatch.setattr("medseg.data.plan_grid.CPU_VOXELS", {3: 96_000, 2: 160_000})
    sentence = "3d_cascade_fullres: the patch holds a quarter of the median case at full resolution"
    with pytest.raises(ConfigError, match=sentence):
        medseg.train(**given, previous=[low])
    unscored = write_run(tmp_path / "unscored", folds / "list.json", fold=0)
    with pytest.raises(DataError, match="has no metrics.json, so no validation predictions"):
        medseg.train(**given, previous=[unscored])
    copytree(low / "fold0", tmp_path / "lost")
    (tmp_path / "lost" / "run.json").unlink()
    with pytest.raises(ConfigError, match="lost does not tell its training cases"):
        medseg.train(**given, previous=[tmp_path / "lost"])
    assert not (tmp_path / "run").exists()


def test_exchanged_label_maps_are_noticed(run: Path, tmp_path: Path) -> None:
    copytree(run, tmp_path / "run")
    first, second, *_ = sorted((tmp_path / "run" / "previous" / "predictions").iterdir())
    copyfile(second, first)
    with pytest.raises(ModelError, match="has not the label maps that the run began with; restore the folder"):
        load_workflow(tmp_path / "run", "train").parser.get_parsed_content("previous")
