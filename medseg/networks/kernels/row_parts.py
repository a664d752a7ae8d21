"""Parts of features whose enlarged form would be the largest of a network, so that it never exists whole."""

from __future__ import annotations

import torch
from torch import Tensor

from medseg.networks.recording import recording

__all__ = ["row_parts"]

_PART = 2**14  # numbers of a part; enlarged to 16 times as many it stays in a core's cache


def row_parts(rows: Tensor) -> list[Tensor]:
    """``rows: (B, N, C)`` in parts along N; whole on other devices, which do not wait for memory as a CPU does."""
    if torch.jit.is_scripting():
        return [rows]
    if rows.device.type != "cpu" or recording():
        return [rows]
    return list(rows.split(max(1, _PART // (rows.shape[0] * rows.shape[2])), dim=1))
