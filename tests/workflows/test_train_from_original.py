"""A training from an original's own config file: read as data, its network and settings on the user's images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from brightness import write_cases

from medseg.errors import ConfigError
from medseg.weights.configs import network_of, read_original
from medseg.workflows import train

INI = """
[main]
output_dir = '~/runs/x'
is_train = True
[input_lists]
data_dir = '~/data'
data_lists_train_paths = ['${data_dir}/train.txt']
[input_args]
idx_x_modalities = [0]
batch_size = 2
num_workers = 4
use_data_normalization = True
[augmentation]
rotation_range = [30, 0, 0]
shift_range = [0.2, 0.2, 0.2]
zoom_range = [0.8, 1.2]
augmentation_probability = 0.8
seed = 3
[model]
model_name = 'HNOSegXS'
out_channels = 4
filters = 4
num_transform_blocks = [2, 2]
num_modes = (2, 3, 3)
[optimizer]
optimizer_name = 'Adamax'
lr = 5e-3
[scheduler]
scheduler_name = 'CosineAnnealingWarmRestarts'
eta_min = 1e-3
[loss]
loss_name = 'PCCLoss'
[train]
label_mapping = {4: 3}
num_epochs = 7
selection_epoch_portion = 0.5
use_autocast = False
[statistics]
use_hd95 = False
"""
HERMES = """
arch: resunet
in_chan: 1
base_chan: 8
down_scale: [[2,2,2],[2,2,2],[2,2,2],[2,2,2]]
kernel_size: [[3,3,3],[3,3,3],[3,3,3],[3,3,3],[3,3,3]]
norm: in
block: BasicBlock
num_block: [1, 1, 1, 1]
tn: 72
mn: 6
epochs: 20
training_size: [32, 32, 32]
optimizer: lamb
base_lr: 0.004
betas: [0.8, 0.999]
weight_decay: 0.00002
warmup_epoch: 5
iter_per_epoch: 30
val_freq: 3
ema: True
ema_alpha: 0.95
loss_mod_weight: 0.02
num_workers: 2
print_freq: 5
"""
SSHUNET = """#!/bin/sh
# the published command
python main.py --json_list dataset_0.json --data_dir "/data with space" --max_epochs 9 --optim_lr 1e-3 \\
  --kernels 133 133 333 --strides 111 222 222 --filters 4 8 16 --gate_type gsm --gate_pos -1 0 --gate_bottleneck \\
  --out_channels=3 --roi_x 32 --roi_y 32 --roi_z 32 --lrschedule warmup_cosine --warmup_epochs 3 --val_every 3 \\
  --space_z 2 --noamp --cache_num 10
"""
REPUX = """python main_train.py --root r --output o --dataset flare --network 3DUXNET --optim Adam \\
  --lr 2e-4 --max_iter 100 --eval_step 10
