"""Configs of Hermes: YAML with ``arch``."""

from __future__ import annotations

from typing import Any

from medseg.storage import parse_yaml
from medseg.weights.configs.contract import Homes, OriginalConfig, homed, optimizer
from medseg.weights.original.hermes import SETTINGS, read_settings

__all__ = ["FORM", "SUFFIXES", "read"]

SUFFIXES = (".yaml", ".yml")
FORM = "a .yaml of Hermes with arch: resunet or medformer"
_OPTIMIZERS = {"sgd": "SGD", "adam": "Adam", "adamw": "AdamW"}
_NETWORK = ("arch", "down_scale", "chan_num")  # beside the constructor's arguments
_TOGETHER = ("optimizer", "betas", "ema", "ema_alpha", "warmup_epoch")
_HOMES: Homes = {
    "epochs": "epochs",
    "training_size": "roi_size",
    "base_lr": "learning_rate",
    "weight_decay": "weight_decay",
    "batch_size": "batch_size",
    "iter_per_epoch": "iterations",
    "val_freq": "val_interval",
    "num_workers": "num_workers",
    "loss_mod_weight": "loss::modality_weight",
}


def read(text: str, source: str) -> OriginalConfig | None:
    found = read_settings(text, source)
    if found is None:
        return None
    content: dict[str, Any] = parse_yaml(text, f"Config {source}")
    _, defaults, names = SETTINGS[content["arch"]]
    network = {*_NETWORK, *defaults, *names}
    settings, homeless = homed(
        {key: value for key, value in content.items() if key not in network and key not in _TOGETHER}, _HOMES
    )
    kind = content.get("optimizer", "lamb")
    if kind == "lamb":
        settings |= {"optimizer::_target_": "medseg.optimizers.Lamb", "optimizer::eps": 1e-5, "clip_norm": None}
    else:
        own = {} if kind == "sgd" else {"eps": 1e-5}
        settings |= optimizer(_OPTIMIZERS.get(kind, kind), f"{source}, optimizer", own | _decay(content))
    if "betas" in content and kind != "sgd":
        settings["optimizer::betas"] = content["betas"]
    settings["ema_decay"] = content.get("ema_alpha", 0.99) if content.get("ema") else None
    if "warmup_epoch" in content and content.get("epochs"):
        settings["warmup"] = content["warmup_epoch"] / content["epochs"]
    settings["schedule"] = "exp_poly"
    return OriginalConfig("hermes", *found, settings, homeless)


def _decay(content: dict[str, Any]) -> dict[str, Any]:
    return {"weight_decay": content["weight_decay"]} if "weight_decay" in content else {}
