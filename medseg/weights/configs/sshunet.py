"""Shell commands that train SSH-UNet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from medseg.errors import ConfigError
from medseg.weights.configs.contract import Homes, OriginalConfig, flags_in, homed, optimizer

__all__ = ["FORM", "SUFFIXES", "read"]

SUFFIXES = (".sh", ".txt")
FORM = "a .sh with the command of SSH-UNet (--gate_type tsm)"
_AXES = "xyz"
_DEFAULTS = {
    "in_channels": "1",
    "out_channels": "14",
    "max_epochs": "1000",
    "batch_size": "1",
    "sw_batch_size": "4",
    "optim_lr": "4e-4",
    "optim_name": "adamw",
    "reg_weight": "1e-5",
    "momentum": "0.9",
    "val_every": "100",
    "patience": "10",
    "workers": "1",
    "lrschedule": "cosine_anneal",
    "warmup_epochs": "50",
    "infer_overlap": "0.5",
    "a_min": "-175",
    "a_max": "275",
    "b_min": "0",
    "b_max": "1",
    **{f"space_{axis}": "1" for axis in _AXES},
    **{f"roi_{axis}": "96" for axis in _AXES},
    "RandFlipd_prob": "0.2",
    "RandRotate90d_prob": "0.2",
    "RandScaleIntensityd_prob": "0.2",
    "RandShiftIntensityd_prob": "0.1",
}
_NETWORK: tuple[str, ...] = (
    "in_channels",
    "out_channels",
    "kernels",
    "strides",
    "filters",
    "gate_type",
    "gate_pos",
    "vfn",
)
_NETWORK = (*_NETWORK, "gate_bottleneck", "gate_dec", "dropout_rate", "norm_name", "deep_supervision", "deep_supr_num")
_TOGETHER: tuple[str, ...] = (
    "optim_name",
    "reg_weight",
    "momentum",
    "lrschedule",
    "warmup_epochs",
    "a_min",
    "a_max",
    "b_min",
    "b_max",
)
_TOGETHER = (*_TOGETHER, *(f"{name}_{axis}" for name in ("space", "roi") for axis in _AXES))
_TOGETHER = (*_TOGETHER, *(name for name in _DEFAULTS if name.startswith("Rand")))
_HOMES: Homes = {
    "max_epochs": lambda text: {"epochs": int(text)},
    "batch_size": lambda text: {"batch_size": int(text)},
    "sw_batch_size": lambda text: {"sw_batch_size": int(text)},
    "optim_lr": lambda text: {"learning_rate": float(text)},
    "val_every": lambda text: {"val_interval": int(text)},
    "patience": lambda text: {"early_stop": int(text)},
    "workers": lambda text: {"num_workers": int(text)},
    "infer_overlap": lambda text: {"overlap": float(text)},
}


def read(text: str, source: str) -> OriginalConfig | None:
    words = flags_in(text, source)
    if "gate_type" not in words:
        return None
    given = _DEFAULTS | {name: " ".join(values) for name, values in words.items()}
    rest = {name: value for name, value in given.items() if name not in (*_NETWORK, *_TOGETHER)}
    settings, homeless = homed(rest, _HOMES)
    settings |= _optimizer(given, source) | _schedule(given) | _data(given, mri="mri" in words)
    homeless = [name for name in homeless if name != "mri"]
    arguments = _network(words, given, source)
    return OriginalConfig("sshunet", "SSHUNet", arguments, settings, [f"--{name}" for name in homeless])


def _network(words: Mapping[str, Sequence[str]], given: Mapping[str, str], source: str) -> dict[str, Any]:
    """Arguments of the constructor; a level of ``kernels`` and ``strides`` is a string with a digit per axis.

    Raises:
        ConfigError: kernels, strides or gates are not given, which its program derives from the data.
    """
    for name in ("kernels", "strides", "gate_pos"):
        if not words.get(name):
            raise ConfigError(f"{source} has no --{name}; expected its values, such as --{name} 1 2. Add them.")
    kernels, strides = ([[int(digit) for digit in level] for level in words[name]] for name in ("kernels", "strides"))
    return {
        "in_channels": int(given["in_channels"]),
        "out_channels": int(given["out_channels"]),
        "kernel_size": kernels,
        "strides": strides,
        "gate_type": given["gate_type"],
        "gate_pos": [int(level) for level in words["gate_pos"]],
        "gate_in_bottleneck": "gate_bottleneck" in words,
        "gate_dec": "gate_dec" in words,
        "filters": [int(number) for number in words["filters"]] if "filters" in words else None,
        "dropout": float(given["dropout_rate"]) or None if "dropout_rate" in words else None,
        "norm_name": given.get("norm_name", "instance"),
        "deep_supervision": "deep_supervision" in words,
        "deep_supr_num": int(given.get("deep_supr_num", 2)) if "deep_supervision" in words else 1,
        "vfn": "vfn" in words,
    }


def _optimizer(given: Mapping[str, str], source: str) -> dict[str, Any]:
    name = {"adamw": "AdamW", "adam": "Adam", "sgd": "SGD"}.get(given["optim_name"], given["optim_name"])
    own = {"momentum": float(given["momentum"]), "nesterov": True} if name == "SGD" else {}
    return optimizer(name, f"{source}, --optim_name", {"weight_decay": float(given["reg_weight"]), **own})


def _schedule(given: Mapping[str, str]) -> dict[str, Any]:
    kind = given["lrschedule"]
    if kind == "warmup_cosine":
        share = int(given["warmup_epochs"]) / int(given["max_epochs"])
        return {"schedule": "cosine", "lr_scheduler::warmup": share, "clip_norm": None}
    return {"schedule": "cosine" if kind == "cosine_anneal" else "constant", "clip_norm": None}


def _data(given: Mapping[str, str], *, mri: bool) -> dict[str, Any]:
    low, high, least, most = (float(given[name]) for name in ("a_min", "a_max", "b_min", "b_max"))
    std = (high - low) / (most - least)
    window = {"kind": "fixed", "lower": low, "upper": high, "mean": low - least * std, "std": std}
    chances = {
        ours: float(given[f"Rand{name}_prob"])
        for name, ours in (
            ("Flipd", "flip"),
            ("Rotate90d", "quarter_turn"),
            ("ScaleIntensityd", "scale"),
            ("ShiftIntensityd", "shift"),
        )
    }
    augment = {"_target_": "medseg.transforms.window_augmentation", "_mode_": "callable", "roi_size": "@roi_size"}
    return {
        "roi_size": [int(given[f"roi_{axis}"]) for axis in _AXES],
        "preprocess::spacing": [float(given[f"space_{axis}"]) for axis in _AXES],
        "preprocess::normalization": [{"kind": "case", "nonzero": True} if mri else window] * int(given["in_channels"]),
        "augment": {**augment, **chances},
    }
