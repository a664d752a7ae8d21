"""The skeleton of the neural-operator family: stem, blocks that see the whole volume at once, head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from monai.networks.layers.factories import Conv
from torch import Tensor, nn

from medseg.errors import ConfigError, nearest
from medseg.networks.kernels.mix_channels import mix_channels
from medseg.networks.kernels.slabs import forward_in_slabs
from medseg.networks.layers.conv_units import ConvUnit, conv_in, initialize_selu
from medseg.networks.layers.hartley import HartleyGrid, clipped
from medseg.networks.layers.mode_mix import FourierMix, HartleyMix
from medseg.networks.recording import autocasting, full_precision, recording

__all__ = ["OperatorBlock", "OperatorNetwork", "check_block_skip", "check_modes", "planned_modes"]


def check_modes(num_modes: Sequence[int] | int | None, spatial_dims: int) -> tuple[int, ...]:
    """One number per axis; ``None`` is the published (10, 14, 14), in 2D (14, 14).

    Raises:
        ConfigError: another number of axes, or a number below 1.
    """
    if num_modes is None:
        num_modes = (10, 14, 14)[-spatial_dims:]
    modes = (num_modes,) * spatial_dims if isinstance(num_modes, int) else tuple(num_modes)
    if len(modes) != spatial_dims or not all(isinstance(m, int) and m > 0 for m in modes):
        raise ConfigError(f"num_modes is {num_modes}, expected {spatial_dims} positive numbers, one per axis.")
    return modes


def check_block_skip(block_skip: str | None, known: Sequence[str | None]) -> None:
    """Whether a block's input joins its result in a known way.

    Raises:
        ConfigError: not so.
    """
    if block_skip not in known:
        names = [name for name in known if name is not None]
        raise ConfigError(
            f"No block_skip {block_skip!r}.{nearest(str(block_skip), names)} Known: {', '.join(map(repr, known))}."
        )


def planned_modes(roi_size: Sequence[int]) -> list[int]:
    """A quarter of the voxels of an axis at half resolution, as published for 120 x 120 x 78 voxels; 14 at most."""
    return [min(14, max(1, (n // 2 + 1) // 4)) for n in roi_size]


class OperatorBlock(nn.Module):
    """``merge(T^-1(spectral(T(x))), x)`` with the truncated Hartley transform T; all else is voxel by voxel."""

    def spectral(self, products: Tensor) -> Tensor:
        """Sums over products of cas (B, C, *2m + 1), see ``hartley``, to coefficients of the operator's result."""
        raise NotImplementedError

    def enter(self, x: Tensor, skip: Tensor) -> Tensor:
        """The block's input from the features so far and a skip."""
        raise NotImplementedError

    def merge(self, y: Tensor, x: Tensor) -> Tensor:
        """The operator's result, which may be overwritten, and the block's input, which may not."""
        raise NotImplementedError

    def forward(self, x: Tensor, grid: HartleyGrid) -> Tensor:
        if torch.jit.is_scripting():
            return self.merge(self.operate(x, grid).to(x.dtype), x)
        with full_precision(x):
            y = self.operate(x, grid)
        return self.merge(y.to(x.dtype), x)

    def operate(self, x: Tensor, grid: HartleyGrid) -> Tensor:
        """``T^-1(spectral(T(x)))`` in the type of the grid's images."""
        return grid.image(grid.coefficients(self.spectral(grid.products(grid.planes(x)))))