"""
QTSEG = {"model_type": "QTSeg", "epochs": 11, "num_classes": 2, "n_channel": 8, "encoder_model": "FPNEncoder"}
QTSEG |= {"bridge_model": "MLFD", "decoder_model": "MaskDecoder", "mask_depths": [1, 1, 1], "optimizer": "sgd"}
QTSEG |= {"scheduler": "PolyLR", "learning_rate": 0.01, "img_size": 128, "transfer_epochs": 50, "data_root": "/d"}


def write(folder: Path, name: str, content: Any) -> Path:
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_the_neural_operators(tmp_path: Path) -> None:
    found = read_original(write(tmp_path, "config.ini", INI))
    network, arguments = network_of(found)
    assert network == "hnoseg_xs"
    assert arguments["num_convs"] == [2, 2] and arguments["num_modes"] == [2, 3, 3] and arguments["filters"] == 4
    assert not {"in_channels", "out_channels"} & set(arguments)
    assert found.settings == {
        "epochs": 7,
        "batch_size": 2,
        "num_workers": 4,
        "learning_rate": 0.005,
        "weight_decay": 0,  # torch's own for Adamax
        "optimizer::_target_": "torch.optim.Adamax",
        "schedule": "cosine",
        "lr_scheduler::end": 0.001,
        "loss": {"_target_": "medseg.losses.PearsonLoss", "to_onehot_y": True, "softmax": True},
        "precision": "fp32",
        "clip_norm": None,
        "checkpoint::select_after": {
            "_target_": "medseg.engines.unselected_epochs",
            "epochs": "@epochs",
            "portion": 0.5,
        },
        "augment": {
            "_target_": "medseg.transforms.volume_augmentation",
            "_mode_": "callable",
            "rotate": [30, 0, 0],
            "shift": [0.2, 0.2, 0.2],
            "zoom": [0.8, 1.2],
            "prob": 0.8,
        },
    }
    homeless = ["label_mapping", "idx_x_modalities", "use_data_normalization", "seed"]
    assert found.homeless == [*homeless, "[main]", "[input_lists]", "[statistics]"]


def test_what_the_neural_operators_config_may_say_otherwise(tmp_path: Path) -> None:
    text = INI.replace("'PCCLoss'", "'DiceLoss'").replace("eta_min = 1e-3", "T_0 = 50")
    found = read_original(write(tmp_path, "other.ini", text))
    assert {"[scheduler]", "[loss]"} <= set(found.homeless)
    plain = text[: text.index("[scheduler]")] + text[text.index("[loss]") :]
    assert read_original(write(tmp_path, "plain.ini", plain)).settings["schedule"] == "constant"
    with pytest.raises(ConfigError, match="'Adamaxx' is not an optimiser of torch"):
        read_original(write(tmp_path, "wrong.ini", INI.replace("Adamax'", "Adamaxx'")))
    with pytest.raises(ConfigError, match="is not a Python literal"):
        read_original(write(tmp_path, "code.ini", INI.replace("num_epochs = 7", "num_epochs = open('x', 'w')")))


def test_hermes(tmp_path: Path) -> None:
    found = read_original(write(tmp_path, "hermes_resunet_3d.yaml", HERMES))
    network, arguments = network_of(found)
    assert network == "hermes_resunet"
    assert arguments["base_channels"] == 8 and arguments["num_blocks"] == [1, 1, 1, 1]
    assert not {"num_modalities", "out_channels"} & set(arguments)
    assert found.settings == {
        "epochs": 20,
        "roi_size": [32, 32, 32],
        "learning_rate": 0.004,
        "weight_decay": 0.00002,
        "iterations": 30,
        "val_interval": 3,
        "num_workers": 2,
        "loss::modality_weight": 0.02,
        "optimizer::_target_": "medseg.optimizers.Lamb",
        "optimizer::eps": 1e-5,
        "optimizer::betas": [0.8, 0.999],
        "clip_norm": None,
        "ema_decay": 0.95,
        "warmup": 0.25,
        "schedule": "exp_poly",
    }
    assert found.homeless == ["print_freq"]
    other = read_original(write(tmp_path, "b.yaml", HERMES.replace("lamb", "sgd").replace("ema: True", "ema: False")))
    assert other.settings["optimizer::_target_"] == "torch.optim.SGD"
    assert other.settings["ema_decay"] is None and "optimizer::betas" not in other.settings


def test_ssh_unet(tmp_path: Path) -> None:
    found = read_original(write(tmp_path, "run.sh", SSHUNET))
    network, arguments = network_of(found)
    assert network == "ssh_unet"
    assert arguments["kernel_size"] == [[1, 3, 3], [1, 3, 3], [3, 3, 3]]
    assert arguments["strides"] == [[1, 1, 1], [2, 2, 2], [2, 2, 2]]
    assert (arguments["gate_type"], arguments["gate_pos"], arguments["gate_in_bottleneck"]) == ("gsm", [-1, 0], True)
    settings = found.settings
    assert (settings["epochs"], settings["learning_rate"], settings["val_interval"]) == (9, 0.001, 3)
    assert (settings["roi_size"], settings["preprocess::spacing"]) == ([32, 32, 32], [1, 1, 2])
    assert (settings["schedule"], settings["lr_scheduler::warmup"]) == ("cosine", pytest.approx(1 / 3))
    assert settings["preprocess::normalization"] == [
        {"kind": "fixed", "lower": -175, "upper": 275, "mean": -175, "std": 450}
    ]
    assert settings["augment"]["flip"] == 0.2 and settings["weight_decay"] == 1e-5
    assert set(found.homeless) == {"--json_list", "--data_dir", "--noamp", "--cache_num"}
    plain = SSHUNET.replace("warmup_cosine", "none") + " --optim_name sgd --mri --dropout_rate 0.1"
    other = read_original(write(tmp_path, "sgd.sh", plain.replace("cache_num 10\n", "cache_num 10")))
    assert other.settings["schedule"] == "constant" and other.settings["optimizer::momentum"] == 0.9
    assert other.settings["preprocess::normalization"] == [{"kind": "case", "nonzero": True}]
    with pytest.raises(ConfigError, match="has no --gate_pos"):
        read_original(write(tmp_path, "none.sh", SSHUNET.replace("--gate_pos -1 0", "")))


def test_repux_and_ux_net(tmp_path: Path) -> None:
    found = read_original(write(tmp_path, "run.sh", REPUX))
    assert network_of(found)[0] == "uxnet"
    assert (found.iterations, found.iterations_per_validation) == (100, 10)
    assert found.settings["optimizer::_target_"] == "torch.optim.Adam" and found.settings["weight_decay"] == 0
    assert found.settings["learning_rate"] == 0.0002 and found.settings["augment::samples_per_case"] == 2
    assert found.homeless == ["--root", "--output", "--dataset"]
    other = read_original(write(tmp_path, "rep.sh", REPUX.replace("3DUXNET", "REPUXNET").replace("Adam", "AdamW")))
    assert network_of(other)[0] == "repuxnet"
    assert other.settings["optimizer::optimizer::_target_"] == "torch.optim.AdamW"
    assert other.settings["weight_decay"] == 0.01


def test_qtseg(tmp_path: Path) -> None:
    found = read_original(write(tmp_path, "cfg.json", QTSEG))
    network, arguments = network_of(found)
    assert network == "qtseg" and arguments["width"] == 8 and arguments["decoder"] == "dma"
    settings = found.settings
    assert (settings["epochs"], settings["roi_size"], settings["preprocess::longest"]) == (11, [128, 128], 128)
    assert (settings["optimizer::_target_"], settings["optimizer::momentum"]) == ("torch.optim.SGD", 0.99)
    assert (settings["schedule"], settings["lr_scheduler::hold"]) == ("poly", 1)
    assert settings["batch_size"] == 32  # of its base configuration
    assert found.homeless == ["transfer_epochs", "data_root"]


def test_python_is_read_and_not_executed(tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    text = f"""
import os
open({str(marker)!r}, "w")
class Config(BaseConfig):
    def __init__(self):
        self.epochs = 5
        self.n_channel: int = 8
        self.mask_depths = [1, 1, 1]
        self.optimizer = "adam"
        self.scheduler = "ExponentialLR"
        self.loss_type = ["FocalLoss"]
        self.data_root = os.path.join("a", "b")
