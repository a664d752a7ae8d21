"""QTSeg as its authors published it: constructor, trained checkpoints, and the encoder's pretrained file.

``QTSeg`` is the whole network, ``FPNEncoder`` its encoder alone: the file that their trainings start from, or the
weights of a YOLOv8 of the same width. What is made of it goes into a bundle's ``initial``::

    initial: {path: models/encoder.pt, reinitialize: ["bridge*", "decoder*"], partial: false}
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from medseg.errors import ConfigError, nearest
from medseg.networks.layers.pyramid_encoder import PyramidEncoder
from medseg.weights.original.contract import Architecture, Conversion, check_arguments, renamed

__all__ = ["ARCHITECTURES", "ARGUMENTS", "LICENCE"]

LICENCE = ""  # its repository states none

_DEFAULTS = {
    "num_classes": 2,
    "image_channel": 3,
    "n_channel": 16,
    "encoder_model": "FPNEncoder",
    "encoder_out_features": None,
    "bridge_model": "MLFD",
    "decoder_model": "MaskDecoder",
    "mask_depths": (1, 2, 3),
    "mask_num_head": 8,
    "mask_mlp_dim": 2048,
}
ARGUMENTS = (*_DEFAULTS, "num_masks")  # names in a cfg.json; the last is that of versions 0.1 and 0.2
_PARTS = {  # the original's names, and ours
    "encoder_model": {"FPNEncoder": "pyramid"},
    "bridge_model": {"MLFD": "mlfd", "MLFF": "mlfd", "Identity": "identity"},
    "decoder_model": {"MaskDecoder": "dma", "MultiQueryMaskDecoder": "mqm"},
}
# The encoder's layers by their number in YOLOv8, with which the original's names end.
_LAYERS = {
    0: "stem",
    1: "down1",
    2: "block1",
    3: "down2",
    4: "block2",
    5: "down3",
    6: "block3",
    7: "down4",
    8: "block4",
    9: "pool",
    12: "up3",
    15: "out2",
    16: "lower2",
    18: "out3",
    19: "lower3",
    21: "out4",
}
_ENCODER = [
    *((rf"^(?:conv_|c2f_|sppf_)?{number}\.", f"{layer}.") for number, layer in _LAYERS.items()),
    (r"\.m\.(\d+)\.cv(\d)\.", r".chain.\1.conv\2."),
    (r"\.cv1\.", ".split."),
    (r"\.cv2\.", ".merge."),
    (r"\.bn\.", ".norm."),
]
_BRIDGE = [
    (r"^neck_(\d)_(\d)\.", r"paths.\1.\2."),
    (r"\.conv_transpose\.", ".conv."),
    (r"\.bn\.", ".norm."),
]
_UP, _HEAD = r"^(?:SUB|output_upscaling)_s(\d)", r"^(?:MLP|output_hypernetworks_mlps)_s(\d)\.(\d+)\.layers"
_DECODER = [
    (r"^mask_tokens\.weight$", "tokens"),
    (r"^(?:PE|pe_layer)_s(\d)\.positional_encoding_gaussian_matrix$", r"levels.\1.frequencies"),
    *((rf"{_UP}\.{i}\.", rf"enlarge.\1.{i // 3}.{'norm' if i % 3 else 'conv'}.") for i in (0, 1, 3, 4)),
    *((rf"{_HEAD}\.{i}\.", rf"levels.\1.heads.\2.{2 * i}.") for i in range(3)),  # activations lie between
    (r"^(?:DMAB|transformer)_s(\d)\.", r"levels.\1."),
    (r"\.final_attn_token_to_image\.", ".final_attention."),
    (r"\.norm_final_attn\.", ".final_norm."),
    (r"\.self_attn\.", ".self_attention."),
    (r"\.cross_attn_token_to_image\.", ".tokens_to_pixels."),
    (r"\.cross_attn_image_to_token\.", ".pixels_to_tokens."),
    (r"\.dm_attention\.channel_attention\.", ".channel_attention."),
    (r"\.dm_attention\.spatial_attention\.cv1\.", ".spatial_gate.conv."),
    (r"\.dm_attention\.token_layernorm\.", ".norm1."),
    (r"\.(?:dm_attention\.)?(spatial|channel)_token_mix_attention\.", r".\1_mix."),
    (r"\.token_mlp\.", ".mlp."),
    (r"\.token_layernorm\.", ".norm2."),
    (r"\.q_proj\.", ".query."),
    (r"\.k_proj\.", ".key."),
    (r"\.v_proj\.", ".value."),
    (r"\.out_proj\.", ".out."),
    (r"\.lin(\d)\.", r".linear\1."),
]


def _arguments(architecture: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """The original's arguments in its newer names, completed; of a whole ``cfg.json``, those of the network.

    Raises:
        ConfigError: unknown names, or features that do not follow from the width.
    """
    if "model_type" in arguments:
        arguments = {key: value for key, value in arguments.items() if key in ARGUMENTS}
    if "num_masks" in arguments:  # the name in versions 0.1 and 0.2
        arguments = {"num_classes": arguments["num_masks"], **arguments}
        del arguments["num_masks"]
    given = check_arguments(architecture, arguments, required=(), defaults=_DEFAULTS)
    for name, known in _PARTS.items():
        if given[name] not in known:
            raise ConfigError(
                f"{name} is '{given[name]}'.{nearest(str(given[name]), known)} Known: {', '.join(known)}."
            )
    width, features = given["n_channel"], given["encoder_out_features"]
    if features is not None and list(features) != [4 * width, 8 * width, 16 * width]:
        raise ConfigError(
            f"encoder_out_features is {list(features)}, but n_channel {width} makes "
            f"{[4 * width, 8 * width, 16 * width]}; correct one of them."
        )
    return given


def _network(arguments: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    given = _arguments("QTSeg", arguments)
    return "qtseg", {
        "spatial_dims": 2,
        "in_channels": given["image_channel"],
        "out_channels": given["num_classes"],
        "decoder": _PARTS["decoder_model"][given["decoder_model"]],
        "bridge": _PARTS["bridge_model"][given["bridge_model"]],
        "width": given["n_channel"],
        "depths": list(given["mask_depths"]),
        "num_heads": given["mask_num_head"],
        "mlp_dim": given["mask_mlp_dim"],
    }


class EncoderAlone(nn.Module):
    """QTSeg's encoder, whose tensors have the names that they have in the whole network."""

    def __init__(self, in_channels: int, width: int) -> None:
        super().__init__()
        self.encoder = PyramidEncoder(in_channels, width)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        features: tuple[Tensor, Tensor, Tensor] = self.encoder(x)
        return features


