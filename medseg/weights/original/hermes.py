"""Hermes as its authors published it: constructors and checkpoint keys of Hermes-R and Hermes-M."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from medseg.errors import ConfigError
from medseg.weights.original.contract import Architecture, Conversion, check_arguments

__all__ = ["ARCHITECTURES"]

_SCALES, _KERNELS = [[2, 2, 2]] * 4, [[3, 3, 3]] * 5
_RESUNET = {
    "in_ch": 1,
    "base_ch": 32,
    "scale": _SCALES,
    "kernel_size": _KERNELS,
    "block": "BasicBlock",
    "num_block": [2, 2, 2, 2],
    "pool": True,
    "norm": "in",
    "tn": 72,
    "mn": 6,
}

_Rules = Sequence[tuple[re.Pattern[str], str]]
_WRAPPERS = re.compile(r"^(?:module\.|_orig_mod\.)+")
_HEADS = (
    (re.compile(r"\.classifier_pred\.(\d)\.fc1\."), r".mlp.\1.0."),
    (re.compile(r"\.classifier_pred\.(\d)\.fc2\."), r".mlp.\1.2."),
    (re.compile(r"^mod_out\."), "modality_head."),
    (re.compile(r"\.classifier\.fc1\."), ".mlp.0."),
    (re.compile(r"\.classifier\.fc2\."), ".mlp.2."),
)
_BLOCKS = (
    (re.compile(r"^inc\.conv1\."), "stem.0."),
    (re.compile(r"^inc\.conv2\."), "stem.1."),
    (re.compile(r"\.(conv1|conv2|shortcut)\.conv\."), r".\1."),
)
_RESUNET_KEYS = (
    *_BLOCKS,
    (re.compile(r"^out\."), "head."),
    *_HEADS,
    (re.compile(r"\.task_prior$"), ".priors.task"),
    (re.compile(r"\.modality_prior$"), ".priors.modality"),
    (re.compile(r"\.attn_layers\."), ".blocks."),
    (re.compile(r"\.(prior|feat)_ffn\.norm\."), r".\1_mlp.0."),
    (re.compile(r"\.(prior|feat)_ffn\.fn\.fc1\."), r".\1_mlp.1.0."),
    (re.compile(r"\.(prior|feat)_ffn\.fn\.fc2\."), r".\1_mlp.1.2."),
    (re.compile(r"\.feat_mlp\."), ".feature_mlp."),
    (re.compile(r"\.prior_aggregate_block\."), ".read."),
    (re.compile(r"\.feat_aggregate_block\."), ".write."),
    (re.compile(r"\.norm1\."), ".norm_queries."),
    (re.compile(r"\.norm2\."), ".norm_context."),
    (re.compile(r"\.fn\.to_q\."), ".to_queries."),
    (re.compile(r"\.fn\.to_kv\."), ".to_keys_values."),
    (re.compile(r"\.fn\.to_out\."), ".to_out."),
)


def _published_only(architecture: str, given: Mapping[str, Any], **expected: Any) -> None:
    for name, value in expected.items():
        if given[name] != value:
            raise ConfigError(
                f"{architecture} with {name}={given[name]!r} is not built here; expected {value!r}, as published."
            )


def _resunet(arguments: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    given = check_arguments("hermes_resunet", arguments, required=(), defaults=_RESUNET)
    _published_only("hermes_resunet", given, block="BasicBlock", norm="in")
    return "hermes_resunet", {
        "spatial_dims": 3,
        "in_channels": given["in_ch"],
        "out_channels": given["tn"],
        "base_channels": given["base_ch"],
        "scales": given["scale"],
        "kernel_size": given["kernel_size"],
        "num_blocks": given["num_block"],
        "pool": given["pool"],
        "num_modalities": given["mn"] - 1,
        "mask_null": False,
    }


def _convert_resunet(state: Mapping[str, Tensor], network: nn.Module) -> Conversion:
    first = 1 if network.pool else 0  # the original's levels begin with their pooling

    def numbered(key: str) -> str:
        key = re.sub(r"^down(\d)\.conv\.(\d)\.", lambda m: f"encoder.{int(m[1]) - 1}.{int(m[2]) - first}.", key)
        key = re.sub(r"^up(\d)\.conv\.", lambda m: f"decoder.{int(m[1]) - 1}.", key)
        key = re.sub(r"^prior_init_fuse_(\d)\.", lambda m: f"encoder_priors.{int(m[1]) - 2}.", key)
        return re.sub(r"^prior_fuse_(\d)\.", lambda m: f"decoder_priors.{int(m[1]) - 5}.", key)

    conversion = Conversion()
    for key, value in state.items():
        conversion.take(key, numbered(_renamed(key, _RESUNET_KEYS)), value)
    return conversion


def _renamed(key: str, rules: _Rules) -> str:
    ours = _WRAPPERS.sub("", key)
    for pattern, replacement in rules:
        ours = pattern.sub(replacement, ours)
    return ours


ARCHITECTURES = {"hermes_resunet": Architecture(_resunet, _convert_resunet)}
