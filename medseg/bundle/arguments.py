"""Constructor arguments of a network for a plan, and the proof that the network takes the plan's patch."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from medseg.bundle.step_memory import free_gpu_bytes, plan_within
from medseg.data import CaseFacts, Datalist, Plan, PlanSettings, make_plan
from medseg.data.nnunet_plans import NnunetPlans
from medseg.data.plan_grid import CASCADE, SLICES, with_slice
from medseg.data.union import is_union
from medseg.engines.ranks import on_this_machine
from medseg.errors import ConfigError, nearest
from medseg.networks import create_network, network_class
from medseg.networks.layers.nnunet_topology import LIGHT_STAGES, features_of, nnunet_topology
from medseg.networks.nnunet_patch import MEMORY_GB
from medseg.networks.training_facts import training_facts

__all__ = [
    "accepts_roi",
    "argument_prefix",
    "given_arguments",
    "plan_for_network",
    "planned_arguments",
    "roi_remedy",
    "supervised_arguments",
]


def _dynunet(plan: Plan) -> dict[str, Any]:
    # The steps of a patch are at most 32 voxels where it is not planned by nnU-Net's rules, which know no such limit.
    most = LIGHT_STAGES if plan.light else None if plan.like_nnunet else 6
    kernels, strides = nnunet_topology(plan.roi_size, plan.spacing, max_stages=most)
    filters = features_of(len(strides), plan.spatial_dims, light=plan.light)
    return {
        "kernel_size": kernels,
        "strides": strides,
        "upsample_kernel_size": strides[1:],
        "filters": filters,
        "res_block": True,
    }


def _unet(plan: Plan) -> dict[str, Any]:
    planned = _dynunet(plan)
    return {"channels": planned["filters"], "strides": planned["strides"][1:], "num_res_units": 2}


def _unetr(plan: Plan) -> dict[str, Any]:
    light = {"feature_size": 8, "hidden_size": 192, "mlp_dim": 384, "num_heads": 6}
    return {"img_size": list(plan.roi_size), **(light if plan.light else {})}


# MONAI's own classes: arguments besides spatial_dims and channels; on CPU a fraction of the published width.
_MONAI: dict[str, Callable[[Plan], dict[str, Any]]] = {
    "DynUNet": _dynunet,
    "UNet": _unet,
    "AttentionUnet": lambda plan: {key: value for key, value in _unet(plan).items() if key != "num_res_units"},
    "UNETR": _unetr,
    "SegResNet": lambda plan: {"init_filters": 8 if plan.light else 32},
    "SwinUNETR": lambda plan: {"feature_size": 12 if plan.light else 48},
    "MedNeXt": lambda plan: {"init_filters": 8 if plan.light else 32},
    "BasicUNet": lambda plan: {"features": [16, 16, 32, 64, 128, 16] if plan.light else [32, 32, 64, 128, 256, 32]},
}


def planned_arguments(
    network: str, plan: Plan, given: Mapping[str, Any] | None = None, *, published: bool = False
) -> dict[str, Any]:
    """Arguments for ``create_network(network, ...)``: channels, what the class or MONAI's table derives from the plan,
    and what the user gives.

    With ``published`` nothing is derived: the constructor's defaults stand, which are the published setting.

    Raises:
        ConfigError: the class does not take ``in_channels`` and ``out_channels``, an argument of the user's, or needs
        arguments that nobody gives.
    """
    cls = network_class(network)
    arguments: dict[str, Any] = {
        "spatial_dims": plan.spatial_dims,
        "in_channels": plan.in_channels,
        "out_channels": plan.out_channels,
    }
    if published:
        pass
    elif cls.__module__.startswith("monai.") and cls.__name__ in _MONAI:
        arguments |= _MONAI[cls.__name__](plan)
    elif hasattr(cls, "planned_arguments"):
        arguments |= cls.planned_arguments(plan)
    given = dict(given or {})
    parameters = inspect.signature(cls).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return arguments | given
    if "img_size" in parameters:
        arguments.setdefault("img_size", list(plan.roi_size))
    lacking = [name for name in ("in_channels", "out_channels") if name not in parameters]
    if lacking:
        raise ConfigError(
            f"Network '{network}' has no argument {' and '.join(lacking)}; medseg calls networks with "
            f"spatial_dims, in_channels, out_channels."
        )
    for name in given:
        if name not in parameters:
            raise ConfigError(f"Network '{network}' has no argument '{name}'.{nearest(name, parameters)}")
    arguments = {name: value for name, value in arguments.items() if name in parameters} | given
    plain = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    needed = [
        p.name
        for p in parameters.values()
        if p.kind in plain and p.default is inspect.Parameter.empty and p.name not in arguments
    ]
    if needed:
        raise ConfigError(
            f"Network '{network}' also needs {', '.join(needed)}; give them, for example "
            f"--set network_def::{needed[0]}=VALUE."
        )
    return arguments


def argument_prefix(configuration: str | None) -> str:
    """What the config ids of a network's arguments begin with; of a 2D network on slices, its own."""
    return "network_def::network::" if configuration == SLICES else "network_def::"