class OperatorNetwork(nn.Module):
    """Stem, blocks, head.

    ``x: (B, in_channels, *spatial)``, any size -> logits ``(B, out_channels, *spatial)``.

    Args:
        blocks: each takes and returns ``filters`` channels.
        num_modes: per axis; an image with fewer voxels keeps as many modes as it has.
        skips: number of a block -> number of a later block that its result enters.
        resize: work at half resolution (``conv_in``) and upsample the logits.
        deep_supervision: the head reads the features before and after every block, not only the last.
        head_unit: with deep supervision, a unit (bias, activation) comes before the last convolution.
        activation: as in MONAI; every one but SELU comes with normalisation.
    """

    whole_volume: ClassVar[bool] = True  # modes are cycles per field of view: windows would change their meaning
    needs_float32: ClassVar[bool] = False  # so many blocks that rounding to half precision grows beyond bounds

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        *,
        filters: int,
        blocks: Sequence[OperatorBlock],
        num_modes: Sequence[int],
        skips: Mapping[int, int],
        resize: bool,
        deep_supervision: bool,
        head_unit: bool,
        activation: str,
    ) -> None:
        super().__init__()
        self.num_modes = list(num_modes)
        self.enters = [skips.get(number, -1) for number in range(len(blocks))]  # -1: nowhere
        self.filters = filters
        self.deep_supervision = deep_supervision
        self.self_normalizing = activation.lower() == "selu"
        self.conv_in = conv_in(spatial_dims, in_channels, filters, activation) if resize else None
        self.conv1 = ConvUnit(spatial_dims, filters if resize else in_channels, filters, act_name=activation)
        self.layers = nn.ModuleList(blocks)
        width = (len(blocks) + 1) * filters if deep_supervision else filters
        self.conv_ds = None
        if deep_supervision and head_unit:
            self.conv_ds = ConvUnit(spatial_dims, width, out_channels, act_name=activation)
            width = out_channels
        self.conv_out = Conv[Conv.CONV, spatial_dims](width, out_channels, 1, bias=False)
        self.upsampling = {2: "bilinear", 3: "trilinear"}[spatial_dims]
        if self.self_normalizing:
            self.apply(lambda module: initialize_selu(module, (HartleyMix, FourierMix)))

    def modes(self, size: list[int]) -> list[int]:
        """Modes per axis of features of ``size``."""
        return clipped(size, self.num_modes)

    def forward(self, x: Tensor) -> Tensor:
        if torch.jit.is_scripting():
            return self.logits(x)
        if not (self.needs_float32 and autocasting(x)):
            return self.logits(x)
        with full_precision(x):
            return self.logits(x.to(self.conv_out.weight.dtype))

    def logits(self, x: Tensor) -> Tensor:
        """``forward`` in the precision at hand."""
        size = list(x.shape[2:])
        if self.conv_in is not None:
            x = self.conv_in(x)
        head = self.features(x) if torch.jit.is_scripting() else self._cheaper_features(x)
        if self.conv_ds is not None:
            head = self.conv_ds.finish(head)
            head = mix_channels(self.conv_out.weight, None, [head])
        if self.conv_in is not None:  # linear, and so is the last convolution: few channels are upsampled, not many
            head = F.interpolate(head, size=size, mode=self.upsampling, align_corners=False)
        return head

    def _cheaper_features(self, x: Tensor) -> Tensor:
        in_slabs = self.self_normalizing and not (torch.is_grad_enabled() or recording())
        return forward_in_slabs(self, x) if in_slabs else self.features(x)

    def features(self, x: Tensor) -> Tensor:
        """Features of ``conv_in`` -> the head's sum over channels."""
        x = self.conv1(x)
        size = list(x.shape[2:])
        grid = HartleyGrid(size, self.modes(size), x)
        head = self.add_to_head(None, x, 0)
        waiting: dict[int, Tensor] = {}
        for number, block in enumerate(self.layers):
            if number in waiting:
                x = block.enter(x, waiting.pop(number))  # type: ignore[operator]
            x = block(x, grid)
            head = self.add_to_head(head, x, number + 1)
            if self.enters[number] >= 0:
                waiting[self.enters[number]] = x
        assert head is not None
        return head

    def blocks(self) -> list[OperatorBlock]:
        """The blocks in their order."""
        return list(self.layers)  # type: ignore[arg-type]

    def add_to_head(self, head: Tensor | None, x: Tensor, number: int) -> Tensor | None:
        """``head`` plus the part of the head's 1x1 convolution over the features after ``number`` blocks."""
        if self.conv_ds is None:
            weight, bias = self.conv_out.weight, self.conv_out.bias
        else:
            weight, bias = self.conv_ds.op.weight, self.conv_ds.op.bias
        if not self.deep_supervision:
            return mix_channels(weight, None, [x]) if number == len(self.layers) else None
        weight = weight.narrow(1, number * self.filters, self.filters)
        return mix_channels(weight, bias if head is None else head, [x])
