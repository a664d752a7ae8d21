"""Networks of whole volumes are planned, trained and applied without windows, also at a fraction of the size."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest

from medseg.errors import ConfigError
from medseg.networks import list_networks, network_class
from medseg.workflows import evaluate, predict, train
from medseg.workflows.compose import load_workflow, merged_config
from medseg.workflows.new_bundle import new_bundle

FAMILY = ("fno", "fnoseg", "hartley_mha", "hnoseg", "hnoseg_xs", "vnet_ds")
SHAPE = (26, 24, 22)  # of the synthetic cases


def test_the_family_and_no_other_network_wants_whole_volumes():
    assert tuple(n for n in list_networks() if getattr(network_class(n), "whole_volume", False)) == FAMILY


@pytest.mark.parametrize("network", FAMILY)
def test_its_window_is_the_volume(network, make_datalist, tmp_path):
    new_bundle(network=network, json_list=make_datalist(), output=tmp_path / "b", device="cpu")
    for name in ("train", "inference"):
        config = merged_config([tmp_path / "b" / "configs" / f"{name}.yaml"])
        assert config["roi_size"] == list(SHAPE) and "overlap" not in config
        inferer = config["inferer"] if name == "inference" else config["validate"]["inferer"]
        assert inferer["_target_"] == "medseg.inferers.WholeVolume"


def test_half_the_size_is_trained_on_and_predictions_come_back(make_datalist: Callable[..., Path], tmp_path: Path):
    datalist = make_datalist()
    overrides = {"preprocess::scale": 0.5, "repeats": 1, "network_def::filters": 4, "network_def::num_convs": [1, 1]}
    run = train(
        network="hnoseg_xs", json_list=datalist, output=tmp_path / "run", epochs=1, device="cpu", overrides=overrides
    )
    batch = next(iter(load_workflow(run, "train").parser.get_parsed_content("train::dataloader")))
    assert batch["image"].shape == (1, 1, 13, 12, 11)
    source, model = (evaluate(run, device="cpu", space=space) for space in ("source", "model"))
    assert source["cases"]["case_4"]["spleen"]["reference_ml"] == pytest.approx(0.216)
    assert model["cases"]["case_4"]["spleen"]["reference_ml"] == pytest.approx(0.216, rel=0.35)
    (path,) = predict(run, tmp_path / "out", json_list=datalist, device="cpu")
    image = nibabel.load(datalist.parent / "images" / "case_5.nii.gz")
    predicted = nibabel.load(path)
    assert predicted.shape == SHAPE
    np.testing.assert_allclose(predicted.affine, image.affine)


def test_a_wrong_scale_is_refused(make_datalist, tmp_path):
    for value in (0, -1, "half"):
        with pytest.raises(ConfigError, match="preprocess::scale"):
            new_bundle(
                network="fno", json_list=make_datalist(), output=tmp_path, overrides={"preprocess::scale": value}
            )
