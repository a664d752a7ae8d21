"""Multi-level feature distribution (MLFD, first named MLFF): every level of a pyramid receives from every other
(QTSeg, arXiv 2412.17241).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from medseg.networks.layers.pyramid_encoder import ConvNormAct

__all__ = ["FeatureDistribution"]


class FeatureDistribution(nn.Module):
    """Features at strides 8, 16 and 32 with 4, 8 and 16 times ``width`` channels -> the same sizes.

    ``paths[i][j]`` brings level j to the size of level i; the results of a level are concatenated.
    """

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        n = width
        channels = (4 * n, 8 * n, 16 * n)
        received = ((2 * n, n, n), (2 * n, 4 * n, 2 * n), (4 * n, 4 * n, 8 * n))
        self.paths = nn.ModuleList(
            nn.ModuleList(_path(channels[j], received[i][j], i - j) for j in range(3)) for i in range(3)
        )

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        received: list[Tensor] = []
        for level in self.paths:
            parts = [path(features[i]) for i, path in enumerate(level)]  # type: ignore
            received.append(torch.cat(parts, dim=1))
        return received


def _path(in_channels: int, out_channels: int, halvings: int) -> ConvNormAct:
    if halvings < 0:
        return ConvNormAct(in_channels, out_channels, 2**-halvings, transposed=True)
    if halvings == 0:
        return ConvNormAct(in_channels, out_channels)
    return ConvNormAct(in_channels, out_channels, 3, 2**halvings, padding=1)
