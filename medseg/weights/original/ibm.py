"""IBM's multimodal 3D segmentation networks (HNOSeg-XS, HNOSeg, FNOSeg, FNO, HartleyMHA, V-Net-DS): constructors, keys."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from medseg.weights.original.contract import Architecture, Conversion, check_arguments

__all__ = ["ARCHITECTURES"]

_RENAMED = (
    (re.compile(r"^module\."), ""),  # wrapper of data-parallel training
    (re.compile(r"(\.conv_blocks\.\d+)\.op\."), r"\1."),
)
_WITHOUT_MEANING = ("device", "output_activation")  # ours returns logits


def _shared(name: str, arguments: dict[str, Any], required: tuple[str, ...], defaults: dict[str, Any]) -> dict[str, Any]:
    defaults = {
        "use_resize": True,
        "activation": "selu",
        "output_activation": "softmax",
        "ndim": 5,
        "device": None,
        **defaults,
    }
    ours = check_arguments(name, arguments, required=("in_channels", "out_channels", *required), defaults=defaults)
    for key in _WITHOUT_MEANING:
        ours.pop(key)
    ours["spatial_dims"] = ours.pop("ndim") - 2  # theirs counts batch and channels
    ours["resize"] = ours.pop("use_resize")
    return ours


def _hnoseg_xs(arguments: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    ours = _shared(
        "HNOSegXS",
        arguments,
        ("filters", "num_transform_blocks", "num_modes"),
        {
            "weights_type": "shared",
            "use_deep_supervision": False,
            "use_unet_skip": True,
            "use_block_concat": True,
        },
    )
    convs = ours.pop("num_transform_blocks")
    ours["num_convs"] = [convs] if isinstance(convs, int) else list(convs)
    ours["weights"] = ours.pop("weights_type")
    for key in ("deep_supervision", "unet_skip", "block_concat"):
        ours[key] = ours.pop(f"use_{key}")
    return "hnoseg_xs", ours


def _convert(state: Mapping[str, Tensor], network: nn.Module) -> Conversion:
    conversion = Conversion()
    for key, value in state.items():
        ours = key
        for pattern, replacement in _RENAMED:
            ours = pattern.sub(replacement, ours)
        conversion.take(key, ours, value)
    return conversion


ARCHITECTURES = {"HNOSegXS": Architecture(_hnoseg_xs, _convert)}
