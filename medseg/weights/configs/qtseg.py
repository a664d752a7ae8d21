"""Configs of QTSeg: the ``cfg.json`` of a training, or the Python file of its settings, of which literals are read."""

from __future__ import annotations

import ast
import json
from typing import Any

from medseg.errors import ConfigError
from medseg.weights.configs.contract import Homes, OriginalConfig, homed, optimizer
from medseg.weights.original.qtseg import ARGUMENTS

__all__ = ["FORM", "SUFFIXES", "read"]

SUFFIXES = (".json", ".py")
FORM = "a cfg.json or .py of QTSeg with its encoder_model or n_channel"
_MARKS = ("encoder_model", "bridge_model", "mask_depths", "model_type")  # names that only its configs have
# What its base configuration says (version 0.3), which a Python file changes.
_BASE = {
    "epochs": 350,
    "val_epoch_freq": 1,
    "batch_size": 32,
    "learning_rate": 1e-3,
    "optimizer": "adamw",
    "betas": (0.9, 0.999),
    "eps": 1e-8,
    "momentum": 0.99,
    "nesterov": True,
    "weight_decay": 3e-5,
    "scheduler": "StepLR",
    "lr_step_size": 50,
    "lr_step_gamma": 0.5,
    "learning_rate_min": 1e-5,
    "img_size": 512,
    "use_amp": False,
}
_TOGETHER: tuple[str, ...] = ("optimizer", "betas", "eps", "momentum", "nesterov", "weight_decay", "scheduler")
_TOGETHER = (*_TOGETHER, "lr_step_size", "lr_step_gamma", "learning_rate_min", "loss_type", "dice_smooth")
_HOMES: Homes = {
    "epochs": "epochs",
    "val_epoch_freq": "val_interval",
    "batch_size": "batch_size",
    "learning_rate": "learning_rate",
    "num_workers": "num_workers",
    "img_size": lambda size: {"roi_size": [size, size], "preprocess::longest": size},
    "use_amp": lambda on: {"precision": "fp16" if on else "fp32"},
}


def read(text: str, source: str) -> OriginalConfig | None:
    content, unread = _python(text, source) if source.endswith(".py") else (_json(text, source), [])
    if not any(mark in content for mark in _MARKS):
        return None
    network = {key: value for key, value in content.items() if key in ARGUMENTS}
    given = {**_BASE, **content}
    others = {k: v for k, v in given.items() if k not in ARGUMENTS and k not in (*_TOGETHER, "model_type")}
    settings, homeless = homed(others, _HOMES)
    settings |= _optimizer(given, source)
    per_epoch = {"lr_scheduler::steps": "@epochs", "train::handlers::5::epoch_level": True}
    floor = {"lr_scheduler::floor": given["learning_rate_min"]}
    if given["scheduler"] == "StepLR":
        step = {"lr_scheduler::every": given["lr_step_size"], "lr_scheduler::gamma": given["lr_step_gamma"]}
        settings |= {"schedule": "step", **per_epoch, **floor, **step}
    elif given["scheduler"] == "PolyLR":
        settings |= {"schedule": "poly", "lr_scheduler::hold": 1, **per_epoch, **floor}  # the first epoch counts twice
    else:
        homeless.append("scheduler")
    loss = content.get("loss_type", ["CrossEntropyLoss", "BinaryDiceLoss"])
    if sorted(loss) == ["BinaryDiceLoss", "CrossEntropyLoss"]:
        smooth = content.get("dice_smooth", 1e-6)
        dice = {"include_background": False, "to_onehot_y": True, "softmax": True}
        settings["loss"] = {"_target_": "DiceCELoss", **dice, "smooth_nr": smooth, "smooth_dr": smooth}
    else:
        homeless.append("loss_type")
    settings |= {"clip_norm": None}
    return OriginalConfig("qtseg", "QTSeg", network, settings, [*homeless, *unread])


def _optimizer(given: dict[str, Any], source: str) -> dict[str, Any]:
    kind, decay = given["optimizer"], {"weight_decay": given["weight_decay"]}
    if kind == "sgd":
        own = {"momentum": given["momentum"], "nesterov": given["nesterov"]}
        return optimizer("SGD", source, own | decay)
    own = {"betas": list(given["betas"]), "eps": given["eps"]}
    name = {"adam": "Adam", "adamw": "AdamW"}.get(kind, str(kind))
    return optimizer(name, f"{source}, optimizer", own | ({} if kind == "adam" else decay))  # its adam has none


def _json(text: str, source: str) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"Config {source} is not valid JSON ({error}); correct it there.") from error
    return content if isinstance(content, dict) else {}


def _python(text: str, source: str) -> tuple[dict[str, Any], list[str]]:
    """Names that are given literals anywhere in the file, as ``x = 1`` or ``self.x = 1``; and those given others."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ConfigError(f"Config {source} is not Python ({error}); correct it there.") from error
    content: dict[str, Any] = {}
    unread: list[str] = []
    for node in ast.walk(tree):
        if not isinstance(node, (ast.Assign, ast.AnnAssign)) or node.value is None:
            continue
        for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
            name = target.attr if isinstance(target, ast.Attribute) else getattr(target, "id", "")
            try:
                content[name] = ast.literal_eval(node.value)
            except (ValueError, TypeError):
                unread.append(name)
    return content, [name for name in unread if name and name not in content]
