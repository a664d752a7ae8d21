"""The bundles hold the publications' settings: what the run scripts set, and the parameters of every variant."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigParser

from medseg.workflows.run_folder import differences

BUNDLES = Path(__file__).parents[2] / "bundles"
_SSH_UNET = {
    "val_interval": 100,
    "weight_decay": 1e-5,
    "roi_size": [96, 96, 96],
    "overlap": 0.5,
    "preprocess::spacing": [1.0, 1.0, 1.0],
    "augment::samples_per_case": 4,
    "augment::scale": 0.5,
    "augment::shift": 0.5,
    "network_def::gate_pos": [0, 1, 2],
    "lr_scheduler::name": "cosine",
}
SETTINGS = {
    "ssh_unet_btcv_ct_segmentation": {
        "epochs": 5000,
        "early_stop": 1000,
        "learning_rate": 4e-4,
        "batch_size": 2,
        "preprocess::window": [-175, 250],
        "augment::flip": 0.1,
        "augment::quarter_turn": 0.1,
        "optimizer::_target_": "torch.optim.AdamW",
        **_SSH_UNET,
    },
    "ssh_unet_amos_ct_segmentation": {
        "epochs": 1000,
        "early_stop": 10,
        "learning_rate": 0.01,
        "batch_size": 1,
        "preprocess::window": [-991, 362],
        "augment::flip": 0.2,
        "augment::quarter_turn": 0.2,
        "optimizer::_target_": "torch.optim.SGD",
        "optimizer::momentum": 0.99,
        "optimizer::nesterov": True,
        **_SSH_UNET,
    },
}
PARAMETERS = {
    "ssh_unet_btcv_ct_segmentation": {None: 6_480_142, "gsm": 6_513_854, "gsf": 6_488_886, "tsm_vfn": 11_096_076},
    "ssh_unet_amos_ct_segmentation": {None: 6_480_208, "gsm": 6_513_920, "gsf": 6_488_952, "tsm_vfn": 12_509_504},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_the_values_are_the_publications(name):
    train = ConfigParser(ConfigParser.load_config_file(str(BUNDLES / name / "configs" / "train.yaml")))
    assert {key: train[key] for key in SETTINGS[name]} == SETTINGS[name]


@pytest.mark.parametrize("name", PARAMETERS)
def test_the_variants_have_the_published_parameters(name):
    readme = (BUNDLES / name / "docs" / "README.md").read_text()
    for overlay, parameters in PARAMETERS[name].items():
        parser = ConfigParser()
        names = ["inference", *([overlay] if overlay else [])]
        parser.read_config([str(BUNDLES / name / "configs" / f"{file}.yaml") for file in names])
        with torch.device("meta"):
            network = parser.get_parsed_content("network_def")
        assert sum(p.numel() for p in network.parameters()) == parameters
        assert f"{parameters:,}" in readme


def test_the_bundles_of_one_network_differ_in_their_settings_alone():
    """A bundle stands by itself, so that the wiring stands in each; here nothing but the settings may drift."""
    one, two = (BUNDLES / name / "configs" for name in SETTINGS)
    for path in one.glob("*.yaml"):
        if path.stem not in ("train", "inference"):
            assert path.read_bytes() == (two / path.name).read_bytes(), path.name
    allowed = {key for settings in SETTINGS.values() for key in settings}
    allowed |= {"dataset_dir", "json_list", "num_workers", "cache", "network_def::out_channels"}
    for name in ("train.yaml", "inference.yaml"):
        configs = [ConfigParser.load_config_file(str(folder / name)) for folder in (one, two)]
        found = {key for key in differences(*configs) if not key.startswith("labels::")}
        assert found <= allowed, name
