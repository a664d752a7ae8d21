"""Ensembles of runs: weights from validation, members that share a grid, a section without references."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from medseg.bundle.compose import command
from medseg.bundle.draft import Draft
from medseg.bundle.folder import Bundle
from medseg.data import PlanSettings, inspect_cases, make_plan, read_datalist
from medseg.errors import ConfigError
from medseg.networks import create_network
from medseg.weights import save_file
from medseg.workflows.ensemble import ensemble
from medseg.workflows.members import Source, load_members

_UNET = {"spatial_dims": 3, "in_channels": 1, "out_channels": 3, "channels": [4, 8], "strides": [2]}


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    """Three runs with random weights; the third has windows of its own."""
    rng = np.random.default_rng(0)
    for name in ("a", "b", "c"):
        voxels = rng.normal(50, 20, (12, 11, 10)).astype(np.float32)
        label = rng.integers(0, 3, voxels.shape).astype(np.uint8)
        for path, values in ((f"{name}.nii.gz", voxels), (f"{name}_label.nii.gz", label)):
            nibabel.save(nibabel.Nifti1Image(values, np.diag([1.5, 1.5, 2.0, 1.0])), tmp_path / path)
    table = {
        "modality": {"0": "MR"},
        "labels": {"background": 0, "one": 1, "two": 2},
        "training": [{"image": f"{name}.nii.gz", "label": f"{name}_label.nii.gz"} for name in "ab"],
        "test": [{"image": "c.nii.gz"}],
    }
    (tmp_path / "list.json").write_text(json.dumps(table))
    datalist = read_datalist(tmp_path / "list.json")
    facts = inspect_cases(datalist.sections["training"], datalist.label_space, datalist.channels)
    folders = []
    for number, roi in enumerate((8, 8, 12)):
        plan = make_plan(datalist, facts, PlanSettings(roi_size=(roi,) * 3))
        draft = Draft.planned("UNet", _UNET, datalist, plan).over(command({"fold": 0}))
        folder = draft.write(tmp_path / f"run{number}")
        torch.manual_seed(number)
        save_file(create_network("UNet", **_UNET).state_dict(), folder / "models" / "model.pt")
        (folder / "metrics.json").write_text(json.dumps({"mean_dice": 0.25 * (number + 1), "labels": {}, "cases": {}}))
        folders.append(folder)
    return folders


def test_runs_of_one_setting_share_a_grid(runs: list[Path]) -> None:
    members = load_members([Source(Bundle(run), run / "models" / "model.pt") for run in runs], torch.device("cpu"))
    assert members[0].grid == members[1].grid != members[2].grid
    assert members[0].network is members[1].network is members[2].network  # each loads its weights into it


def test_weights_are_the_runs_validation_scores(runs: list[Path], tmp_path: Path, caplog) -> None:
    with caplog.at_level(logging.INFO, "medseg"):
        by_dice = ensemble(runs, tmp_path / "dice", weights="dice", device="cpu")
        given = ensemble(runs, tmp_path / "given", weights=[1, 2, 3], device="cpu")
    assert caplog.text.count("mean of 3 members, weights [0.167, 0.333, 0.5]") == 2
    assert by_dice is not None and given is not None and by_dice.facts.chosen is not None
    assert by_dice.facts.chosen[-1] == "The weights of the members are their Dice on their own validation cases."
    assert replace(by_dice, facts=replace(by_dice.facts, chosen=given.facts.chosen)) == given
    (runs[1] / "metrics.json").write_text('{"mean_dice": null, "labels": {}, "cases": {}}')
    with pytest.raises(ConfigError, match="run1 has no mean Dice"):
        ensemble(runs, tmp_path / "null", weights="dice", device="cpu")
    (runs[1] / "metrics.json").unlink()
    with pytest.raises(ConfigError, match="run1 has no metrics.json"):
        ensemble(runs, tmp_path / "none", weights="dice", device="cpu")
    with pytest.raises(ConfigError, match="weights 'size' is unknown"):
        ensemble(runs, tmp_path / "size", weights="size", device="cpu")


def test_scores_are_those_of_the_saved_label_maps(runs: list[Path], tmp_path: Path) -> None:
    result = ensemble(runs, tmp_path / "out", device="cpu")
    assert result is not None
    (case,) = result.cases
    predicted = np.asarray(nibabel.load(tmp_path / "out" / "predictions" / f"{case}.nii.gz").dataobj)
    label = np.asarray(nibabel.load(tmp_path / f"{case}_label.nii.gz").dataobj)
    pairs = [(predicted == value, label == value) for value in (1, 2)]
    dice = [2 * (one & two).sum() / (one.sum() + two.sum()) for one, two in pairs]
    assert result.mean_dice == pytest.approx(np.mean(dice))


def test_without_references_label_maps_are_saved_on_the_source_grid(runs: list[Path], tmp_path: Path) -> None:
    for method in ("mean", "vote"):
        assert ensemble(runs, tmp_path / method, method=method, section="test", device="cpu") is None
        (path,) = (tmp_path / method).rglob("*.nii.gz")
        saved = nibabel.load(path)
        assert path.name == "c.nii.gz"
        assert saved.shape == (12, 11, 10)
        assert saved.get_data_dtype() == np.uint8
        np.testing.assert_allclose(saved.affine, np.diag([1.5, 1.5, 2.0, 1.0]))
        assert set(np.unique(np.asarray(saved.dataobj))) <= {0, 1, 2}  # not the original's {0, 1}


def test_label_maps_without_probabilities_are_refused(tmp_path: Path) -> None:
    (tmp_path / "c.nii.gz").touch()
    with pytest.raises(ConfigError, match="without probabilities.*--probabilities float16"):
        ensemble([tmp_path, tmp_path], tmp_path / "out", device="cpu")
