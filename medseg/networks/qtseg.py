"""QTSeg: a convolutional pyramid, a bridge between its levels, and query tokens that become the classes' kernels
(arXiv 2412.17241).

Two systems share the name: ``mqm`` of the paper's first version, and ``dma`` of the later one, whose weights are
published.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from medseg.errors import ConfigError, nearest
from medseg.networks.kernels.channels_last import channels_last
from medseg.networks.layers.dual_mix_layer import DualMixLayer
from medseg.networks.layers.feature_distribution import FeatureDistribution
from medseg.networks.layers.pyramid_encoder import PyramidEncoder
from medseg.networks.layers.query_decoder import QueryDecoder
from medseg.networks.layers.two_way_layer import TwoWayLayer
from medseg.networks.registry import PlannedFor, register

__all__ = ["QTSeg"]

_DECODERS = ("dma", "mqm")
_BRIDGES = ("mlfd", "identity")


@register(
    "qtseg",
    title="QTSeg",
    spatial_dims=(2,),
    channels=(3, 2),
    parameters=9214850,
    setting="DMA decoder, 2 classes",
    paper="QTSeg, arXiv 2412.17241",
)
class QTSeg(nn.Module):
    """Query-token segmentation of 2D images.

    ``x: (B, in_channels, H, W)``, any size -> logits ``(B, out_channels, H, W)``. Sizes that 32 does not divide are
    zero-padded at the bottom and right, and the logits cropped back.

    Args:
        spatial_dims: 2.
        decoder: ``dma`` (dual-mix attention: spatial and channel attention before the tokens') or ``mqm`` (multi-query
            mask decoding: a two-way transformer).
        bridge: ``mlfd`` or ``identity`` (the ablation without it).
        width: channels at stride 2; 4, 8 and 16 times as many at strides 8, 16 and 32.
        depths: number of decoder layers at strides 8, 16, 32.
        num_heads: number of heads of every attention.
        mlp_dim: hidden width of the tokens' MLP in every decoder layer.

    Raises:
        ConfigError: an unknown name, or numbers that do not fit together.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        *,
        decoder: str = "dma",
        bridge: str = "mlfd",
        width: int = 16,
        depths: Sequence[int] = (1, 2, 3),
        num_heads: int = 8,
        mlp_dim: int = 2048,
    ) -> None:
        super().__init__()
        if spatial_dims != 2:
            raise ConfigError(f"QTSeg is for 2D images: spatial_dims is {spatial_dims}, expected 2.")
        for name, value, known in (("decoder", decoder, _DECODERS), ("bridge", bridge, _BRIDGES)):
            if value not in known:
                raise ConfigError(f"No {name} '{value}'.{nearest(str(value), known)} Known: {', '.join(known)}.")
        if len(depths) != 3 or min(depths) < 1:
            raise ConfigError(f"depths is {list(depths)}, expected three positive numbers, for strides 8, 16 and 32.")
        if min(width, num_heads, mlp_dim) < 1 or 2 * width % num_heads:
            raise ConfigError(
                f"width {width}, num_heads {num_heads} and mlp_dim {mlp_dim} do not fit; expected positive numbers, "
                f"twice the width divisible by num_heads."
            )
        self.encoder = PyramidEncoder(in_channels, width)
        self.bridge = FeatureDistribution(width) if bridge == "mlfd" else None

        def layer(channels: int, first: bool) -> nn.Module:
            if decoder == "mqm":
                return TwoWayLayer(channels, num_heads, mlp_dim, first=first)
            return DualMixLayer(channels, num_heads, mlp_dim)

        self.decoder = QueryDecoder(out_channels, width, depths, num_heads, layer)

    @classmethod
    def planned_arguments(cls, plan: PlannedFor) -> dict[str, Any]:
        """Half the published width, single layers and a small MLP for a CPU; else the published setting."""
        return {"width": 8, "depths": [1, 1, 1], "num_heads": 4, "mlp_dim": 128} if plan.light else {}

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        if height % 32 > 0 or width % 32 > 0:
            x = F.pad(x, (0, -width % 32, 0, -height % 32))
        features = self.encoder(channels_last(x))
        if self.bridge is not None:
            features = self.bridge(features)
        logits = self.decoder(features)
        logits = F.interpolate(logits, scale_factor=2.0, mode="bilinear", align_corners=False)
        return logits[:, :, :height, :width]
