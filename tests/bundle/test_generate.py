"""Parts of a generated bundle: YAML that reads back equal, topology of U-Nets, metadata of unusual label spaces."""

from __future__ import annotations

import json

import numpy as np
import pytest
from monai.bundle import ConfigParser

from medseg.bundle import dump_yaml, make_metadata
from medseg.bundle.plan_layer import plan_recipe
from medseg.data import CaseFacts, make_plan, read_datalist


@pytest.mark.parametrize(
    "value",
    [0.00001, 1e-15, 4e-4, 1e20, 1.5, -2.5e-7, 3.0, float("inf"), -float("inf"), 0, True, None, "1e-3", "yes", "a: b"],
)
def test_values_survive_the_yaml(value, tmp_path):
    config = {"x": value, "list": [value, value], "nested": {"_target_": "a.B", "y": [{"z": value}]}}
    dump_yaml(config, tmp_path / "x.yaml", "a comment")
    assert ConfigParser.load_config_file(str(tmp_path / "x.yaml")) == config
    assert "e-" not in (tmp_path / "x.yaml").read_text().replace("1e-3", "")


def test_a_config_has_no_anchors(tmp_path):
    shared = [1, 2, 3]
    dump_yaml({"a": shared, "b": shared}, tmp_path / "x.yaml")
    assert (tmp_path / "x.yaml").read_text() == "a: [1, 2, 3]\nb: [1, 2, 3]\n"


def test_metadata_of_regions_and_two_modalities(tmp_path):
    table = {
        "name": "two",
        "modality": {"0": "CT", "1": "PET"},
        "reference": "$raise_an_error()",
        "label_space": {
            "mode": "sigmoid",
            "labels": {"background": 0, "core": 1, "rim": 2},
            "regions": {"whole": ["core", "rim"], "core region": ["core"]},
        },
        "training": [{"image": ["a_0000.nii", "a_0001.nii"], "label": "a.nii"}],
    }
    (tmp_path / "list.json").write_text(json.dumps(table))
    datalist = read_datalist(tmp_path / "list.json")
    values = np.linspace(-100, 100, 50, dtype=np.float32)
    facts = CaseFacts(
        "a",
        shape=(20, 20, 20),
        spacing=(1.0, 1.0, 1.0),
        ras_shape=(20, 20, 20),
        ras_spacing=(1.0, 1.0, 1.0),
        channels=2,
        intensity=[values, values - values.min()],
    )
    plan = make_plan(datalist, [facts])
    definition = {"_target_": "monai.networks.nets.SegResNet", "in_channels": 2, "out_channels": plan.out_channels}
    meta = make_metadata("SegResNet", plan_recipe(definition, datalist, plan).config("train").tree, datalist)
    image = meta["network_data_format"]["inputs"]["image"]
    pred = meta["network_data_format"]["outputs"]["pred"]
    assert image["channel_def"] == {"0": "CT", "1": "PET"}
    assert (image["modality"], image["format"]) == ("n/a", "raw")
    assert pred["channel_def"] == {"0": "whole", "1": "core region"}
    assert pred["num_channels"] == plan.out_channels == 2
    assert meta["data_source"] == "two"
