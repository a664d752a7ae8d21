"""A 2D network on volumes, slice by slice: the ``2d`` configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from medseg.errors import ConfigError
from medseg.networks.registry import create_network

__all__ = ["SliceWise"]


class SliceWise(nn.Module):
    """A 2D network on each slice of a volume.

    ``x: (B, C, *spatial)`` with three spatial axes; the network sees ``(B x slices, C, *plane)``. What it returns,
    logits or heads, has the slices in their place again.

    Args:
        spatial_dims: 3, the axes of the volume.
        in_channels, out_channels: channels of the network.
        network: the 2D network, or its class (``_target_``) and arguments.
        axis: spatial axis across the slices.

    Raises:
        ConfigError: ``spatial_dims`` is not 3, or ``axis`` not 0, 1 or 2.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        *,
        network: nn.Module | Mapping[str, Any],
        axis: int,
    ) -> None:
        super().__init__()
        if spatial_dims != 3 or axis not in range(3):
            raise ConfigError(
                f"SliceWise: expected spatial_dims 3 and an axis of 0, 1 or 2 across the slices, got {spatial_dims} "
                f"and {axis}. Plan it with `medseg train --configuration 2d`."
            )
        if isinstance(network, Mapping):
            network = create_network(network["_target_"], **{k: v for k, v in network.items() if k != "_target_"})
        self.network = network
        self.axis = axis

    def forward(self, x: torch.Tensor) -> Any:
        slices = x.movedim(self.axis + 2, 1)
        result = self.network(slices.flatten(0, 1))
        if isinstance(result, (list, tuple)):
            return [self._back(head, slices) for head in result]
        return self._back(result, slices)

    def _back(self, result: torch.Tensor, slices: torch.Tensor) -> torch.Tensor:
        """``(B x slices, ..., *plane)`` with the slices in their place."""
        back: torch.Tensor = result.unflatten(0, slices.shape[:2])
        return back.movedim(1, self.axis - 3)
