"""Small tensors to a GPU without waiting for what it has to do by then."""

from __future__ import annotations

import torch
from torch import Tensor

from medseg.networks.recording import recording

__all__ = ["queued_copy"]


def queued_copy(x: Tensor, device: torch.device) -> Tensor:
    """``x`` on the device. From a CPU to a GPU it goes by way of pinned memory: of other memory the copy waits."""
    if torch.jit.is_scripting():
        return x.to(device)
    from_cpu = x.device.type == "cpu"
    x = x.pin_memory() if from_cpu and device.type == "cuda" and not recording() else x
    return x.to(device, non_blocking=from_cpu)
