"""Constructor arguments of a network for a plan, and the proof that the network takes the plan's window."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch

from medseg.data.plan import Plan
from medseg.errors import ConfigError
from medseg.networks import create_network, network_class

__all__ = ["accepts_roi", "planned_arguments", "unet_topology"]


def unet_topology(
    roi_size: Sequence[int], spacing: Sequence[float] | None, max_levels: int = 6
) -> tuple[list[list[int]], list[list[int]]]:
    """Kernel sizes and strides per level of a U-Net, by nnU-Net's rule (Isensee et al. 2021, supplement; MONAI's
    DynUNet guide).

    An axis is halved while its spacing is within twice the finest and it keeps at least 4 voxels; its kernel is 3
    from the level on where that holds, 1 before.
    """
    size = list(roi_size)
    mm = list(spacing) if spacing is not None else [1.0] * len(size)
    kernels: list[list[int]] = []
    strides: list[list[int]] = [[1] * len(size)]
    while True:
        near = [m <= 2 * min(mm) for m in mm]
        kernels.append([3 if n else 1 for n in near])
        stride = [2 if n and length >= 8 else 1 for n, length in zip(near, size, strict=True)]
        if max(stride) == 1 or len(strides) == max_levels:
            return kernels, strides
        strides.append(stride)
        size = [length // s for length, s in zip(size, stride, strict=True)]
        mm = [m * s for m, s in zip(mm, stride, strict=True)]


def _dynunet(plan: Plan) -> dict[str, Any]:
    kernels, strides = unet_topology(plan.roi_size, plan.spacing, 4 if plan.light else 6)
    filters = [min((8 if plan.light else 32) * 2**level, 320) for level in range(len(strides))]
    return {
        "kernel_size": kernels,
        "strides": strides,
        "upsample_kernel_size": strides[1:],
        "filters": filters,
        "res_block": True,
    }


def _unetr(plan: Plan) -> dict[str, Any]:
    light = {"feature_size": 8, "hidden_size": 192, "mlp_dim": 384, "num_heads": 6}
    return {"img_size": list(plan.roi_size), **(light if plan.light else {})}


# MONAI's own classes: arguments besides spatial_dims and channels; on CPU a fraction of the published width.
_MONAI: dict[str, Callable[[Plan], dict[str, Any]]] = {
    "DynUNet": _dynunet,
    "UNETR": _unetr,
    "SegResNet": lambda plan: {"init_filters": 8 if plan.light else 32},
    "SwinUNETR": lambda plan: {"feature_size": 12 if plan.light else 48},
    "MedNeXt": lambda plan: {"init_filters": 8 if plan.light else 32},
    "BasicUNet": lambda plan: {"features": [16, 16, 32, 64, 128, 16] if plan.light else [32, 32, 64, 128, 256, 32]},
}


def planned_arguments(network: str, plan: Plan) -> dict[str, Any]:
    """Arguments for ``create_network(network, ...)``: channels, and what the class or MONAI's table derives from
    the plan.
    """
    cls = network_class(network)
    arguments: dict[str, Any] = {
        "spatial_dims": plan.spatial_dims,
        "in_channels": plan.in_channels,
        "out_channels": plan.out_channels,
    }
    if cls.__module__.startswith("monai.") and cls.__name__ in _MONAI:
        arguments |= _MONAI[cls.__name__](plan)
    elif hasattr(cls, "planned_arguments"):
        arguments |= cls.planned_arguments(plan)
    parameters = inspect.signature(cls).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return arguments
    if "img_size" in parameters:
        arguments.setdefault("img_size", list(plan.roi_size))
    missing = [name for name in ("in_channels", "out_channels") if name not in parameters]
    if missing:
        raise ConfigError(
            f"Network '{network}' has no argument {' and '.join(missing)}; medseg calls networks with "
            f"spatial_dims, in_channels, out_channels."
        )
    return {name: value for name, value in arguments.items() if name in parameters}


def accepts_roi(network: str, arguments: dict[str, Any], roi_size: Sequence[int]) -> str | None:
    """``None`` if the network maps (1, in_channels, *roi_size) to (1, out_channels, *roi_size), else the reason why
    not.

    Tried without memory on torch's meta device first; networks that cannot run there are tried on the CPU.
    """
    expected = (1, arguments["out_channels"], *roi_size)
    for device in ("meta", "cpu"):
        try:
            with torch.device(device), torch.no_grad():
                result = create_network(network, **arguments).eval()(
                    torch.zeros(1, arguments["in_channels"], *roi_size)
                )
        except ConfigError:
            raise
        except Exception as error:  # any network may fail in any way; the reason goes to the user
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            continue
        if not isinstance(result, torch.Tensor):
            return f"it returns {type(result).__name__} in evaluation mode, expected one tensor"
        return (
            None if tuple(result.shape) == expected else f"it returns shape {tuple(result.shape)}, expected {expected}"
        )
    return reason
