"""What losses over regions share: MONAI's arguments, and the way from logits and labels to what they compare."""

from __future__ import annotations

import torch
from monai.networks import one_hot
from torch import Tensor, nn

from medseg.errors import ConfigError, nearest
from medseg.labels import IGNORE

__all__ = ["RegionLoss", "summable"]

_REDUCTIONS = ("mean", "sum", "none")


def summable(values: Tensor) -> Tensor:
    """The values in float32 or float64: sums over a volume need more digits, and a wider range, than half precision."""
    return values if values.dtype.itemsize > 2 else values.float()


class RegionLoss(nn.Module):
    """Base of losses with one value per sample and channel. Voxels whose target is ``IGNORE`` (-1) take no part.

    Args:
        include_background: whether channel 0 counts.
        to_onehot_y: targets are label indices (B, 1, *spatial), else (B, C, *spatial).
        sigmoid, softmax: turn logits into probabilities; without either the input holds probabilities.
        reduction: over samples and channels: ``mean``, ``sum`` or ``none``, which gives (B, C).

    Raises:
        ConfigError: both ``sigmoid`` and ``softmax``, or an unknown reduction.
    """

    def __init__(
        self,
        *,
        include_background: bool = True,
        to_onehot_y: bool = False,
        sigmoid: bool = False,
        softmax: bool = False,
        reduction: str = "mean",
    ) -> None:
        super().__init__()
        if sigmoid and softmax:
            raise ConfigError("sigmoid and softmax are both set; set one of them.")
        if reduction not in _REDUCTIONS:
            raise ConfigError(
                f"No reduction '{reduction}'.{nearest(str(reduction), _REDUCTIONS)} Known: {', '.join(_REDUCTIONS)}."
            )
        self.include_background = include_background
        self.to_onehot_y = to_onehot_y
        self.sigmoid = sigmoid
        self.softmax = softmax
        self.reduction = reduction

    def prepared(self, input: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Probabilities and targets of the channels that count, both (B, C, voxels) and 0 where ignored, and what is
        not ignored, (B, 1, voxels), 0 or 1; all in float32 or float64.

        Raises:
            ConfigError: different shapes, or no channel is left.
        """
        input = summable(input)
        channels = input.shape[1]
        probabilities = input.sigmoid() if self.sigmoid else input.softmax(1) if self.softmax else input
        valid = (target != IGNORE).all(1, keepdim=True)
        target = torch.where(valid, target, 0)
        target = one_hot(target, channels) if self.to_onehot_y else target
        if target.shape != input.shape:
            raise ConfigError(
                f"The target has shape {tuple(target.shape)}, the input {tuple(input.shape)}; expected the same, "
                "or label indices (B, 1, ...) with to_onehot_y."
            )
        if not self.include_background:
            if channels == 1:
                raise ConfigError("include_background is off, but channel 0 is the only one; set include_background.")
            probabilities, target = probabilities[:, 1:], target[:, 1:]
        counts = valid.to(probabilities.dtype)
        p, y, valid = (value.flatten(2) for value in (probabilities, target.to(probabilities.dtype), counts))
        return p * valid, y * valid, valid

    def reduced(self, values: Tensor) -> Tensor:
        """(B, C) by the reduction."""
        return values if self.reduction == "none" else values.sum() if self.reduction == "sum" else values.mean()