def given_arguments(overrides: Mapping[str, Any], configuration: str | None = None) -> dict[str, Any]:
    """The arguments of the network among overrides of a config; of a 2D network on slices, its own.

    Args:
        overrides: config id -> value.
        configuration: as of ``PlanSettings``.
    """
    prefix = argument_prefix(configuration)
    return {key.removeprefix(prefix): value for key, value in overrides.items() if key.startswith(prefix)}


def plan_for_network(
    network: str,
    datalist: Datalist,
    facts: Sequence[CaseFacts],
    num_training: int,
    device_type: str,
    overrides: Mapping[str, Any] | None = None,
    nnunet: NnunetPlans | None = None,
    memory_gb: float | None = None,
    configuration: str | None = None,
    gpu_bytes: int | None = None,
) -> tuple[Plan, dict[str, Any]]:
    """The plan whose patch the network takes, and the network's arguments.

    Args:
        network: registered name, MONAI class or dotted path.
        datalist, facts: the data set and what its cases hold.
        num_training: training cases after the split.
        device_type: ``cpu`` or ``cuda``.
        overrides: the user's; ``roi_size``, ``batch_size``, ``repeats``, ``preprocess::spacing``,
            ``preprocess::longest``, ``preprocess::scale``, ``checkpointing`` and ``network_def::…`` are planned with.
        nnunet: plans that the rest is taken from.
        memory_gb: GPU memory that nnU-Net's rules plan for; ``None``: other rules.
        configuration: as of ``PlanSettings``.
        gpu_bytes: memory of the GPU that a training step may use; ``None`` is what is free now.

    Raises:
        ConfigError: the network takes none of the patches, or not the one given; with the network's own reason.
    """
    overrides = overrides or {}
    roi_size, spacing = overrides.get("roi_size"), overrides.get("preprocess::spacing")
    given = {key: v for key, v in given_arguments(overrides, configuration).items() if "::" not in key}
    axes = max(len(case.shape) for case in facts)
    for name, value in (("roi_size", roi_size), ("preprocess::spacing", spacing)):
        if value is not None and len(value) != axes:
            raise ConfigError(f"{name}: {list(value)} has {len(value)} axes, expected {axes}, as the images have.")
    scale = overrides.get("preprocess::scale")
    if scale is not None and not (isinstance(scale, (int, float)) and not isinstance(scale, bool) and scale > 0):
        raise ConfigError(f"preprocess::scale: expected a number above 0, such as 0.5, got {scale!r}.")
    # A class fact of networks that see the whole field of view at once.
    whole_volume = bool(getattr(network_class(network), "whole_volume", False))
    asked = PlanSettings(
        device_type=device_type,
        roi_size=roi_size,
        spacing=spacing,
        longest=overrides.get("preprocess::longest"),
        scale=scale,
        batch_size=overrides.get("batch_size"),
        repeats=overrides.get("repeats"),
        num_training=num_training,
        processes=on_this_machine(),
        whole_volume=whole_volume,
        cases_on_gpu=overrides.get("augment_on_device") is not False
        and not is_union(datalist.label_space)
        and configuration != CASCADE,
        like_nnunet=memory_gb is not None,
        memory_gb=memory_gb or MEMORY_GB,
        residual=network_class(network).__name__ == "ResEncUNet",
        nnunet=nnunet,
        configuration=configuration,
        checkpointing=bool(overrides.get("checkpointing")),
    )

    def planned(asked: PlanSettings) -> tuple[Plan, dict[str, Any]]:
        return _accepted(network, datalist, facts, asked, given)

    free = (gpu_bytes or free_gpu_bytes()) if asked.gpu else None
    return planned(asked) if free is None else plan_within(free, network, asked, planned)


