"""FNOSeg: a chain of Fourier neural operators whose weights all modes share (FNOSeg3D, ISBI 2023, arXiv 2310.03872)."""

from __future__ import annotations

from collections.abc import Sequence

from medseg.networks.layers.mode_mix import FourierMix
from medseg.networks.layers.operator_chain import OperatorChain
from medseg.networks.layers.operator_network import check_modes
from medseg.networks.registry import register

__all__ = ["FNOSeg"]


@register(
    "fnoseg",
    title="FNOSeg",
    spatial_dims=(2, 3),
    parameters=71184,
    setting="BraTS 2023, 4 channels in and out",
    paper="FNOSeg3D, ISBI 2023, arXiv 2310.03872",
)
class FNOSeg(OperatorChain):
    """FNOSeg: complex weights on Fourier modes, in real numbers; arguments and shapes as of ``OperatorChain``.

    ``weights`` of an operator are ``shared`` by all modes or ``individual``.
    """

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
            op=lambda: FourierMix(filters, filters, modes, weights),
            filters=filters,
            num_blocks=num_blocks,
            num_modes=modes,
            resize=resize,
            deep_supervision=deep_supervision,
            branch_bias=branch_bias,
            block_skip=block_skip,
            activation=activation,
        )
