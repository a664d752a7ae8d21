"""SSH-UNet: a residual U-Net with in-plane kernels that sees the volume from three sides (arXiv 2307.12853).

Three axis-swapped views go through one trunk whose kernels, (1, 3, 3), never look along a view's slice axis
(dimension 2); slices talk through channel shifts (``layers/slice_shift.py``), views only in the output block.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medseg.errors import ConfigError, nearest
from medseg.networks.kernels.channels_last import InstanceNorm, PointwiseConv, planar_layout
from medseg.networks.layers.slice_shift import create_shift
from medseg.networks.layers.unet_blocks import (
    LEAKY_RELU,
    BasicBlock,
    Name,
    Triple,
    UpBlock,
    activation,
    conv,
    dropout_layer,
    norm_layer,
)
from medseg.networks.layers.view_fusion import SumViews, ViewFusionNetwork, swap_view
from medseg.networks.recording import largest, sizes_are_symbols
from medseg.networks.registry import PlannedFor, register

__all__ = ["SSHUNet"]

_VFN_STEP = 8  # the view fusion network halves three times


class ShiftResidualBlock(nn.Module):
    """Two convolutions, each followed by the same shift module, and a residual that is added before the last norm.

    ``y = act(norm2(shift(conv2(act(norm1(shift(conv1(x)))))) + r))`` with ``r = norm3(conv3(x))`` where channels or
    size change, else ``x``. ``shift_first=False`` leaves out the shift after ``conv1``.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Triple,
        stride: Triple,
        *,
        shift: nn.Module | None,
        shift_first: bool,
        norm_name: Name,
        act_name: Name,
        dropout: float | None,
    ) -> None:
        super().__init__()
        self.conv1 = conv(in_channels, out_channels, kernel_size, stride)
        self.conv2 = conv(out_channels, out_channels, kernel_size)
        self.norm1 = norm_layer(norm_name, out_channels)
        self.norm2 = norm_layer(norm_name, out_channels)
        self.act = activation(act_name)
        self.dropout = dropout_layer(dropout)
        self.shift = nn.Identity() if shift is None else shift
        self.shift_first = shift_first
        changes = in_channels != out_channels or max(stride) > 1
        self.conv3 = PointwiseConv(in_channels, out_channels, stride, bias=False) if changes else None
        self.norm3 = norm_layer(norm_name, out_channels) if changes else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        h = self.dropout(self.conv1(x))
        if self.shift_first:
            h = self.shift(h)
        h = self.act(self.norm1(h))
        h = self.shift(self.dropout(self.conv2(h)))
        h += x if self.conv3 is None else self.norm3(self.dropout(self.conv3(x)))
        y: Tensor = self.act(self.norm2(h))
        return y