def _accepted(
    network: str, datalist: Datalist, facts: Sequence[CaseFacts], asked: PlanSettings, given: Mapping[str, Any]
) -> tuple[Plan, dict[str, Any]]:
    """The plan whose patch the network takes, and the network's arguments, the ``given`` ones among them.

    Raises:
        ConfigError: the network takes none of the patches, or not the one that is asked for.
    """
    reason = ""
    for step in (8, 16, 32, 64):
        plan = make_plan(datalist, facts, replace(asked, roi_step=step))
        seen = plan.seen()
        arguments = planned_arguments(network, seen, given)
        problem = accepts_roi(network, arguments, seen.roi_size)
        if problem is None:
            return plan, arguments
        reason = problem
        if asked.roi_size is not None or (asked.nnunet is not None and not asked.whole_volume):

            def planned(size: Sequence[int], across: int | None = plan.slice_axis) -> dict[str, Any]:
                own = replace(asked, roi_size=with_slice(size, across))
                return planned_arguments(network, make_plan(datalist, facts, own).seen(), given)

            remedy = roi_remedy(network, planned, seen.roi_size)
            raise ConfigError(f"{network} does not take roi_size {list(plan.roi_size)} ({reason}); {remedy}.")
    raise ConfigError(
        f"{network} does not run on patches of {list(plan.roi_size)} ({reason}); set roi_size or its arguments."
    )


def roi_remedy(network: str, planned: Callable[[Sequence[int]], dict[str, Any]], roi_size: Sequence[int]) -> str:
    """What to do about a size that the network does not take: the nearest multiple of 32 that it takes, from there up.

    Args:
        planned: size -> the network's arguments.
        roi_size: the refused size.
    """
    first = [max(32, 32 * round(n / 32)) for n in roi_size]
    for size in ([length + more for length in first] for more in (0, 32, 64, 96)):
        if accepts_roi(network, planned(size), size) is None:
            return f"try {size}"
    return "set another size, or the network's arguments"


def supervised_arguments(network: str, arguments: Mapping[str, Any], *, heads: bool = True) -> dict[str, Any]:
    """Further arguments that give a network heads at all lower resolutions that it can have, or take them away; none
    where it has none.
    """
    cls = network_class(network)
    parameters = inspect.signature(cls).parameters
    if not training_facts(cls).heads or "deep_supervision" not in parameters:
        return {}
    if not heads:
        return {"deep_supervision": False} if parameters["deep_supervision"].default else {}
    numbered = "deep_supr_num" in parameters
    levels = len(arguments.get("strides", parameters["strides"].default)) if numbered else 3
    return {"deep_supervision": True, **({"deep_supr_num": levels - 2} if numbered else {})} if levels > 2 else {}


def accepts_roi(network: str, arguments: dict[str, Any], roi_size: Sequence[int]) -> str | None:
    """``None`` if the network maps (1, in_channels, *roi_size) to (1, out_channels, *roi_size), and also takes a batch
    of two in training mode; else the reason why not.

    Tried without memory on torch's meta device first; networks that cannot be built or cannot run there are built, or
    run, on the CPU.
    """
    expected = (1, arguments["out_channels"], *roi_size)
    for built_on, device in (("meta", "meta"), ("cpu", "meta"), ("cpu", "cpu")):
        try:
            with torch.device(built_on):
                net = create_network(network, **arguments).to(device)
            with torch.device(device), torch.no_grad():
                window = torch.zeros(2, arguments["in_channels"], *roi_size)
                net.train()(window)  # norms may refuse the few voxels of a deep level here alone
                result = net.eval()(window[:1])
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
