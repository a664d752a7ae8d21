"""The networks of IBM's multimodal-3d-image-segmentation as published: constructors and checkpoint keys."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from configparser import ConfigParser, ExtendedInterpolation
from configparser import Error as ConfigParserError
from typing import Any

from torch import Tensor, nn

from medseg.errors import ConfigError, nearest
from medseg.weights.original.contract import Architecture, Conversion, check_arguments, renaming

__all__ = ["ARCHITECTURES", "CONFIG_READERS", "LICENCE", "literal", "read_ini"]

LICENCE = "Apache-2.0"

_RENAMED = (
    (r"^module\.", ""),  # wrapper of data-parallel training
    (r"(\.conv_blocks\.\d+)\.op\.", r"\1."),
)
# Ours returns logits, on the device of its input.
_WITHOUT_MEANING = ("output_activation", "device")
_COMMON = {"use_resize": True, "output_activation": "softmax", "ndim": 5, "device": None}
_OPERATOR = {**_COMMON, "use_block_concat": True, "activation": "selu"}
_CHAIN = {**_OPERATOR, "use_deep_supervision": False, "use_bias_conv_branch": False, "use_block_skip": True}
_FEATURES = ("in_channels", "out_channels", "filters", "num_transform_blocks", "num_modes")


def _common(theirs: dict[str, Any]) -> dict[str, Any]:
    """Our names of the arguments that all networks have; they are taken out of ``theirs``."""
    for key in _WITHOUT_MEANING:
        del theirs[key]
    ours = {"spatial_dims": theirs.pop("ndim") - 2, "resize": theirs.pop("use_resize")}  # they count batch and channels
    for key in ("in_channels", "out_channels", "activation"):
        ours[key] = theirs.pop(key)
    return ours


def _hnoseg_xs(arguments: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    defaults = {**_OPERATOR, "weights_type": "shared", "use_deep_supervision": False, "use_unet_skip": True}
    theirs = check_arguments("HNOSegXS", arguments, required=_FEATURES, defaults=defaults)
    convs = theirs["num_transform_blocks"]
    return "hnoseg_xs", {
        **_common(theirs),
        "filters": theirs["filters"],
        "num_convs": [convs] if isinstance(convs, int) else list(convs),
        "num_modes": theirs["num_modes"],
        "weights": theirs["weights_type"],
        "deep_supervision": theirs["use_deep_supervision"],
        "unet_skip": theirs["use_unet_skip"],
        "block_skip": "concat" if theirs["use_block_concat"] else "add",
    }


def _chain(theirs: dict[str, Any]) -> dict[str, Any]:
    skip = "concat" if theirs["use_block_concat"] else "add"
    return {
        **_common(theirs),
        "filters": theirs["filters"],
        "num_blocks": theirs["num_transform_blocks"],
        "num_modes": theirs["num_modes"],
        "deep_supervision": theirs["use_deep_supervision"],
        "branch_bias": theirs["use_bias_conv_branch"],
        "block_skip": skip if theirs["use_block_skip"] else None,
    }


def _neural_operator(arguments: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    required = (*_FEATURES, "transform_type")
    theirs = check_arguments(
        "NeuralOperatorSeg", arguments, required=required, defaults={**_CHAIN, "weights_type": "shared"}
    )
    kind, weights = theirs["transform_type"], theirs["weights_type"]
    if kind not in ("Fourier", "Hartley"):
        raise ConfigError(f"No transform_type '{kind}'.{nearest(str(kind), ('Fourier', 'Hartley'))}")
    name = "hnoseg" if kind == "Hartley" else "fno" if weights == "individual" else "fnoseg"
    return name, {**_chain(theirs), "weights": weights}


def _hartley_mha(arguments: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    required = (*_FEATURES, "num_heads", "patch_size")
    defaults = {**_CHAIN, "use_deep_supervision": True, "attention_activation": "selu"}
    theirs = check_arguments("HartleyMHASeg", arguments, required=required, defaults=defaults)
    own = {key: theirs[key] for key in ("num_heads", "patch_size", "attention_activation")}
    return "hartley_mha", {**_chain(theirs), **own}


def _vnet_ds(arguments: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    required = ("in_channels", "out_channels", "base_num_filters", "num_blocks")
    defaults = {
        **_COMMON,
        "right_leg_indexes": None,
        "kernel_size": 3,
        "activation": "elu",
        "use_snn": False,
        "use_residual": True,
    }
    theirs = check_arguments("VNetDS", arguments, required=required, defaults=defaults)
    return "vnet_ds", {
        **_common(theirs),
        "filters": theirs["base_num_filters"],
        "num_blocks": theirs["num_blocks"],
        "fused_levels": theirs["right_leg_indexes"],
        "kernel_size": theirs["kernel_size"],
        "residual": theirs["use_residual"],
        "self_normalizing": theirs["use_snn"],
    }


def _convert_vnet_ds(state: Mapping[str, Tensor], network: nn.Module) -> Conversion:
    """A level of the original is one list: units, shortcut, downsampling; or upsampling, units, shortcut."""
    names: dict[str, str] = {}
    for side, sections in (("encode", "encoders"), ("decode", "decoders")):
        for level, section in network.get_submodule(sections).named_children():
            units = [f"{sections}.{level}.units.{i}" for i in range(len(section.get_submodule("units")._modules))]
            units += [f"{sections}.{level}.shortcut"] if "shortcut" in dict(section.named_children()) else []
            units = [*units, f"downs.{level}"] if side == "encode" else [f"ups.{level}", *units]
            names |= {f"{side}_layers.{level}.{i}": name for i, name in enumerate(units)}
    conversion = Conversion()
    for key, value in state.items():
        ours = key.removeprefix("module.")
        match = re.match(r"(?:en|de)code_layers\.\d+\.\d+", ours)
        prefix = match.group() if match else ""
        conversion.take(key, names.get(prefix, prefix) + ours[len(prefix) :], value)
    return conversion


def read_ini(text: str, source: str) -> tuple[str, dict[str, Any]]:
    """Architecture and arguments from a config of the original, every value of which is a Python literal.

    Its program adds what follows from the data: ``in_channels``, the number of ``idx_x_modalities``, and ``ndim``,
    which the length of ``num_modes`` tells; a V-Net-DS of 2D images needs ``ndim = 4`` written into its ``[model]``.
    """
    parser = ConfigParser(interpolation=ExtendedInterpolation())
    try:
        parser.read_string(text, source)
        arguments = {key: literal(value, f"{source}, [model] {key}") for key, value in parser.items("model")}
        modalities = parser.get("input_args", "idx_x_modalities", fallback="[0, 1, 2, 3]")
    except ConfigParserError as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"Config {source} is not a config of the original ({reason}); correct it there.") from error
    if "model_name" not in arguments:
        raise ConfigError(f"Config {source} has no model_name in [model]; expected one of {', '.join(ARCHITECTURES)}.")
    arguments.setdefault("in_channels", len(literal(modalities, f"{source}, [input_args] idx_x_modalities")))
    modes = arguments.get("num_modes")
    if isinstance(modes, (list, tuple)):
        arguments.setdefault("ndim", len(modes) + 2)
    return arguments.pop("model_name"), arguments


def literal(value: str, place: str) -> Any:
    """A value of the original's config.

    Raises:
        ConfigError: it is not a Python literal.
    """
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise ConfigError(
            f"{place}: {value!r} is not a Python literal; write a number, a list or a quoted string."
        ) from error


CONFIG_READERS = {".ini": read_ini}

ARCHITECTURES = {
    "HNOSegXS": Architecture(_hnoseg_xs, renaming(_RENAMED)),
    "NeuralOperatorSeg": Architecture(_neural_operator, renaming(_RENAMED)),
    "HartleyMHASeg": Architecture(_hartley_mha, renaming(_RENAMED)),
    "VNetDS": Architecture(_vnet_ds, _convert_vnet_ds),
}