"""
    found = read_original(write(tmp_path, "isic.py", text))
    assert network_of(found)[1]["width"] == 8
    assert found.settings["epochs"] == 5 and found.settings["weight_decay"] == 0
    assert found.homeless == ["scheduler", "loss_type", "data_root"]
    assert not marker.exists()


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("a.py", "def", "is not Python"),
        ("a.json", "{", "is not valid JSON"),
        ("a.json", "[]", "not of a system known here"),
        ("a.yaml", "arch: unet", "not of a system known here"),
        ("a.sh", "python main.py --network UNETR", "not of a system known here"),
        ("a.sh", "echo 'open", "is not a command line"),
        ("a.toml", "", "not of a system known here"),
    ],
)
def test_others_are_refused(tmp_path: Path, name: str, text: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        read_original(write(tmp_path, name, text))
    with pytest.raises(ConfigError, match="cannot be read"):
        read_original(tmp_path / "missing.ini")


TINY = {"repeats": 1, "num_workers": 0}  # a training of seconds
CONFIGS = {
    "hnoseg_xs": ("a.ini", INI, {"roi_size": [16, 16, 8]}),
    "hermes_resunet": ("a.yaml", HERMES, {"roi_size": [16, 16, 16]}),
    "ssh_unet": ("a.sh", SSHUNET, {"roi_size": [16, 16, 16]}),
    "uxnet": (
        "a.sh",
        REPUX.replace("max_iter 100", "max_iter 1"),
        {
            "roi_size": [32, 32, 32],
            "network_def::feature_size": [4, 8, 16, 32],
            "network_def::hidden_size": 32,
            "clip_norm": 3.0,
        },
    ),
    "qtseg": ("cfg.json", QTSEG, {"roi_size": [32, 32], "batch_size": 2}),
}
WRITTEN = {  # what train.yaml has to hold of each, where the user says nothing else
    "hnoseg_xs": {"learning_rate": 0.005, "lr_scheduler::end": 0.001, "network_def::filters": 4, "schedule": "cosine"},
    "hermes_resunet": {"learning_rate": 0.004, "network_def::base_channels": 8, "ema_decay": 0.95},
    "ssh_unet": {"learning_rate": 0.001, "network_def::gate_type": "gsm", "preprocess::spacing": [1, 1, 2]},
    "uxnet": {"learning_rate": 0.0002, "network_def::kernel_size": 7, "schedule": "constant", "clip_norm": 3.0},
    "qtseg": {"learning_rate": 0.01, "network_def::width": 8, "lr_scheduler::hold": 1},
}


@pytest.mark.parametrize("network", CONFIGS)
def test_each_system_trains(network: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    name, text, changes = CONFIGS[network]
    datalist = write_cases(tmp_path, dims=2 if network == "qtseg" else 3, validation=2)
    own: dict[str, Any] = {"json_list": datalist, "from_original": write(tmp_path, name, text), "device": "cpu"}
    own |= {"overrides": {**TINY, **changes}, "output": tmp_path / "run"}
    own |= {} if network == "uxnet" else {"epochs": 1}  # its own file says how many iterations
    with caplog.at_level("INFO", "medseg"):
        run = train(**own)
    assert sum("settings without a home here" in record.getMessage() for record in caplog.records) == 1
    content = yaml.safe_load((run / "configs" / "train.yaml").read_text())
    for id_, value in {**WRITTEN[network], "epochs": 1, "network_def::out_channels": 3}.items():
        found: Any = content
        for part in id_.split("::"):
            found = found[part]
        assert found == value, id_
    before = (run / "metrics.csv").read_text()
    train(**own)  # finished
    assert (run / "metrics.csv").read_text() == before


def test_one_source_of_the_network(tmp_path: Path) -> None:
    datalist = write_cases(tmp_path, validation=2)
    config = write(tmp_path, "a.ini", INI)
    sources: list[dict[str, Any]] = [{}, {"network": "UNet", "from_original": config}]
    for own in (*sources, {"bundle": "x", "from_original": config}):
        with pytest.raises(ConfigError, match="Give one of a network"):
            train(output=tmp_path / "run", json_list=datalist, **own)
    with pytest.raises(ConfigError, match="cannot be read"):
        train(output=tmp_path / "run", json_list=datalist, from_original=tmp_path / "none.ini")
