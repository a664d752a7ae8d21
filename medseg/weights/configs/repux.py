"""Shell commands that train 3D RepUX-Net and 3D UX-Net."""

from __future__ import annotations

from medseg.weights.configs.contract import Homes, OriginalConfig, flags_in, homed, optimizer

__all__ = ["FORM", "SUFFIXES", "read"]

SUFFIXES = (".sh", ".txt")
FORM = "a .sh with the command of RepUX-Net (--network REPUXNET)"
_NETWORKS = {"REPUXNET": "repuxnet", "3DUXNET": "uxnet"}
_DEFAULTS = {"lr": "1e-4", "optim": "AdamW", "batch_size": "1", "crop_sample": "2", "max_iter": "60000"}
_DEFAULTS |= {"eval_step": "500", "num_workers": "2"}
_TOGETHER = ("network", "optim", "max_iter", "eval_step")
_HOMES: Homes = {
    "lr": lambda text: {"learning_rate": float(text)},
    "batch_size": lambda text: {"batch_size": int(text)},
    "crop_sample": lambda text: {"augment::samples_per_case": int(text)},
    "num_workers": lambda text: {"num_workers": int(text)},
}


def read(text: str, source: str) -> OriginalConfig | None:
    flags = {name: " ".join(words) for name, words in flags_in(text, source).items()}
    if flags.get("network") not in _NETWORKS:
        return None
    given = _DEFAULTS | flags
    settings, homeless = homed({name: value for name, value in given.items() if name not in _TOGETHER}, _HOMES)
    architecture = _NETWORKS[given["network"]]
    wrapped = "optimizer::optimizer" if architecture == "repuxnet" else "optimizer"  # by the re-parameterisation
    settings |= optimizer(given["optim"], f"{source}, --optim", {}, wrapped)
    settings |= {"schedule": "constant", "precision": "fp32", "clip_norm": None}
    length, step = int(given["max_iter"]), int(given["eval_step"])
    return OriginalConfig("repux", architecture, {}, settings, [f"--{name}" for name in homeless], length, step)