def _encoder(arguments: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    given = _arguments("FPNEncoder", arguments)
    return f"{__name__}.EncoderAlone", {"in_channels": given["image_channel"], "width": given["n_channel"]}


def _convert(state: Mapping[str, Tensor], network: nn.Module) -> Conversion:
    conversion = Conversion()
    rules = {
        "image_encoder": ("encoder", _ENCODER),
        "bridge": ("bridge", _BRIDGE),
        "mask_decoder": ("decoder", _DECODER),
    }
    for key, value in state.items():
        part, _, rest = key.removeprefix("module.").partition(".")
        ours = f"{rules[part][0]}.{renamed(rest, rules[part][1])}" if part in rules else key
        conversion.take(key, ours, value)
    return conversion


def _convert_encoder(state: Mapping[str, Tensor], network: nn.Module) -> Conversion:
    conversion = Conversion()
    for key, value in state.items():
        rest = re.sub(r"^(?:module\.|image_encoder\.|model\.)+", "", key)
        if rest.startswith("22."):
            conversion.dropped[key] = "YOLOv8's detection head"
        elif re.match(r"(?:bridge|mask_decoder)\.", rest):
            conversion.dropped[key] = "not of the encoder"
        else:
            conversion.take(key, f"encoder.{renamed(rest, _ENCODER)}", value)
    return conversion


ARCHITECTURES = {
    "QTSeg": Architecture(_network, _convert),
    "FPNEncoder": Architecture(_encoder, _convert_encoder),
}
