"""1x1 convolutions as matrix products that add up in place."""

from __future__ import annotations

import torch
from torch import Tensor

from medseg.networks.recording import autocasting

__all__ = ["mix_channels"]


def mix_channels(weight: Tensor, start: Tensor | None, inputs: list[Tensor]) -> Tensor:
    """The 1x1 convolution of inputs (B, C_i, *spatial), concatenated along channels, without the concatenation.

    Args:
        weight: ``(out_channels, sum of C_i, 1, ...)``.
        start: what the sum starts from: a bias ``(out_channels,)``, or ``(B, out_channels, *spatial)``, which is
            overwritten.
    """
    # In place it would not take part in autocast.
    in_place = not autocasting(inputs[0])
    parts = weight.flatten(1).split([x.shape[1] for x in inputs], dim=1)
    total = start.flatten(2) if start is not None and start.dim() > 1 else None
    for part, x in zip(parts, inputs):
        matrix, rows = part.expand(x.shape[0], -1, -1), x.flatten(2)
        if total is not None:
            total = total.baddbmm_(matrix, rows) if in_place else total.baddbmm(matrix, rows)
        elif start is None:
            total = torch.bmm(matrix, rows)
        else:
            total = torch.baddbmm(start[:, None], matrix, rows)
    assert total is not None
    y: Tensor = total.unflatten(2, inputs[0].shape[2:])
    return y
