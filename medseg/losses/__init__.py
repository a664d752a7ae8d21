"""Losses that MONAI lacks."""

from medseg.losses.masked import MaskedDiceCELoss

__all__ = ["MaskedDiceCELoss"]
