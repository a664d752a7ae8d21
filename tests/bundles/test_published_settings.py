"""The bundles hold the publications' settings: what the run scripts set, and the parameters of every variant."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
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
_UXNET = {
    "val_interval": 2,
    "early_stop": None,
    "learning_rate": 1e-4,
    "weight_decay": 0.01,
    "batch_size": 1,
    "precision": "fp32",
    "roi_size": [96, 96, 96],
    "overlap": 0.7,
    "validation_overlap": 0.25,
    "blending": "constant",
    "preprocess::window": [-125, 275],
    "preprocess::spacing": [1.0, 1.0, 1.2],
    "preprocess::spacing_first": True,
    "augment::samples_per_case": 2,
    "augment::rotate": math.pi / 30,
    "augment::scale": 0.1,
    "augment::shift": 0.5,
    "loss::include_background": True,
    "lr_scheduler::name": "constant",
    "optimizer::_target_": "torch.optim.AdamW",
    "network_def::kernel_size": 7,
}
_REPUXNET = {
    "optimizer::_target_": "medseg.optimizers.frequency_reparameterized",
    "optimizer::mode": "effective",
    "optimizer::alpha": 1.0,
    "optimizer::optimizer::_target_": "torch.optim.AdamW",
    "network_def::kernel_size": 21,
}
_AMOS22 = {"preprocess::spacing": [1.5, 1.5, 2.0], "val_interval": 3}
SETTINGS = {
    "uxnet_flare21_ct_segmentation": {**_UXNET, "epochs": math.ceil(40_000 / 272)},
    "uxnet_amos22_ct_segmentation": {**_UXNET, **_AMOS22, "epochs": math.ceil(40_000 / 144)},
    "repuxnet_flare21_ct_segmentation": {**_UXNET, **_REPUXNET, "epochs": math.ceil(60_000 / 272)},
    "repuxnet_amos22_ct_segmentation": {**_UXNET, **_REPUXNET, **_AMOS22, "epochs": math.ceil(60_000 / 144)},
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


@pytest.mark.parametrize("name", SETTINGS)
def test_the_values_are_the_publications(name):
    train = ConfigParser(ConfigParser.load_config_file(str(BUNDLES / name / "configs" / "train.yaml")))
    assert {key: train[key] for key in SETTINGS[name]} == SETTINGS[name]


def test_the_bundles_of_one_network_differ_in_their_settings_alone():
    """A bundle stands by itself, so that the wiring stands in each; here nothing but the settings may drift."""
    one, two = (BUNDLES / name / "configs" for name in SETTINGS if name.startswith("ssh_unet"))
    for path in one.glob("*.yaml"):
        if path.stem not in ("train", "inference"):
            assert path.read_bytes() == (two / path.name).read_bytes(), path.name
    allowed = {key for settings in SETTINGS.values() for key in settings}
    allowed |= {"dataset_dir", "json_list", "num_workers", "cache", "network_def::out_channels"}
    for name in ("train.yaml", "inference.yaml"):
        configs = [ConfigParser.load_config_file(str(folder / name)) for folder in (one, two)]
        found = {key for key in differences(*configs) if not key.startswith("labels::")}
        assert found <= allowed, name
