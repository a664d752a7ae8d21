"""HNOSeg-XS: a few small Hartley neural operators in a U-Net arrangement, 28 thousand parameters (arXiv 2507.08205).

A block transforms once, works on a fixed number of low frequencies with several pointwise layers, and transforms back.
Frequencies are cycles per field of view and coefficients do not depend on the number of voxels, so that a network
trained on small volumes segments large ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from medseg.errors import ConfigError
from medseg.networks.layers.conv_units import ConvUnit, activation_layer
from medseg.networks.layers.hartley import kept, mirror_sum, padded
from medseg.networks.layers.mode_mix import HartleyMix
from medseg.networks.layers.operator_network import (
    OperatorBlock,
    OperatorNetwork,
    check_block_skip,
    check_modes,
    planned_modes,
)
from medseg.networks.registry import PlannedFor, register

__all__ = ["HNOSegXS"]


class HNOXSBlock(OperatorBlock):
    """One transform and back, with ``num_convs`` layers ``X <- act(W X + X)`` on the modes in between."""

    def __init__(
        self,
        spatial_dims: int,
        filters: int,
        num_convs: int,
        *,
        num_modes: Sequence[int],
        weights: str,
        takes_skip: bool,
        block_skip: str,
        activation: str,
    ) -> None:
        super().__init__()
        unit: dict[str, Any] = {"act_name": activation}
        self.mapping_conv = ConvUnit(spatial_dims, 2 * filters, filters, **unit) if takes_skip else None
        self.conv_blocks = nn.ModuleList(HartleyMix(filters, filters, num_modes, weights) for _ in range(num_convs))
        self.normalization = None if activation.lower() == "selu" else nn.GroupNorm(1, filters)
        self.act_modes = activation_layer(activation)
        self.act = activation_layer(activation, features=True)
        self.conv_concat = ConvUnit(spatial_dims, 2 * filters, filters, **unit) if block_skip == "concat" else None

    def enter(self, x: Tensor, skip: Tensor) -> Tensor:
        return x if self.mapping_conv is None else self.mapping_conv(x, skip)

    def spectral(self, products: Tensor) -> Tensor:
        x = kept(mirror_sum(products), half=False)
        for mix in self.conv_blocks:
            x = self.act_modes(mix(x) + x)
        return mirror_sum(padded(x, list(products.shape[2:]), half=False))

    def merge(self, y: Tensor, x: Tensor) -> Tensor:
        y = self.act(y if self.normalization is None else self.normalization(y))
        return y + x if self.conv_concat is None else self.conv_concat(y, x)


@register(
    "hnoseg_xs",
    title="HNOSeg-XS",
    spatial_dims=(2, 3),
    channels=(4, 4),
    parameters=28248,
    setting="BraTS 2023, 4 channels in and out",
    paper="HNOSeg-XS, IEEE TMI 2025, arXiv 2507.08205",
)
class HNOSegXS(OperatorNetwork):
    """HNOSeg-XS.

    ``x: (B, in_channels, *spatial)``, any size -> logits ``(B, out_channels, *spatial)``. Give it whole volumes.

    Args:
        spatial_dims: 2 or 3.
        filters: channels.
        num_convs: one entry per block, its number of layers in the frequency domain.
        num_modes: kept frequencies per axis and sign; ``None`` for (10, 14, 14), in 2D (14, 14). Images with
            fewer voxels keep what they have.
        weights: weights of the frequency layers, ``shared`` by all modes or ``individual``.
        resize: work at half resolution.
        deep_supervision: the head reads the features of all blocks.
        unet_skip: results of the first half of the blocks enter the second half, the last first.
        block_skip: a block ends with a 1x1 convolution of its result and its input (``concat``) or their sum (``add``).
        activation: as in MONAI; every one but SELU comes with normalisation.

    Raises:
        ConfigError: options outside these.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        *,
        filters: int = 24,
        num_convs: Sequence[int] = (3,) * 8,
        num_modes: Sequence[int] | int | None = None,
        weights: str = "shared",
        resize: bool = True,
        deep_supervision: bool = False,
        unet_skip: bool = True,
        block_skip: str = "concat",
        activation: str = "selu",
    ) -> None:
        modes = check_modes(num_modes, spatial_dims)
        count = len(num_convs)
        if not count or any(n < 1 for n in num_convs):
            raise ConfigError(f"num_convs is {list(num_convs)}, expected a positive number per block.")
        check_block_skip(block_skip, ("concat", "add"))
        # The middle block's partner would be itself, or its own input.
        skips = {i: count - 1 - i for i in range(count - 1 - count // 2)} if unet_skip else {}
        super().__init__(
            spatial_dims,
            in_channels,
            out_channels,
            filters=filters,
            blocks=[
                HNOXSBlock(
                    spatial_dims,
                    filters,
                    number,
                    num_modes=modes,
                    weights=weights,
                    takes_skip=i in skips.values(),
                    block_skip=block_skip,
                    activation=activation,
                )
                for i, number in enumerate(num_convs)
            ],
            num_modes=modes,
            skips=skips,
            resize=resize,
            deep_supervision=deep_supervision,
            head_unit=False,
            activation=activation,
        )

    @classmethod
    def planned_arguments(cls, plan: PlannedFor) -> dict[str, Any]:
        """The published network, on a CPU half its width and depth; modes by ``planned_modes``."""
        light = {"filters": 12, "num_convs": [3] * 4} if plan.light else {}
        return {**light, "num_modes": planned_modes(plan.roi_size)}
