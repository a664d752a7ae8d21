"""The exponential logarithmic loss (Wong et al., MICCAI 2018, arXiv 1809.00076)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from medseg.errors import ConfigError
from medseg.losses.region_loss import RegionLoss

__all__ = ["ExponentialLogLoss"]

_LEAST = 1e-7  # Dice scores and probabilities are kept this far from 0 and 1, where the logarithm or its power is steep


class ExponentialLogLoss(RegionLoss):
    """``dice_weight E[(-ln Dice)^gamma_dice] + ce_weight E[w_l (-ln p_l)^gamma_ce]``.

    The first mean is over samples and channels, the second over voxels with their true label l. Defaults are the
    paper's best setting. The published program has the first term only, of a Dice score without pseudocount: that is
    ``ExponentialLogLoss(dice_weight=1, ce_weight=0, smooth_nr=0, smooth_dr=1e-7)``.

    Args:
        dice_weight, ce_weight: weights of the terms.
        gamma_dice, gamma_ce: exponents.
        label_frequencies: share or count of voxels per channel that counts; w_l = sqrt(sum of all / that of l), so that
            rare labels weigh more. ``None`` weighs all alike.
        smooth_nr, smooth_dr: added to numerator and denominator of the Dice score.
        arguments: as of ``RegionLoss``; without reduction the loss is (B, C), whose mean is as above.

    ``forward(input (B, C, *spatial), target (B, C or 1, *spatial)) -> scalar``.

    Raises:
        ConfigError: sigmoid with the second term, which is of exclusive labels, or a frequency that is not positive.
    """

    def __init__(
        self,
        *,
        dice_weight: float = 0.8,
        ce_weight: float = 0.2,
        gamma_dice: float = 0.3,
        gamma_ce: float = 0.3,
        label_frequencies: Sequence[float] | None = None,
        smooth_nr: float = 1.0,
        smooth_dr: float = 1.0,
        **arguments: Any,
    ) -> None:
        super().__init__(**arguments)
        if self.sigmoid and ce_weight:
            raise ConfigError("The cross-entropy term is of exclusive labels; set softmax, or ce_weight to 0.")
        if label_frequencies is not None and min(label_frequencies, default=0) <= 0:
            raise ConfigError(f"label_frequencies is {list(label_frequencies)}, expected positive numbers.")
        self.dice_weight, self.ce_weight = dice_weight, ce_weight
        self.gamma_dice, self.gamma_ce = gamma_dice, gamma_ce
        self.smooth_nr, self.smooth_dr = smooth_nr, smooth_dr
        self.weights: Tensor | None
        frequencies = None if label_frequencies is None else torch.tensor(label_frequencies, dtype=torch.float)
        self.register_buffer("weights", None if frequencies is None else (frequencies.sum() / frequencies).sqrt())

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        p, y, _ = self.prepared(input, target)
        if self.weights is not None and len(self.weights) != p.shape[1]:
            raise ConfigError(
                f"label_frequencies has {len(self.weights)} numbers, {p.shape[1]} channels count; give one for each."
            )
        loss = torch.zeros_like(p[:, :, 0])
        if self.dice_weight:
            dice = (2 * (p * y).sum(2) + self.smooth_nr) / ((p + y).sum(2) + self.smooth_dr)
            loss = loss + self.dice_weight * _exponential_log(dice, self.gamma_dice)
        if self.ce_weight:
            entropy = (y * _exponential_log(p, self.gamma_ce)).sum(2)
            entropy = entropy if self.weights is None else entropy * self.weights.to(entropy)
            # Such that the mean over samples and channels is the mean over voxels.
            entropy = entropy * (entropy.numel() / y.sum().clamp(min=1))
            loss = loss + self.ce_weight * entropy
        return self.reduced(loss)


def _exponential_log(value: Tensor, gamma: float) -> Tensor:
    return (-value.clamp(_LEAST, 1 - _LEAST).log()) ** gamma
