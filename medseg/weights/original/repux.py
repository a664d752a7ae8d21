"""3D RepUX-Net and 3D UX-Net as their authors published them: constructors and checkpoint keys."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import Any

from torch import Tensor, nn

from medseg.weights.original.contract import Architecture, Conversion, Rules, check_arguments, renamed

__all__ = ["ARCHITECTURES", "LICENCE"]

LICENCE = "MIT"

_DEFAULTS = {
    "spatial_dims": 3,
    "in_channels": 1,
    "out_channels": 13,
    "depths": (2, 2, 2, 2),
    "feature_size": (48, 96, 192, 384),
    "hidden_size": 768,
    "norm_name": "instance",
    "res_block": True,
    "drop_path_rate": 0.0,
    "bfr_alpha": None,
}
_KERNEL = {"repuxnet": 21, "uxnet": 7}

_RENAMED: Rules = (
    (r"^module\.", ""),  # wrapper of data-parallel programs
    (r"^(?:rep)?uxnet_3d\.", ""),
    (r"^downsample_layers\.", "downsamples."),
    (r"^(stages\.\d+\.\d+)\.dwconv\.", r"\1.conv."),
    (r"^(stages\.\d+\.\d+)\.pwconv1\.", r"\1.expand."),
    (r"^(stages\.\d+\.\d+)\.pwconv2\.", r"\1.reduce."),
    (r"^norm(\d)\.", r"norms.\1."),
    (r"^encoder(\d)\.", lambda found: f"skips.{int(found[1]) - 1}."),
    (r"^decoder([2-5])\.", lambda found: f"upsamples.{5 - int(found[1])}."),
    (r"^decoder1\.", "refine."),
    (r"^out\.", "head."),
)
_UNUSED = "decoder1.layer.conv3.conv.weight"


def _network(name: str, arguments: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    defaults = {**_DEFAULTS, "kernel_size": _KERNEL[name]}
    ours = check_arguments(name, arguments, required=(), defaults=defaults)
    ours.pop("bfr_alpha")  # of the training; the network has no such argument
    if name == "repuxnet":
        ours.pop("drop_path_rate")  # the original takes it and has no use for it
    return name, ours


def _convert(state: Mapping[str, Tensor], network: nn.Module) -> Conversion:
    conversion = Conversion()
    for key, value in state.items():
        if key.removeprefix("module.") == _UNUSED:
            conversion.dropped[key] = "made by MONAI before 0.9, used by no forward pass"
        else:
            conversion.take(key, renamed(key, _RENAMED), value)
    conversion.notes.extend(_support(conversion.state))
    return conversion


def _support(state: Mapping[str, Tensor]) -> list[str]:
    """Per block, how much of its depth-wise kernel is more than the centre.

    The released training multiplies the kernels by their mask in each forward pass and never trains them: after 143
    passes all taps but the centre are 0, and a block is a factor per channel.
    """
    lines = []
    for key, kernel in state.items():
        if re.fullmatch(r"stages\.\d+\.\d+\.conv\.weight", key) and kernel[0].numel() > 1:
            centre = kernel.flatten(1)[:, kernel[0].numel() // 2]  # odd in each axis
            off = (kernel.count_nonzero() - centre.count_nonzero()).item() / (kernel.numel() - centre.numel())
            mass = kernel.abs().sum().item() / max(centre.abs().sum().item(), 1e-30) - 1
            lines.append(f"{key}: {off:.1%} of the taps off the centre are not 0, their sum is {mass:.3g} centres")
    return lines


ARCHITECTURES = {name: Architecture(partial(_network, name), _convert) for name in _KERNEL}
