"""HNOSeg: a chain of Hartley neural operators (arXiv 2310.04466; with the activation of modes of arXiv 2507.08205)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import nn

from medseg.networks.layers.mode_mix import HartleyOperator
from medseg.networks.layers.operator_chain import OperatorChain
from medseg.networks.layers.operator_network import check_modes
from medseg.networks.registry import register

__all__ = ["HNOSeg"]


@register(
    "hnoseg",
    title="HNOSeg",
    spatial_dims=(2, 3),
    channels=(4, 4),
    parameters=57360,
    setting="BraTS 2023, 4 channels in and out",
    paper="HartleyMHA, MICCAI 2023, arXiv 2310.04466",
)
class HNOSeg(OperatorChain):
    """HNOSeg. Every block goes to the frequencies and back; arguments and shapes as of ``OperatorChain``.

    ``weights`` of an operator are ``shared`` by all modes or ``individual``.

    Autocast does not reach it: its 24 blocks make a relative error of 0.001 in the image, which is that of a number in
    bf16, one of 0.04 in the logits (random weights), and a bf16 error of 0.17.
    """

    needs_float32: ClassVar[bool] = True

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        *,
        filters: int = 24,
        num_blocks: int = 24,
        num_modes: Sequence[int] | int | None = None,
        weights: str = "shared",
        resize: bool = True,
        deep_supervision: bool = False,
        branch_bias: bool = False,
        block_skip: str | None = "concat",
        activation: str = "selu",
    ) -> None:
        modes = check_modes(num_modes, spatial_dims)
        super().__init__(
            spatial_dims,
            in_channels,
            out_channels,
            op=lambda: self.operator(filters, modes, weights, activation),
            filters=filters,
            num_blocks=num_blocks,
            num_modes=modes,
            resize=resize,
            deep_supervision=deep_supervision,
            branch_bias=branch_bias,
            block_skip=block_skip,
            activation=activation,
        )

    @staticmethod
    def operator(filters: int, num_modes: Sequence[int], weights: str, activation: str) -> nn.Module:
        """The operator of a block, on sums over products of cas."""
        return HartleyOperator(filters, filters, num_modes, weights, activation=activation)
