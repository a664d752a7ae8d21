"""Networks of whole volumes are planned, trained and applied without windows, also at a fraction of the size."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest

from medseg.bundle.compose import load_workflow
from medseg.cli import main
from medseg.errors import ConfigError
from medseg.networks import list_networks, network_class
from medseg.storage import read_yaml
from medseg.workflows import evaluate, predict, train
from medseg.workflows.new_bundle import new_bundle

FAMILY = ("fno", "fnoseg", "hartley_mha", "hnoseg", "hnoseg_xs", "vnet_ds")
SHAPE = (26, 24, 22)  # of the synthetic cases


def test_the_family_and_no_other_network_wants_whole_volumes():
    assert tuple(n for n in list_networks() if getattr(network_class(n), "whole_volume", False)) == FAMILY


@pytest.mark.parametrize("network", FAMILY)
def test_its_window_is_the_volume(network, make_datalist, tmp_path):
    new_bundle(network=network, json_list=make_datalist(), output=tmp_path / "b", device="cpu")
    for name in ("train", "inference"):
        config = read_yaml(tmp_path / "b" / "configs" / f"{name}.yaml")
        assert config["roi_size"] == list(SHAPE) and "overlap" not in config
        inferer = config["inferer"] if name == "inference" else config["validate"]["inferer"]
        assert inferer["_target_"] == "medseg.inferers.WholeVolume"


@pytest.fixture(scope="module")
def half(make_datalist: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run at half the voxels per axis."""
    return train(
        network="hnoseg_xs",
        json_list=make_datalist(),
        output=tmp_path_factory.mktemp("half") / "run",
        epochs=1,
        device="cpu",
        overrides={
            "preprocess::scale": 0.5, "repeats": 1, "network_def::filters": 4, "network_def::num_convs": [1, 1]
        },
    )  # fmt: skip


def test_half_the_size_is_trained_on_and_predictions_come_back(half: Path, make_datalist, tmp_path: Path):
    datalist = make_datalist()
    batch = next(iter(load_workflow(half, "train").parser.get_parsed_content("train::dataloader")))
    assert batch["image"].shape == (1, 1, 13, 12, 11)
    source, model = (evaluate(half, device="cpu", space=space) for space in ("source", "model"))
    assert source.cases["case_4"]["spleen"]["reference_ml"] == pytest.approx(0.216)
    assert model.cases["case_4"]["spleen"]["reference_ml"] == pytest.approx(0.216, rel=0.35)
    (path,) = predict(half, tmp_path / "out", json_list=datalist, device="cpu")
    image = nibabel.load(datalist.parent / "images" / "case_5.nii.gz")
    predicted = nibabel.load(path)
    assert predicted.shape == SHAPE
    np.testing.assert_allclose(predicted.affine, image.affine)


def test_it_is_scored_at_other_sizes_beside_a_run_of_windows(half: Path, make_datalist, tmp_path: Path, capsys):
    tiny = {"roi_size": [16, 16, 16], "repeats": 1, "network_def::init_filters": 8}
    windows = train(
        network="SegResNet", json_list=make_datalist(), output=tmp_path / "w", epochs=1, device="cpu",
        overrides=tiny | {"network_def::blocks_down": [1, 1], "network_def::blocks_up": [1]},
    )  # fmt: skip
    command = ["resolution", "--run", str(half), "--run", str(windows), "--output", str(tmp_path / "out")]
    assert main([*command, "--sizes", "1", "0.5", "--device", "cpu"]) == 0
    assert "| run " in capsys.readouterr().out
    content = json.loads((tmp_path / "out" / "resolution.json").read_text())
    assert [run["trained_at"] for run in content["runs"]] == [0.5, 1.0]
    assert content["values"] == [0.5, 1.0] and content["cases"] == ["case_4"]
    for folder, run, place in ((half, content["runs"][0], 0), (windows, content["runs"][1], 1)):
        for space in ("model", "source"):  # at the training size: what validate says
            assert run["points"][place][space]["mean"] == evaluate(folder, device="cpu", space=space).mean_dice
    assert (tmp_path / "out" / "resolution.png").stat().st_size > 10_000
    rows = (tmp_path / "out" / "resolution.csv").read_text().splitlines()
    assert len(rows) == 1 + 2 * 2 * 2 * (1 + len(content["labels"]))
    kept = sorted((tmp_path / "out" / "runs").rglob("metrics.json"))
    assert len(kept) == 8
    times = [path.stat().st_mtime_ns for path in kept]
    assert main([*command, "--sizes", "0.5", "1", "--device", "cpu"]) == 0  # nothing is made again
    assert [path.stat().st_mtime_ns for path in kept] == times


def test_a_wrong_scale_is_refused(make_datalist, tmp_path):
    for value in (0, -1, "half"):
        with pytest.raises(ConfigError, match="preprocess::scale"):
            new_bundle(
                network="fno", json_list=make_datalist(), output=tmp_path, overrides={"preprocess::scale": value}
            )
