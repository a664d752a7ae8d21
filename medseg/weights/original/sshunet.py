"""SSH-UNet as its authors published it: constructor and checkpoint keys."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from medseg.weights.original.contract import Architecture, Conversion, check_arguments, renamed

__all__ = ["ARCHITECTURES", "LICENCE"]

LICENCE = "Apache-2.0"

_REQUIRED = (
    *("in_channels", "out_channels", "kernel_size", "strides"),
    *("gate_type", "gate_pos", "gate_in_bottleneck", "gate_dec"),
)
# Where the original's class and ours have different defaults, the original's hold for the original's arguments.
_DEFAULTS = {
    "spatial_dims": 3,
    "do_basic": False,
    "upsample_kernel_size": None,
    "filters": None,
    "dropout": None,
    "norm_name": ("INSTANCE", {"affine": True}),
    "act_name": ("leakyrelu", {"inplace": True, "negative_slope": 0.01}),
    "deep_supervision": False,
    "deep_supr_num": 1,
    "vfn": False,
    "trans_bias": False,
}

_RENAMED = (
    (r"^module\.|(?:^|(?<=\.))backbone\.", ""),  # wrappers of data-parallel and pre-training programs
    (r"\.conv\.(weight|bias)$", r".\1"),
    (r"\.transp_conv\.", ".up."),
    (r"\.conv_block\.", ".block."),
    (r"\.shift\.conv3D\.", ".shift.gate."),
    (r"\.shift\.channel_conv1\.", ".shift.fusion.0."),
    (r"\.shift\.channel_conv2\.", ".shift.fusion.1."),
)


def _network(arguments: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    return "ssh_unet", check_arguments("SSHUNet", arguments, required=_REQUIRED, defaults=_DEFAULTS)


def _without_alias(key: str, levels: int) -> str:
    """``skip_layers`` holds each layer but the output block a second time, one ``next_layer`` per level down."""
    match = re.match(r"skip_layers\.((?:next_layer\.)*)(downsample|upsample|super_head)?\.?(.*)", key)
    if match is None:
        return key
    level = match.group(1).count(".")
    name = {
        "downsample": f"downsamples.{level - 1}" if level else "input_block",
        "upsample": f"upsamples.{levels - 2 - level}",
        "super_head": f"deep_supervision_heads.{level - 1}",
        None: "bottleneck",
    }[match.group(2)]
    return f"{name}.{match.group(3)}"


def _convert(state: Mapping[str, Tensor], network: nn.Module) -> Conversion:
    conversion = Conversion()
    levels = len(network.get_submodule("upsamples")._modules) + 1
    for key in sorted(state, key=lambda k: "skip_layers." in k):  # layers first, their second names after
        conversion.take(key, _without_alias(renamed(key, _RENAMED), levels), state[key])
    return conversion


ARCHITECTURES = {"SSHUNet": Architecture(_network, _convert)}
