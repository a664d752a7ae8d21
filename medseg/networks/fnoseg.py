"""FNOSeg: a chain of Fourier neural operators whose weights all modes share (FNOSeg3D, ISBI 2023, arXiv 2310.03872)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from medseg.networks.hnoseg import HNOSeg
from medseg.networks.layers.mode_mix import FourierMix
from medseg.networks.registry import register

__all__ = ["FNOSeg"]


@register(
    "fnoseg",
    title="FNOSeg",
    spatial_dims=(2, 3),
    channels=(4, 4),
    parameters=71184,
    setting="BraTS 2023, 4 channels in and out",
    paper="FNOSeg3D, ISBI 2023, arXiv 2310.03872",
)
class FNOSeg(HNOSeg):
    """HNOSeg with complex weights on Fourier modes, computed with real numbers, and no activation of modes."""

    @staticmethod
    def operator(filters: int, num_modes: Sequence[int], weights: str, activation: str) -> nn.Module:
        return FourierMix(filters, filters, num_modes, weights)
