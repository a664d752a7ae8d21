"""HartleyMHA: self-attention between the low frequencies of a volume (MICCAI 2023, arXiv 2310.04466)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from medseg.errors import ConfigError
from medseg.networks.layers.hartley import clipped
from medseg.networks.layers.hartley_attention import HartleyAttention
from medseg.networks.layers.operator_chain import OperatorChain
from medseg.networks.layers.operator_network import check_modes, planned_modes
from medseg.networks.registry import PlannedFor, register

__all__ = ["HartleyMHA"]


@register(
    "hartley_mha",
    title="HartleyMHA",
    spatial_dims=(2, 3),
    channels=(4, 4),
    parameters=45356,
    setting="BraTS, 4 channels in and out",
    paper="HartleyMHA, MICCAI 2023, arXiv 2310.04466",
)
class HartleyMHA(OperatorChain):
    """HartleyMHA: operators are Hartley attention; the rest is as of ``OperatorChain``.

    Args:
        num_heads: each has ``filters`` channels.
        patch_size: modes per token and axis; it divides 2 * ``num_modes``.
        attention_activation: activation of the scores, as in MONAI.

    Raises:
        ConfigError: options outside these; in ``forward``, an image too small for one patch of modes.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        *,
        filters: int = 12,
        num_blocks: int = 16,
        num_heads: int = 4,
        num_modes: Sequence[int] | int | None = None,
        patch_size: Sequence[int] | int | None = 2,
        attention_activation: str = "selu",
        resize: bool = True,
        deep_supervision: bool = True,
        branch_bias: bool = False,
        block_skip: str | None = "concat",
        activation: str = "selu",
    ) -> None:
        modes = check_modes(num_modes, spatial_dims)
        patch = (
            (patch_size or 1,) * spatial_dims
            if patch_size is None or isinstance(patch_size, int)
            else tuple(patch_size)
        )
        if len(patch) != spatial_dims or any(p < 1 or 2 * m % p for m, p in zip(modes, patch, strict=True)):
            raise ConfigError(
                f"patch_size is {patch_size}, expected divisors of twice the num_modes {list(modes)}, one per axis."
            )
        if num_heads < 1:
            raise ConfigError(f"num_heads is {num_heads}, expected a positive number.")
        super().__init__(
            spatial_dims,
            in_channels,
            out_channels,
            op=lambda: HartleyAttention(filters, num_heads, patch, attention_activation),
            filters=filters,
            num_blocks=num_blocks,
            num_modes=modes,
            resize=resize,
            deep_supervision=deep_supervision,
            branch_bias=branch_bias,
            block_skip=block_skip,
            activation=activation,
        )
        self.patch_size = list(patch)

    @classmethod
    def planned_arguments(cls, plan: PlannedFor) -> dict[str, Any]:
        """As of ``OperatorChain``; even numbers of modes, so that patches do not join positive with negative ones."""
        modes = [max(2, m // 2 * 2) for m in planned_modes(plan.roi_size)]
        return {**super().planned_arguments(plan), "num_modes": modes}

    def modes(self, size: list[int]) -> list[int]:
        """As many whole patches of modes as features of ``size`` have."""
        modes: list[int] = []
        for m, p in zip(clipped(size, self.num_modes), self.patch_size):
            while 2 * m % p:
                m -= 1
            modes.append(m)
        if min(modes) < 1:
            raise ConfigError(
                f"Features of {size} voxels have fewer modes than a patch, {self.patch_size}; "
                "use larger images or a smaller patch_size."
            )
        return modes
