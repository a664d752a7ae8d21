"""MedNeXt: a U-Net of ConvNeXt blocks in four published sizes (Roy et al., MICCAI 2023, arXiv 2303.09975).

The blocks are MONAI's. Its network gives the blocks that halve the expansion of the stage above them, where the
published one has that of the stage below, so that but for size S no published weights fit (MONAI 1.6).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from monai.networks.blocks.mednext_block import MedNeXtDownBlock
from monai.networks.nets import mednext
from torch import Tensor, nn

from medseg.errors import ConfigError, nearest
from medseg.networks.layers.padding import crop_to, pad_to_multiples
from medseg.networks.registry import PlannedFor, register

__all__ = ["MedNeXt"]

_STEP = 16  # four halvings
# Expansion and blocks of the four stages of the encoder and the bottleneck; the decoder mirrors the encoder.
_SIZES = {
    "S": ((2, 2, 2, 2, 2), (2, 2, 2, 2, 2)),
    "B": ((2, 3, 4, 4, 4), (2, 2, 2, 2, 2)),
    "M": ((2, 3, 4, 4, 4), (3, 4, 4, 4, 4)),
    "L": ((3, 4, 8, 8, 8), (3, 4, 8, 8, 8)),
}


@register(
    "mednext",
    title="MedNeXt",
    spatial_dims=(2, 3),
    channels=(1, 5),
    parameters=10526405,
    setting="size B, kernel 3, 5 channels",
    paper="MedNeXt: Transformer-driven Scaling of ConvNets, MICCAI 2023, arXiv 2303.09975",
    heads=True,
    unscripted="MONAI's MedNeXtBlock reads attributes that only its global response normalisation makes",
)
class MedNeXt(nn.Module):
    """MedNeXt.

    ``x: (B, in_channels, *spatial)``, any size -> logits ``(B, out_channels, *spatial)``. Sizes that 16 does not divide
    are zero-padded at the end of each axis and the logits cropped back. In training with ``deep_supervision`` the
    result is a list of five, from full resolution to a sixteenth, as ``monai.losses.DeepSupervisionLoss`` takes it.

    Args:
        spatial_dims: 2 or 3.
        size: ``S``, ``B``, ``M`` or ``L``.
        kernel_size: size of the depth-wise convolutions, odd (published: 3 and 5).
        features: channels of the finest stage; they double with each stage.
        expansion: factors of the blocks of the nine stages, in order, ``None`` for those of ``size``.
        blocks: numbers of blocks of the nine stages, likewise.
        deep_supervision: heads on every stage in training, as its authors train.

    Raises:
        ConfigError: an unknown size, or other numbers of stages.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        *,
        size: str = "B",
        kernel_size: int = 3,
        features: int = 32,
        expansion: Sequence[int] | None = None,
        blocks: Sequence[int] | None = None,
        deep_supervision: bool = False,
    ) -> None:
        super().__init__()
        if spatial_dims not in (2, 3):
            raise ConfigError(f"spatial_dims is {spatial_dims}, expected 2 or 3.")
        if size not in _SIZES:
            raise ConfigError(f"No size '{size}' of MedNeXt.{nearest(size, _SIZES)} Known: {', '.join(_SIZES)}.")
        ratios, counts = (
            list(given or [*half, *half[-2::-1]]) for given, half in zip((expansion, blocks), _SIZES[size], strict=True)
        )
        if len(ratios) != 9 or len(counts) != 9:
            raise ConfigError(
                f"expansion is {ratios} and blocks {counts}, expected nine numbers each: four stages, the bottleneck, "
                "four stages."
            )
        common: dict[str, Any] = {"kernel_size": kernel_size, "use_residual_connection": True}
        self.network = mednext.MedNeXt(
            spatial_dims,
            features,
            in_channels,
            out_channels,
            encoder_expansion_ratio=ratios[:4],
            bottleneck_expansion_ratio=ratios[4],
            decoder_expansion_ratio=ratios[5:],
            blocks_down=counts[:4],
            blocks_bottleneck=counts[4],
            blocks_up=counts[5:],
            deep_supervision=deep_supervision,
            **common,
        )
        self.network.down_blocks = nn.ModuleList(
            MedNeXtDownBlock(features * 2**i, features * 2 ** (i + 1), ratios[i + 1], dim=f"{spatial_dims}d", **common)
            for i in range(4)
        )

    @classmethod
    def planned_arguments(cls, plan: PlannedFor) -> dict[str, Any]:
        """The published size B, on a CPU S with a quarter of the channels."""
        return {"size": "S", "features": 8} if plan.light else {}

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        size = list(x.shape[2:])
        result = self.network(pad_to_multiples(x, [_STEP] * len(size), normalizes=True))
        if isinstance(result, Tensor):
            return crop_to(result, size)
        return [crop_to(head, size, [2**level] * len(size)) for level, head in enumerate(result)]
