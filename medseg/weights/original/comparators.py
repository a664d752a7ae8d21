"""Networks that the original systems are compared with in their papers, as published: constructors and checkpoint keys.

TransBTS and nnFormer are in the form that the programs of RepUX-Net and 3D UX-Net carry, or their authors'; ResEnc
U-Net is of dynamic-network-architectures, MedNeXt of MIC-DKFZ.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from medseg.errors import ConfigError, ModelError
from medseg.weights.original.contract import Architecture, Conversion, check_arguments

__all__ = ["ARCHITECTURES", "LICENCE"]

LICENCE = "Apache-2.0 (TransBTS, ResEnc U-Net), MIT (nnFormer)"

_Rules = tuple[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]], ...]
_MODULE = (re.compile(r"^module\."), "")  # wrapper of data-parallel programs


def _only(architecture: str, given: dict[str, Any], expected: Mapping[str, tuple[Any, ...]]) -> None:
    """Take arguments out that have one usable value each.

    Raises:
        ConfigError: another value.
    """
    for name, usable in expected.items():
        value = given.pop(name)
        if value not in usable:
            raise ConfigError(
                f"The original {architecture} with {name} {value!r} has no equal here, expected {usable[0]!r}; use a "
                "model that was trained so."
            )


def _renamed(state: Mapping[str, Tensor], rules: _Rules, unused: Mapping[str, str] | None = None) -> Conversion:
    conversion = Conversion()
    for key, value in state.items():
        ours = key
        for pattern, replacement in rules:
            ours = pattern.sub(replacement, ours)
        if reason := next((r for part, r in (unused or {}).items() if ours.startswith(part)), None):
            conversion.dropped[key] = reason
        else:
            conversion.take(key, ours, value)
    return conversion


# ---------------------------------------------------------------------- TransBTS
_TRANSBTS_DEFAULTS = {
    "variant": "vendored",
    "img_dim": 96,
    "patch_dim": 8,
    "num_channels": 1,
    "embedding_dim": 512,
    "base_channels": 16,
    "num_groups": 8,
    "num_heads": 8,
    "num_layers": 4,
    "hidden_dim": 4096,
    "dropout_rate": 0.1,
    "attn_dropout_rate": 0.1,
    "conv_patch_representation": True,
    "positional_encoding_type": "learned",
    "softmax": False,
    "auxillary_output_layers": (1, 2, 3, 4),
}
_PAIR = {"conv1": "0.conv", "bn1": "0.adn.N", "conv2": "1.conv", "bn2": "1.adn.N"}
_UP = {"conv1": "reduce", "conv2": "up", "conv3": "merge"}
_ATTENTION = {"norm": "norm1", "fn.qkv": "attention.qkv", "fn.proj": "attention.out"}
_MLP = {"norm": "norm2", "fn.net.0": "mlp.linear1", "fn.net.3": "mlp.linear2"}
_TRANSBTS: _Rules = (
    _MODULE,
    (re.compile(r"^Unet\.InitConv\.conv\."), "stem.0."),
    (
        re.compile(r"^Unet\.EnBlock(\d)(?:_(\d))?\.(?:bn(\d)|(conv\d))\."),
        lambda m: f"levels.{int(m[1]) - 1}.{int(m[2] or 1) - 1}.{m[4] or f'norm{m[3]}'}.",
    ),
    (re.compile(r"^Unet\.EnDown(\d)\.conv\."), lambda m: f"downs.{int(m[1]) - 1}."),
    (re.compile(r"^bn\."), "embed.0."),
    (re.compile(r"^conv_x\."), "embed.2."),
    (re.compile(r"^position_encoding\.position_embeddings$"), "positions"),
    (
        re.compile(r"^transformer\.net\.(\d+)\.fn\.(norm|fn\.qkv|fn\.proj|fn\.net\.[03])\."),
        lambda m: f"transformer.{int(m[1]) // 2}.{(_MLP if int(m[1]) % 2 else _ATTENTION).get(m[2], m[2])}.",
    ),
    (re.compile(r"^Enblock8_(\d)\.(conv\d|bn\d)\."), lambda m: f"maps.{int(m[1]) - 1}.{_PAIR[m[2]]}."),
    (re.compile(r"^DeUp(\d)\.(conv\d)\."), lambda m: f"ups.{4 - int(m[1])}.{_UP[m[2]]}."),
    (re.compile(r"^DeBlock(\d)\.(conv\d|bn\d)\."), lambda m: f"decoders.{4 - int(m[1])}.{_PAIR[m[2]]}."),
    (re.compile(r"^endconv\."), "head."),
)
_UNUSED = {part: "unused by the original" for part in ("linear_encoding.", "pre_head_ln.")}


def _transbts(arguments: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    given = check_arguments("transbts", arguments, required=["num_classes"], defaults=_TRANSBTS_DEFAULTS)
    layers = given.pop("auxillary_output_layers")
    if layers[-1] != given["num_layers"]:
        raise ConfigError(
            f"The original transbts reads layer {layers[-1]} of {given['num_layers']}, expected the last one; set "
            "num_layers to it and remove the weights of the others."
        )
    _only("transbts", given, {"patch_dim": (8,), "conv_patch_representation": (True,)})
    _only("transbts", given, {"positional_encoding_type": ("learned",)})
    return "transbts", {
        "spatial_dims": 3,
        "in_channels": given["num_channels"],
        "out_channels": given["num_classes"],
        "img_size": given["img_dim"],
        "base_channels": given["base_channels"],
        "embed_dim": given["embedding_dim"],
        "num_heads": given["num_heads"],
        "num_layers": given["num_layers"],
        "mlp_dim": given["hidden_dim"],
        "dropout_rate": given["dropout_rate"],
        "attn_dropout_rate": given["attn_dropout_rate"],
        "norm_groups": given["num_groups"],
    }


def _convert_transbts(state: Mapping[str, Tensor], network: nn.Module) -> Conversion:
    conversion = _renamed(state, _TRANSBTS, _UNUSED)
    if unused := sum(state[key].numel() for key in conversion.dropped):
        total = unused + sum(p.numel() for p in network.parameters())
        conversion.notes.append(f"the original's count of parameters is {total:,}, of which it never uses {unused:,}")
    return conversion


# ---------------------------------------------------------------------- nnFormer
_NNFORMER_DEFAULTS = {
    "variant": "synapse",
    "crop_size": (96, 96, 96),
    "embedding_dim": 192,
    "input_channels": 1,
    "num_classes": 14,
    "depths": (2, 2, 2, 2),
    "num_heads": (6, 12, 24, 48),
    "patch_size": (2, 4, 4),
    "window_size": (4, 4, 8, 4),
    "deep_supervision": False,
}
_STEM = {
    "proj1.conv1": 0,
    "proj1.norm1": 2,
    "proj1.conv2": 3,
    "proj1.norm2": 5,
    "proj2.conv1": 6,
    "proj2.norm1": 8,
    "proj2.conv2": 9,
    "norm": 10,
}
_BLOCK: _Rules = (
    (re.compile(r"\.attn\.relative_position_bias_table$"), ".attention.bias_table"),
    (re.compile(r"\.attn\.relative_position_index$"), ".attention.index"),
    (re.compile(r"\.attn\.(?:qkv|kv)\."), ".attention.project."),
    (re.compile(r"\.attn\.proj\."), ".attention.out."),
    (re.compile(r"\.mlp\.fc([12])\."), r".mlp.linear\1."),
)
_NNFORMER: _Rules = (
    _MODULE,
    (re.compile(r"^model_down\.patch_embed\.(\w+\.\w+\d|norm)\."), lambda m: f"stem.{_STEM[m[1]]}."),
    (re.compile(r"^model_down\.layers\.(\d)\.blocks\."), r"stages.\1."),
    (re.compile(r"^model_down\.layers\.(\d)\.downsample\.norm\."), r"merges.\1.1."),
    (re.compile(r"^model_down\.layers\.(\d)\.downsample\.reduction\."), r"merges.\1.2."),
    (re.compile(r"^model_down\.norm(\d)\."), r"norms.\1."),
    (re.compile(r"^decoder\.layers\.(\d)\.Upsample\.norm\."), lambda m: f"ups.{2 - int(m[1])}.0."),
    (re.compile(r"^decoder\.layers\.(\d)\.Upsample\.up\."), lambda m: f"ups.{2 - int(m[1])}.1."),
    (re.compile(r"^decoder\.layers\.(\d)\.blocks\."), lambda m: f"decoder.{2 - int(m[1])}."),
    (re.compile(r"^final\.(\d)\.up\."), r"heads.\1."),
    *_BLOCK,
)


def _nnformer(arguments: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    given = check_arguments("nnformer", arguments, required=(), defaults=_NNFORMER_DEFAULTS)
    variant, heads = given.pop("variant"), list(given["num_heads"])
    if variant not in ("synapse", "tumor"):
        raise ConfigError(f"The original nnformer has no variant '{variant}' that can be imported: synapse or tumor.")
    return "nnformer", {
        "spatial_dims": 3,
        "in_channels": given["input_channels"],
        "out_channels": given["num_classes"],
        "img_size": given["crop_size"],
        "embed_dim": given["embedding_dim"],
        "depths": given["depths"],
        "num_heads": heads,
        "decoder_num_heads": heads[1:] if variant == "tumor" else None,  # it leaves out the other end of the list
        "patch_size": given["patch_size"],
        "window_size": given["window_size"],
        "deep_supervision": given["deep_supervision"],
    }


def _convert_nnformer(state: Mapping[str, Tensor], network: nn.Module) -> Conversion:
    conversion, computed = _renamed(state, _NNFORMER), dict(network.named_buffers())
    for ours in [key for key in conversion.state if key.endswith(".attention.index")]:
        index, key = conversion.state.pop(ours), conversion.origin.pop(ours)
        if ours not in computed or not torch.equal(index, computed[ours].to(index)):
            raise ModelError(
                f"'{key}' is not the index of the published nnFormer for these attention windows; expected weights of "
                "exactly this crop and attention window size. Use the config that they were trained with."
            )
        conversion.dropped[key] = "computed here too, and equal"
    return conversion


# ---------------------------------------------------------------------- ResEnc U-Net
# What nnU-Net's plans write beside; the same in all its presets.
_RESENC_FIXED: dict[str, tuple[Any, ...]] = {
    "conv_bias": (True,),
    "norm_op_kwargs": ({"eps": 1e-5, "affine": True},),
    "dropout_op": (None,),
    "dropout_op_kwargs": (None,),
    "nonlin": ("torch.nn.LeakyReLU",),
    "nonlin_kwargs": ({"inplace": True},),
}
_RESENC_SIZES = ("input_channels", "n_stages", "features_per_stage", "kernel_sizes", "strides", "n_blocks_per_stage")
_RESENC: _Rules = (
    _MODULE,
    (re.compile(r"^_orig_mod\."), ""),  # wrapper of compiled networks
    (re.compile(r"^decoder\.encoder\."), "encoder."),
    (re.compile(r"\.all_modules\.0\."), ".conv."),
    (re.compile(r"\.all_modules\.1\."), ".norm."),
    (re.compile(r"\.norm\.(weight|bias)$"), r".adn.N.\1"),
    (re.compile(r"^encoder\.stem\.convs\.0\."), "stem."),
    (re.compile(r"^encoder\.stages\.(\d+)\.blocks\.(\d+)\."), r"encoder.\1.\2."),
    (re.compile(r"\.skip\.[01]\."), ".adjust."),
    (re.compile(r"^decoder\.stages\.(\d+)\.convs\.(\d+)\."), r"decoder.\1.\2."),
    (re.compile(r"^decoder\.transpconvs\."), "ups."),
)


def _resenc_unet(arguments: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    defaults = {**{name: usable[0] for name, usable in _RESENC_FIXED.items()}, "deep_supervision": False}
    defaults |= {"conv_op": "torch.nn.modules.conv.Conv3d", "norm_op": None, "n_conv_per_stage_decoder": 1}
    given = check_arguments("resenc_unet", arguments, required=[*_RESENC_SIZES, "num_classes"], defaults=defaults)
    _only("resenc_unet", given, _RESENC_FIXED)
    dims = 2 if given["conv_op"].endswith("Conv2d") else 3
    per_stage = given["n_conv_per_stage_decoder"]
    convs = {per_stage} if isinstance(per_stage, int) else set(per_stage)
    if len(convs) > 1:
        raise ConfigError(f"n_conv_per_stage_decoder is {per_stage}, expected one number for all stages.")
    return "resenc_unet", {
        "spatial_dims": dims,
        "in_channels": given["input_channels"],
        "out_channels": given["num_classes"],
        "strides": given["strides"],
        "kernel_sizes": given["kernel_sizes"],
        "features": given["features_per_stage"],
        "blocks": given["n_blocks_per_stage"],
        "decoder_convs": convs.pop(),
        "deep_supervision": True,  # its heads are always made
    }


def _convert_resenc_unet(state: Mapping[str, Tensor], network: nn.Module) -> Conversion:
    last = len(network.get_submodule("heads")._modules) - 1
    heads = (re.compile(r"^decoder\.seg_layers\.(\d+)\."), lambda m: f"heads.{last - int(m[1])}.")
    short = sorted(state, key=lambda key: "all_modules." in key or key.startswith("decoder.encoder."))
    return _renamed({key: state[key] for key in short}, (*_RESENC, heads))


# ---------------------------------------------------------------------- MedNeXt
_MEDNEXT_DEFAULTS = {
    "exp_r": 4,
    "kernel_size": 7,
    "deep_supervision": False,
    "do_res": False,
    "do_res_up_down": False,
    "block_counts": (2,) * 9,
}
_MEDNEXT: _Rules = (
    _MODULE,
    (re.compile(r"^enc_block_(\d)\."), r"enc_stages.\1."),
    (re.compile(r"^down_(\d)\."), r"down_blocks.\1."),
    (re.compile(r"^up_(\d)\."), lambda m: f"up_blocks.{3 - int(m[1])}."),
    (re.compile(r"^dec_block_(\d)\."), lambda m: f"dec_stages.{3 - int(m[1])}."),
    (re.compile(r"^out_([1-4])\."), lambda m: f"out_blocks.{4 - int(m[1])}."),
    (re.compile(r"^"), "network."),
)


def _mednext(arguments: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    required = ("in_channels", "n_channels", "n_classes")
    given = check_arguments("mednext", arguments, required=required, defaults=_MEDNEXT_DEFAULTS)
    _only("mednext", given, {"do_res": (True,), "do_res_up_down": (True,)})
    ratios = given["exp_r"]
    return "mednext", {
        "spatial_dims": 3,
        "in_channels": given["in_channels"],
        "out_channels": given["n_classes"],
        "features": given["n_channels"],
        "kernel_size": given["kernel_size"],
        "expansion": [ratios] * 9 if isinstance(ratios, int) else ratios,
        "blocks": given["block_counts"],
        "deep_supervision": given["deep_supervision"],
    }


def _convert_mednext(state: Mapping[str, Tensor], network: nn.Module) -> Conversion:
    return _renamed(state, _MEDNEXT, {"network.dummy_tensor": "unused by the original"})


ARCHITECTURES = {
    "transbts": Architecture(_transbts, _convert_transbts),
    "nnformer": Architecture(_nnformer, _convert_nnformer),
    "resenc_unet": Architecture(_resenc_unet, _convert_resenc_unet),
    "mednext": Architecture(_mednext, _convert_mednext),
}
