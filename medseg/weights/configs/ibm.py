"""Configs of the neural operators' program: INI, every value of which is a Python literal."""

from __future__ import annotations

from configparser import ConfigParser, ExtendedInterpolation
from typing import Any

from medseg.weights.configs.contract import Homes, OriginalConfig, homed, optimizer
from medseg.weights.original.ibm import literal, read_ini

__all__ = ["FORM", "SUFFIXES", "read"]

SUFFIXES = (".ini",)
FORM = "an .ini of the neural operators with [model] and [train]"
# Places, tests and drawing: no settings of a training.
_APART = ("main", "input_lists", "test", "statistics")
_AUGMENTATION = {
    "rotation_range": "rotate",
    "shift_range": "shift",
    "zoom_range": "zoom",
    "flip": "flip",
    "augmentation_probability": "prob",
}


def _loss(name: str) -> dict[str, Any]:
    return {"loss": {"_target_": "medseg.losses.PearsonLoss", "to_onehot_y": True, "softmax": True}}


_HOMES: Homes = {
    "num_epochs": "epochs",
    "selection_epoch_portion": lambda portion: {
        "checkpoint::select_after": {
            "_target_": "medseg.engines.unselected_epochs",
            "epochs": "@epochs",
            "portion": portion,
        }
    },
    "use_autocast": lambda on: {"precision": "fp16" if on else "fp32"},
    "batch_size": "batch_size",
    "num_workers": "num_workers",
}


def read(text: str, source: str) -> OriginalConfig | None:
    architecture, arguments = read_ini(text, source)
    parser = ConfigParser(interpolation=ExtendedInterpolation())
    parser.read_string(text, source)
    sections = {
        section: {key: literal(value, f"{source}, [{section}] {key}") for key, value in parser.items(section)}
        for section in parser.sections()
        if section not in (*_APART, "model")
    }
    settings, homeless = homed(sections.get("train", {}) | sections.get("input_args", {}), _HOMES)
    of = sections.get("optimizer", {})
    if "optimizer_name" in of:
        own = {key: value for key, value in of.items() if key not in ("optimizer_name", "lr")}
        settings |= optimizer(of["optimizer_name"], f"{source}, [optimizer]", own)
        settings |= {"learning_rate": of["lr"]} if "lr" in of else {}
    schedule = sections.get("scheduler", {})
    if not schedule:
        settings |= {"schedule": "constant"}
    elif schedule.get("scheduler_name") == "CosineAnnealingWarmRestarts" and set(schedule) <= {
        "scheduler_name",
        "eta_min",
    }:
        settings |= {"schedule": "cosine", "lr_scheduler::end": schedule.get("eta_min", 0.0)}
    else:
        homeless.append("[scheduler]")
    if sections.get("loss") == {"loss_name": "PCCLoss"}:
        settings |= _loss("PCCLoss")
    elif "loss" in sections:
        homeless.append("[loss]")
    augmentation = sections.get("augmentation", {})
    given = {ours: augmentation[name] for name, ours in _AUGMENTATION.items() if augmentation.get(name) is not None}
    homeless += [name for name in augmentation if name not in _AUGMENTATION]
    if given:
        target = {"_target_": "medseg.transforms.volume_augmentation", "_mode_": "callable"}
        settings["augment"] = {**target, **given}
    homeless += [f"[{section}]" for section in _APART if parser.has_section(section)]
    return OriginalConfig("ibm", architecture, arguments, {**settings, "clip_norm": None}, homeless)
