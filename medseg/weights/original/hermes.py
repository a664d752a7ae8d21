"""Hermes as its authors published it: constructors and checkpoint keys of Hermes-R and Hermes-M."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from medseg.errors import ConfigError
from medseg.storage import parse_yaml
from medseg.weights.original.contract import Architecture, Conversion, Rules, check_arguments, renamed, renaming

__all__ = ["ARCHITECTURES", "CONFIG_READERS", "LICENCE", "SETTINGS", "read_settings"]

LICENCE = ""  # its repository states none

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

_MEDFORMER = {
    "in_chan": 1,
    "base_chan": 32,
    "map_size": [4, 4, 4],
    "conv_block": "BasicBlock",
    "conv_num": [2, 0, 0, 0, 0, 0, 2, 2],
    "trans_num": [0, 2, 4, 8, 4, 2, 0, 0],  # of the published configuration; the class's own default has 6 for 8
    "chan_num": [64, 128, 256, 320, 256, 128, 64, 32],
    "num_heads": [1, 4, 8, 10, 8, 4, 1, 1],
    "fusion_depth": 2,
    "fusion_dim": 320,
    "fusion_heads": 10,
    "expansion": 4,
    "attn_drop": 0.0,
    "proj_drop": 0.0,
    "proj_type": "depthwise",
    "norm": "in",
    "act": "relu",
    "kernel_size": _KERNELS,
    "scale": _SCALES,
    "aux_loss": True,
    "tn": 72,
    "mn": 6,
}

_WRAPPERS = (r"^(?:module\.|_orig_mod\.)+", "")
_HEADS = (
    (r"\.classifier_pred\.(\d)\.fc1\.", r".mlp.\1.0."),
    (r"\.classifier_pred\.(\d)\.fc2\.", r".mlp.\1.2."),
    (r"^mod_out\.", "modality_head."),
    (r"\.classifier\.fc1\.", ".mlp.0."),
    (r"\.classifier\.fc2\.", ".mlp.2."),
)
_BLOCKS = (
    _WRAPPERS,
    (r"^inc\.conv1\.", "stem.0."),
    (r"^inc\.conv2\.", "stem.1."),
    (r"\.(conv1|conv2|shortcut)\.conv\.", r".\1."),
)
_RESUNET_KEYS = (
    *_BLOCKS,
    (r"^out\.", "head."),
    *_HEADS,
    (r"\.task_prior$", ".priors.task"),
    (r"\.modality_prior$", ".priors.modality"),
    (r"\.attn_layers\.", ".blocks."),
    (r"\.(prior|feat)_ffn\.norm\.", r".\1_mlp.0."),
    (r"\.(prior|feat)_ffn\.fn\.fc1\.", r".\1_mlp.1.0."),
    (r"\.(prior|feat)_ffn\.fn\.fc2\.", r".\1_mlp.1.2."),
    (r"\.feat_mlp\.", ".feature_mlp."),
    (r"\.prior_aggregate_block\.", ".read."),
    (r"\.feat_aggregate_block\.", ".write."),
    (r"\.norm1\.", ".norm_queries."),
    (r"\.norm2\.", ".norm_context."),
    (r"\.fn\.to_q\.", ".to_queries."),
    (r"\.fn\.to_kv\.", ".to_keys_values."),
    (r"\.fn\.to_out\.", ".to_out."),
)
_MEDFORMER_KEYS = (
    *_BLOCKS,
    (r"\.depthwise\.weight$", ".0.weight"),
    (r"\.pointwise\.weight$", ".1.weight"),
    (r"^out_classifier\.", "head."),
    (r"^aux_classifier\.", "auxiliary_head."),
    *_HEADS,
    (r"\.prior_selection\.task_prior$", ".priors.task"),
    (r"\.prior_selection\.modality_prior$", ".priors.modality"),
    (r"\.patch_merging\.reduction\.", ".reduce."),
    (r"\.base_proj\.", ".features."),
    (r"\.semantic_proj\.", ".weights."),
    (r"\.trans_blocks\.", "."),
    (r"\.norm2\.", ".norm_tokens."),
    (r"\.attn\.feat_qv\.", ".feature_queries_values."),
    (r"\.attn\.map_qv\.", ".token_queries_values."),
    (r"\.attn\.feat_out\.", ".feature_out."),
    (r"\.attn\.map_out\.", ".token_out."),
    (r"\.feedforward\.expand_proj\.conv\.", ".bottleneck.expand."),
    (r"\.feedforward\.depthwise\.conv\.", ".bottleneck.depthwise."),
    (r"\.feedforward\.se\.excitation\.", ".bottleneck.gate.fc."),
    (r"\.feedforward\.pointwise\.conv\.", ".bottleneck.project."),
    (r"^map_fusion\.in_proj\.", "map_fusion.project_in."),
    (r"^map_fusion\.out_proj\.", "map_fusion.project_out."),
    (r"^map_fusion\.fusion\.layers\.(\d)\.0\.(?:fn\.)?", r"map_fusion.attention.\1."),
    (r"^map_fusion\.fusion\.layers\.(\d)\.1\.norm\.", r"map_fusion.mlps.\1.0."),
    (r"^map_fusion\.fusion\.layers\.(\d)\.1\.fn\.fc1\.", r"map_fusion.mlps.\1.1.0."),
    (r"^map_fusion\.fusion\.layers\.(\d)\.1\.fn\.fc2\.", r"map_fusion.mlps.\1.1.2."),
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
    numbers: Rules = (
        (r"^down(\d)\.conv\.(\d)\.", lambda m: f"encoder.{int(m[1]) - 1}.{int(m[2]) - first}."),
        (r"^up(\d)\.conv\.", lambda m: f"decoder.{int(m[1]) - 1}."),
        (r"^prior_init_fuse_(\d)\.", lambda m: f"encoder_priors.{int(m[1]) - 2}."),
        (r"^prior_fuse_(\d)\.", lambda m: f"decoder_priors.{int(m[1]) - 5}."),
    )
    return renaming((*_RESUNET_KEYS, *numbers))(state, network)


def _medformer(arguments: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    given = check_arguments("hermes_medformer", arguments, required=(), defaults=_MEDFORMER)
    fixed = {"conv_block": "BasicBlock", "norm": "in", "act": "relu", "proj_type": "depthwise"}
    _published_only("hermes_medformer", given, **fixed, attn_drop=0, proj_drop=0)
    channels, depth = list(given["chan_num"]), list(given["trans_num"])
    mirrored = [*channels[:4], *channels[2::-1], given["base_chan"]]
    _published_only("hermes_medformer", given | {"chan_num": channels}, chan_num=mirrored)
    _published_only("hermes_medformer", given | {"trans_num": depth}, trans_num=[0, *depth[1:6], 0, 0])
    return "hermes_medformer", {
        "spatial_dims": 3,
        "in_channels": given["in_chan"],
        "out_channels": given["tn"],
        "base_channels": given["base_chan"],
        "channels": channels[:4],
        "scales": given["scale"],
        "kernel_size": given["kernel_size"],
        "num_blocks": given["conv_num"],
        "attention_depth": depth[1:6],
        "heads": list(given["num_heads"])[1:6],
        "map_tokens": math.prod(given["map_size"]),
        "expansion": given["expansion"],
        "fusion_depth": given["fusion_depth"],
        "fusion_channels": given["fusion_dim"],
        "fusion_heads": given["fusion_heads"],
        "deep_supervision": given["aux_loss"],
        "num_modalities": given["mn"] - 1,
        "mask_null": False,
    }


def _convert_medformer(state: Mapping[str, Tensor], network: nn.Module) -> Conversion:
    conversion = Conversion()
    for key, value in state.items():
        ours = re.sub(r"^(down|up)(\d)\.(\w+)\.", _medformer_stage, renamed(key, _MEDFORMER_KEYS))
        conversion.take(key, ours, value[..., 0, 0, 0] if ".gate.fc." in ours and value.dim() == 5 else value)
    return conversion


def _medformer_stage(match: re.Match[str]) -> str:
    """``down2.map_gen.`` and its like: our network keeps the parts of one kind, not of one level, together."""
    way, number, part = match[1], int(match[2]), match[3]
    if part in ("blocks", "priors"):
        return f"encoder_priors.{number - 2}.{part}." if way == "down" else f"decoder_priors.{number - 1}.{part}."
    place = {
        "conv_blocks": ("encoder" if way == "down" else "decoder", number - 1),
        "reduce": ("merging", number - 1),
        "map_gen": ("maps", number - 2),
        "map_reduction": ("map_reduction", number - 1),
    }
    if part not in place:
        return match[0]  # reported as unexpected
    name, index = place[part]
    return f"{name}.{index}.reduce." if part == "reduce" else f"{name}.{index}."


# Keys of the training's configuration -> arguments; what else it holds is of the training, and chan_num is not read.
_COMMON_KEYS = {"base_chan": "base_ch", "in_chan": "in_ch", "down_scale": "scale"}
SETTINGS = {
    "resunet": ("hermes_resunet", _RESUNET, _COMMON_KEYS),
    "medformer": ("hermes_medformer", _MEDFORMER, {"down_scale": "scale", "chan_num": ""}),
}


def read_settings(text: str, source: str) -> tuple[str, dict[str, Any]] | None:
    """(architecture, arguments) from the configuration of a training; ``None`` of a file that is none."""
    content = parse_yaml(text, f"Config {source}")
    if not isinstance(content, dict) or content.get("arch") not in SETTINGS:
        return None
    architecture, defaults, names = SETTINGS[content["arch"]]
    renamed = {names.get(key, key): value for key, value in content.items()}
    return architecture, {key: value for key, value in renamed.items() if key in defaults}


CONFIG_READERS = {".yaml": read_settings, ".yml": read_settings}

ARCHITECTURES = {
    "hermes_resunet": Architecture(_resunet, _convert_resunet),
    "hermes_medformer": Architecture(_medformer, _convert_medformer),
}
