"""FNO: the Fourier neural operator with one weight matrix per mode (Li et al., ICLR 2021, arXiv 2010.08895)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from medseg.networks.fnoseg import FNOSeg
from medseg.networks.layers.operator_network import planned_modes
from medseg.networks.registry import PlannedFor, register

__all__ = ["FNO"]


@register(
    "fno",
    title="FNO",
    spatial_dims=(2, 3),
    channels=(4, 4),
    parameters=15941136,
    setting="BraTS 2023, 4 channels in and out",
    paper="Fourier neural operator, ICLR 2021, arXiv 2010.08895; as in arXiv 2507.08205",
)
class FNO(FNOSeg):
    """FNOSeg with individual weights, fewer modes for that, a bias beside the operator and no block skip."""

    needs_float32: ClassVar[bool] = False  # individual weights: a bf16 error of 0.03

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        *,
        filters: int = 24,
        num_blocks: int = 24,
        num_modes: Sequence[int] | int | None = None,
        weights: str = "individual",
        resize: bool = True,
        deep_supervision: bool = False,
        branch_bias: bool = True,
        block_skip: str | None = None,
        activation: str = "selu",
    ) -> None:
        super().__init__(
            spatial_dims,
            in_channels,
            out_channels,
            filters=filters,
            num_blocks=num_blocks,
            num_modes=(4, 6, 6)[-spatial_dims:] if num_modes is None else num_modes,
            weights=weights,
            resize=resize,
            deep_supervision=deep_supervision,
            branch_bias=branch_bias,
            block_skip=block_skip,
            activation=activation,
        )

    @classmethod
    def planned_arguments(cls, plan: PlannedFor) -> dict[str, Any]:
        """As of ``OperatorChain``, with six modes at most: every one has its own weights."""
        modes = [min(6, m) for m in planned_modes(plan.roi_size)]
        return {**super().planned_arguments(plan), "num_modes": modes}