@register(
    "ssh_unet",
    title="SSH-UNet",
    spatial_dims=(3,),
    channels=(1, 14),
    parameters=6480142,
    setting="BTCV, TSM, 14 channels",
    paper="Slice-Shift UNet, ICMVA 2024, arXiv 2307.12853",
    heads=True,
    light_rate=3.0,
    evidence="studies/learning_rates.yaml, two seeds: Dice 0.33 instead of 0.30 (fetal brain), 0.68 of 0.59 (sarcoma)",
)
class SSHUNet(nn.Module):
    """Slice-Shift UNet.

    ``x: (B, in_channels, D, H, W)``, any size -> logits ``(B, out_channels, D, H, W)``. Sizes that the strides do not
    divide are zero-padded at the end of each axis and the logits cropped back. In training with ``deep_supervision``
    the result is a list: full resolution first, then ``deep_supr_num`` heads, each at the resolution of its level
    (half, a quarter, ...), as ``monai.losses.DeepSupervisionLoss`` takes it.

    Views of a cube share one batch (rows ``view * B + b``); of another shape they run one after the other. With batch
    norm in training, the statistics of a cube are over its three views together, else over each.

    Args:
        spatial_dims: 3.
        gate_type: ``tsm``, ``gsm`` or ``gsf``; the input block always has it.
        gate_pos: which of the blocks between input block and bottleneck have it (0 is the first; ``None`` is all), in
            the encoder and, with ``gate_dec``, in the decoder, where -1 is the last block.
        gate_in_bottleneck: whether the bottleneck has it.
        do_basic: without ``gate_dec``, decoder blocks without residual.
        kernel_size: per level, (slice axis, two in-plane axes); odd.
        strides: per level, 1 or 2; the first is 1.
        upsample_kernel_size: ``strides[1:]``, which is also what ``None`` means.
        filters: channels per level, ``None`` for 32, 64, 128, 256, 320, ...
        dropout: probability, after each convolution of the blocks.
        norm_name, act_name: as in MONAI; plain ``"instance"`` has no weights.
        deep_supr_num: number of extra heads.
        vfn: fuse the views by a 3D U-Net on their logits instead of the sum of their features.
        align_views: turn the views back before that network. The published weights need ``False``; new trainings had
            better use ``True``. Only with ``vfn`` (the sum always turns them back).
        trans_bias: transposed convolutions have a bias.
        shift_after: ``both`` convolutions of a block, or the ``second`` only, as in the paper.
        execution: ``fast`` stacks the views of a cube; ``lean`` runs one view after the other in less memory. The
            numbers are equal.

    Raises:
        ConfigError: options that do not fit together.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        *,
        gate_type: str = "tsm",
        gate_pos: Sequence[int] | int | None = None,
        gate_in_bottleneck: bool = True,
        gate_dec: bool = True,
        do_basic: bool = False,
        kernel_size: Sequence[Sequence[int] | int] = ((1, 3, 3),) * 5,
        strides: Sequence[Sequence[int] | int] = ((1, 1, 1),) + ((2, 2, 2),) * 4,
        upsample_kernel_size: Sequence[Sequence[int] | int] | None = None,
        filters: Sequence[int] | None = None,
        dropout: float | None = None,
        norm_name: Name = "instance",
        act_name: Name = LEAKY_RELU,
        deep_supervision: bool = False,
        deep_supr_num: int = 1,
        vfn: bool = False,
        align_views: bool = False,
        trans_bias: bool = True,
        shift_after: str = "both",
        execution: str = "fast",
    ) -> None:
        super().__init__()
        if spatial_dims != 3:
            raise ConfigError(f"SSH-UNet is for volumes: spatial_dims is {spatial_dims}, expected 3.")
        _check_choice("shift_after", shift_after, ("both", "second"))
        _check_choice("execution", execution, ("fast", "lean"))
        kernels, steps, widths, gated = _check_levels(
            kernel_size, strides, upsample_kernel_size, filters, gate_pos, deep_supr_num if deep_supervision else None
        )
        if dropout is not None and not 0 <= dropout < 1:
            raise ConfigError(f"dropout is {dropout}, expected a probability from 0 to below 1.")
        levels = len(widths)
        self.vfn, self.align_views = vfn, align_views
        self.execution = execution
        heads = deep_supr_num if deep_supervision else 0
        # Resolution of level l is the product of the strides up to l, per axis of a view.
        scales = [[math.prod(s[axis] for s in steps[: level + 1]) for axis in range(3)] for level in range(levels)]
        if heads and (align_views or not vfn) and any(len(set(scale)) > 1 for scale in scales[: heads + 1]):
            raise ConfigError("Deep supervision needs equal strides in all axes: the views are merged at every head.")
        self.scales = scales
        self.divisor = scales[-1]
        if vfn:
            self.divisor = [
                math.lcm(scales[-1][axis], *(_VFN_STEP * scales[head][axis] for head in range(heads + 1)))
                for axis in range(3)
            ]
        d, h, w = self.divisor
        self.steps = [math.lcm(d, h, w), math.lcm(d, h), math.lcm(d, w)]  # an axis takes a place in each view
        self.least = d * h * w  # voxels of a volume that keeps one at the bottleneck

        def block(level_in: int, level: int, stride: Triple, has_gate: bool, decoder: bool = False) -> nn.Module:
            channels = in_channels if level_in < 0 else 2 * widths[level] if decoder else widths[level_in]
            common: Any = {"norm_name": norm_name, "act_name": act_name, "dropout": dropout}
            # A decoder step to level l works with the kernel of the level it comes from.
            kernel = kernels[level_in] if decoder else kernels[level]
            if decoder and do_basic and not gate_dec:
                return BasicBlock(channels, widths[level], kernel, stride, **common)
            shift = create_shift(gate_type, widths[level], decoder=decoder) if has_gate else None
            return ShiftResidualBlock(
                channels, widths[level], kernel, stride, shift=shift, shift_first=shift_after == "both", **common
            )

        last = levels - 1
        self.input_block = block(-1, 0, steps[0], True)
        self.downsamples = nn.ModuleList(block(i, i + 1, steps[i + 1], i in gated) for i in range(last - 1))
        self.bottleneck = block(last - 1, last, steps[last], gate_in_bottleneck)
        self.upsamples = nn.ModuleList(
            UpBlock(
                widths[level + 1],
                widths[level],
                steps[level + 1],
                block(level + 1, level, (1, 1, 1), gate_dec and level - 1 in gated, decoder=True),
                bias=trans_bias,
                dropout=dropout,
            )
            for level in reversed(range(last))
        )

        def output(channels: int) -> SumViews | ViewFusionNetwork:
            return (
                ViewFusionNetwork(channels, out_channels, align=align_views)
                if vfn
                else SumViews(channels, out_channels)
            )

        self.output_block = output(widths[0])
        self.deep_supervision_heads = nn.ModuleList(output(widths[i + 1]) for i in range(heads))
        self.needs_voxels = vfn or any(isinstance(m, InstanceNorm) for m in self.bottleneck.modules())
        self.apply(_initialize)

    @classmethod
    def planned_arguments(cls, plan: PlannedFor) -> dict[str, Any]:
        """Three narrow levels for a CPU; else the published five, less where the patch's shortest axis would fall
        below four voxels. Strides are equal in all axes, because the views swap them.
        """
        levels, width = (3, 8) if plan.light else (5, 32)
        while levels > 3 and min(plan.roi_size) < 4 * 2 ** (levels - 1):
            levels -= 1
        return {
            "kernel_size": [[1, 3, 3]] * levels,
            "strides": [[1, 1, 1]] + [[2, 2, 2]] * (levels - 1),
            "filters": [min(width * 2**level, 320) for level in range(levels)],
        }

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        size = list(x.shape[2:])
        padded = self._padded_size(size)
        pads = sizes_are_symbols(x) or padded != size
        if pads:
            d, h, w = [new - old for old, new in zip(size, padded)]
            x = F.pad(x, [0, w, 0, h, 0, d])
        merged: list[Tensor] = []
        if self.execution == "fast" and not sizes_are_symbols(x) and x.shape[2] == x.shape[3] == x.shape[4]:
            merged = self._with_views(merged, torch.cat([swap_view(x, view) for view in range(3)]), [0, 1, 2])
        else:
            for view in range(3):
                merged = self._with_views(merged, swap_view(x, view), [view])
        logits = [self.output_block.fuse(merged[0])]
        for i, head in enumerate(self.deep_supervision_heads):
            if self.training:
                logits.append(head.fuse(merged[i + 1]))  # type: ignore[operator]
        if pads:
            logits = [_crop(one, size, self.scales[i]) for i, one in enumerate(logits)]
        if len(logits) > 1:
            return logits
        return logits[0]

    def _with_views(self, merged: list[Tensor], batch: Tensor, views: list[int]) -> list[Tensor]:
        """What every head has merged so far, and what it makes of more views, stacked on the batch axis."""
        features = self._trunk(planar_layout(batch), 1 + (len(self.deep_supervision_heads) if self.training else 0))
        stacked = [one.unflatten(0, (len(views), -1)) for one in features]
        for row, view in enumerate(views):
            before: list[Tensor | None] = [None for _ in features] if len(merged) == 0 else [one for one in merged]
            merged = [self.output_block.merge(before[0], stacked[0][row], view)]
            for i, head in enumerate(self.deep_supervision_heads):
                if self.training:
                    merged.append(head.merge(before[i + 1], stacked[i + 1][row], view))  # type: ignore[operator]
        return merged

    def _trunk(self, x: Tensor, count: int) -> list[Tensor]:
        """Decoder features of the ``count`` finest levels, finest first, of volumes in a view's frame."""
        skips = [self.input_block(x)]
        for down in self.downsamples:
            skips.append(down(skips[-1]))
        x = self.bottleneck(skips[-1])
        found: list[Tensor] = []
        for up in self.upsamples:
            x = up(x, skips.pop())
            if len(skips) < count:
                found.append(x)
        return found[::-1]

    def _padded_size(self, size: list[int]) -> list[int]:
        """The next size that every view can halve as often as it must, with more than one voxel left to normalise.

        A recording for any size holds the first condition only.
        """
        padded = [-(-n // step) * step for n, step in zip(size, self.steps)]
        if self.vfn and not self.align_views:
            padded = [largest(padded)] * 3  # unaligned views are concatenated, each in its own frame
        few = isinstance(padded[0], int) and padded[0] * padded[1] * padded[2] == self.least
        return [2 * n for n in padded] if self.needs_voxels and few else padded


def _crop(x: Tensor, size: list[int], scale: list[int]) -> Tensor:
    d, h, w = [-(-n // s) for n, s in zip(size, scale)]
    return x[:, :, :d, :h, :w]


def _initialize(module: nn.Module) -> None:
    """Kaiming normal for leaky ReLU 0.01, zero biases: gates start open, unlike in the original GSM and GSF."""
    if isinstance(module, (nn.Conv2d, nn.Conv3d, nn.ConvTranspose3d)):
        nn.init.kaiming_normal_(module.weight, a=0.01)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _check_choice(name: str, value: Any, known: Sequence[str]) -> None:
    if value not in known:
        raise ConfigError(f"No {name} '{value}'.{nearest(str(value), known)} Known: {', '.join(known)}.")


def _triples(name: str, values: Sequence[Sequence[int] | int]) -> list[Triple]:
    if isinstance(values, (int, str)):
        raise ConfigError(f"{name} is {values!r}, expected one entry per level.")
    triples = []
    for value in values:
        triple = (value,) * 3 if isinstance(value, int) else tuple(value)
        if len(triple) != 3 or not all(isinstance(n, int) for n in triple):
            raise ConfigError(f"{name} is {values}, expected one whole number or three per level.")
        triples.append(triple)
    return triples


def _check_levels(
    kernel_size: Sequence[Sequence[int] | int],
    strides: Sequence[Sequence[int] | int],
    upsample_kernel_size: Sequence[Sequence[int] | int] | None,
    filters: Sequence[int] | None,
    gate_pos: Sequence[int] | int | None,
    heads: int | None,
) -> tuple[list[Triple], list[Triple], list[int], set[int]]:
    """Kernels, strides and channels per level, and the gated positions.

    Raises:
        ConfigError: they do not fit together.
    """
    kernels, steps = _triples("kernel_size", kernel_size), _triples("strides", strides)
    levels = len(steps)
    if levels < 3 or len(kernels) != levels:
        raise ConfigError(
            f"kernel_size has {len(kernels)} and strides {levels} entries; expected as many of each, at least 3."
        )
    if any(k < 1 or k % 2 == 0 for kernel in kernels for k in kernel):
        raise ConfigError(f"kernel_size is {kernels}, expected odd numbers.")
    if set(steps[0]) != {1} or any(s not in (1, 2) for stride in steps for s in stride):
        raise ConfigError(f"strides is {steps}, expected (1, 1, 1) first, then 1 or 2 per axis.")
    if upsample_kernel_size is not None and _triples("upsample_kernel_size", upsample_kernel_size) != steps[1:]:
        raise ConfigError(f"upsample_kernel_size is {upsample_kernel_size}, expected strides[1:], {steps[1:]}.")
    widths = [min(2 ** (5 + level), 320) for level in range(levels)] if filters is None else list(filters)
    if len(widths) < levels or any(width < 1 for width in widths):
        raise ConfigError(f"filters is {widths}, expected {levels} positive numbers, one per level.")
    if gate_pos is None:
        gate_pos = range(levels - 2)
    gated = {gate_pos} if isinstance(gate_pos, int) else set(gate_pos)
    if any(position not in range(-1, levels - 2) for position in gated):
        raise ConfigError(
            f"gate_pos is {sorted(gated)}, but with {levels} levels there are positions -1 (the last decoder block) to "
            f"{levels - 3}; drop the others."
        )
    if heads is not None and not 1 <= heads < levels - 1:
        raise ConfigError(f"deep_supr_num is {heads}, expected 1 to {levels - 2} with {levels} levels.")
    return kernels, steps, widths[:levels], gated
