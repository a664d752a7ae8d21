"""Neural operators in a chain, each beside a 1x1 convolution: HNOSeg, FNOSeg, FNO, HartleyMHA."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from monai.networks.layers.factories import Conv
from torch import Tensor, nn

from medseg.errors import ConfigError
from medseg.networks.kernels.mix_channels import mix_channels
from medseg.networks.layers.conv_units import ConvUnit, activation_layer
from medseg.networks.layers.operator_network import OperatorBlock, OperatorNetwork, check_block_skip, planned_modes
from medseg.networks.registry import PlannedFor

__all__ = ["ChainBlock", "OperatorChain"]


class ChainBlock(OperatorBlock):
    """``a = act(op(x) + conv_branch(x))``, then ``conv_concat([a, x])``, ``a + x`` or ``a`` by ``block_skip``."""

    def __init__(
        self,
        spatial_dims: int,
        filters: int,
        op: nn.Module,
        *,
        branch_bias: bool,
        block_skip: str | None,
        activation: str,
    ) -> None:
        super().__init__()
        self.op = op
        self.conv_branch = Conv[Conv.CONV, spatial_dims](filters, filters, 1, bias=branch_bias)
        self.normalization = None if activation.lower() == "selu" else nn.GroupNorm(1, filters)
        self.act = activation_layer(activation, features=True)
        concat = block_skip == "concat"
        self.conv_concat = ConvUnit(spatial_dims, 2 * filters, filters, act_name=activation) if concat else None
        self.adds_input = block_skip == "add"

    def spectral(self, products: Tensor) -> Tensor:
        y: Tensor = self.op(products)
        return y

    def merge(self, y: Tensor, x: Tensor) -> Tensor:
        a: Tensor = mix_channels(self.conv_branch.weight, y, [x])
        bias = self.conv_branch.bias
        if bias is not None:
            a = a + bias.view([-1] + [1] * (a.dim() - 2))
        a = self.act(a if self.normalization is None else self.normalization(a))
        if self.conv_concat is not None:
            joined: Tensor = self.conv_concat(a, x)
            return joined
        return a + x if self.adds_input else a


class OperatorChain(OperatorNetwork):
    """Blocks in a chain; every block goes to the frequencies and back.

    ``x: (B, in_channels, *spatial)``, any size -> logits ``(B, out_channels, *spatial)``. Give it whole volumes.

    Args:
        spatial_dims: 2 or 3.
        op: makes the operator of a block, from sums over products of cas (B, filters, *2m + 1) to coefficients of such.
        filters: channels.
        num_blocks: length of the chain.
        num_modes: kept frequencies per axis and sign; ``None`` for the published ones. Images with fewer voxels
            keep what they have.
        resize: work at half resolution.
        deep_supervision: the head reads the features before and after every block.
        branch_bias: the 1x1 convolution beside an operator has a bias.
        block_skip: a block ends with a 1x1 convolution of its result and its input (``concat``), with their sum
            (``add``), or without its input (``None``).
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
        op: Callable[[], nn.Module],
        filters: int,
        num_blocks: int,
        num_modes: Sequence[int],
        resize: bool,
        deep_supervision: bool,
        branch_bias: bool,
        block_skip: str | None,
        activation: str,
    ) -> None:
        if num_blocks < 1:
            raise ConfigError(f"num_blocks is {num_blocks}, expected a positive number.")
        check_block_skip(block_skip, ("concat", "add", None))
        options: dict[str, Any] = {"branch_bias": branch_bias, "block_skip": block_skip, "activation": activation}
        super().__init__(
            spatial_dims,
            in_channels,
            out_channels,
            filters=filters,
            blocks=[ChainBlock(spatial_dims, filters, op(), **options) for _ in range(num_blocks)],
            num_modes=num_modes,
            skips={},
            resize=resize,
            deep_supervision=deep_supervision,
            head_unit=True,
            activation=activation,
        )

    @classmethod
    def planned_arguments(cls, plan: PlannedFor) -> dict[str, Any]:
        """The published network, on a CPU six blocks of twelve channels; modes by ``planned_modes``."""
        light = {"filters": 12, "num_blocks": 6} if plan.light else {}
        return {**light, "num_modes": planned_modes(plan.roi_size)}
