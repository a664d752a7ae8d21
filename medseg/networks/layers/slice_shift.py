"""Shifts of channels between neighbouring slices: TSM, GSM and GSF as SSH-UNet uses them (arXiv 2307.12853).

Slices lie along dimension 2 of ``x: (B, C, S, H, W)``. "Up" moves content to the next higher slice (slice 0 becomes
zero), "down" to the next lower one (the last slice becomes zero). Sources: temporal shift, Lin et al. 2019;
gate-shift, Sudhakaran et al. 2020; gate-shift-fuse, Sudhakaran et al. 2022; here with SSH-UNet's differences.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medseg.errors import ConfigError, nearest
from medseg.networks.kernels.channels_last import instance_norm
from medseg.networks.recording import exporting, recording

__all__ = ["GSF", "GSM", "SHIFTS", "TSM", "create_shift", "shift_slices"]


def shift_slices(x: Tensor, *, up: bool) -> Tensor:
    """``x: (B, C, S, H, W)`` moved by one slice along dimension 2, zero-filled."""
    pad = [0, 0, 0, 0, 1, 0] if up else [0, 0, 0, 0, 0, 1]
    return F.pad(x[:, :, :-1] if up else x[:, :, 1:], pad)


class _Quarters(torch.autograd.Function):
    """The shift of ``TSM`` by one copy of each voxel; its gradient is the opposite shift."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, fold: int, first_up: bool) -> Tensor:
        ctx.fold, ctx.first_up = fold, first_up
        y = torch.empty_like(x)
        y[:, fold:-fold] = x[:, fold:-fold]
        for part, up in ((slice(fold), first_up), (slice(-fold, None), not first_up)):
            target, source = (slice(1, None), slice(-1)) if up else (slice(-1), slice(1, None))
            y[:, part, target] = x[:, part, source]
            y[:, part, 0 if up else -1] = 0
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        x: Tensor = _Quarters.apply(grad, ctx.fold, not ctx.first_up)  # type: ignore[no-untyped-call]
        return x, None, None


class TSM(nn.Module):
    """The first quarter of the channels moves up one slice, the last quarter down, the half between stays.

    Raises:
        ConfigError: fewer than 4 channels.
    """

    def __init__(self, channels: int, *, decoder: bool = False) -> None:
        super().__init__()
        if channels < 4:
            raise ConfigError(f"Gate 'tsm' moves quarters of the channels, got {channels}; use filters of at least 4.")
        self.fold = channels // 4

    def forward(self, x: Tensor) -> Tensor:
        if not torch.jit.is_scripting() and not recording():
            return self._at_once(x)
        up, stay, down = x.split([self.fold, x.shape[1] - 2 * self.fold, self.fold], dim=1)
        return torch.cat((shift_slices(up, up=True), stay, shift_slices(down, up=False)), dim=1)

    @torch.jit.unused
    def _at_once(self, x: Tensor) -> Tensor:
        y: Tensor = _Quarters.apply(x, self.fold, True)  # type: ignore[no-untyped-call]
        return y


class GSM(nn.Module):
    """Two groups of channels; of each, a gated part moves by one slice and the rest stays.

    ``gate = tanh(conv(lrelu_0.1(instance_norm(x))))``, one map per group; ``y = gate * x``; out ``shift(y) + x - y``.
    The first group moves down and the second up; in the decoder the other way round.

    Raises:
        ConfigError: an odd number of channels.
    """

    def __init__(self, channels: int, *, decoder: bool = False) -> None:
        super().__init__()
        if channels < 2 or channels % 2:
            raise ConfigError(f"Gate 'gsm' halves the channels, got {channels}; use an even number of filters.")
        self.up = [decoder, not decoder]
        self.gate = nn.Conv3d(channels, 2, kernel_size=3, padding=1, groups=2)

    def gates(self, x: Tensor) -> list[Tensor]:
        """Two maps (B, 1, S, H, W) in -1..1."""
        return list(torch.tanh(self.gate(F.leaky_relu(instance_norm(x), 0.1, inplace=True))).chunk(2, dim=1))

    def forward(self, x: Tensor) -> Tensor:
        out: list[Tensor] = []
        for part, gate, up in zip(x.chunk(2, dim=1), self.gates(x), self.up):
            moved = gate * part
            out.append(shift_slices(moved, up=up) + (part - moved))
        return torch.cat(out, dim=1)


class GSF(GSM):
    """GSM on the first quarter of the channels (rounded down, then up to an even number), with a learned fusion.

    For each group the moved part ``y`` and the rest ``r`` are weighted: ``y * w + r * (1 - w)``, where ``w (B, c, S)``
    is the sigmoid of a 3x3 convolution over the (channel, slice) image of their in-plane means. Other channels pass.

    Raises:
        ConfigError: fewer than 4 channels.
    """

    def __init__(self, channels: int, *, decoder: bool = False) -> None:
        gated = channels // 4 + channels // 4 % 2
        if gated < 2:
            raise ConfigError(f"Gate 'gsf' works on a quarter of the channels, got {channels}; use at least 4 filters.")
        super().__init__(gated, decoder=decoder)
        self.gated = gated
        self.fusion = nn.ModuleList(nn.Conv2d(2, 1, kernel_size=3, padding=1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        head = x[:, : self.gated]
        if not torch.jit.is_scripting():
            head = head.contiguous(memory_format=_memory_format(x))
        parts, gates = head.chunk(2, dim=1), self.gates(head)
        out: list[Tensor] = []
        for i, fusion in enumerate(self.fusion):
            moved = gates[i] * parts[i]
            rest = parts[i] - moved
            moved = shift_slices(moved, up=self.up[i])
            means = torch.stack((moved.mean(dim=(3, 4)), rest.mean(dim=(3, 4))), dim=1)
            weight = torch.sigmoid(fusion(means)).permute(0, 2, 3, 1).unsqueeze(-1)
            out.append(moved * weight + rest * (1 - weight))
        return torch.cat(out + [x[:, self.gated :]], dim=1)


def _memory_format(x: Tensor) -> torch.memory_format:
    last = not exporting() and x.is_contiguous(memory_format=torch.channels_last_3d)
    return torch.channels_last_3d if last else torch.contiguous_format


SHIFTS: dict[str, type[nn.Module]] = {"tsm": TSM, "gsm": GSM, "gsf": GSF}


def create_shift(gate_type: str, channels: int, *, decoder: bool = False) -> nn.Module:
    """A shift module by name: ``tsm``, ``gsm`` or ``gsf``.

    Raises:
        ConfigError: an unknown name, or channels that it cannot divide.
    """
    if gate_type not in SHIFTS:
        raise ConfigError(f"No gate_type '{gate_type}'.{nearest(str(gate_type), SHIFTS)} Known: {', '.join(SHIFTS)}.")
    return SHIFTS[gate_type](channels, decoder=decoder)
