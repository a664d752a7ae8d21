"""V-Net-DS: a V-Net whose head reads the features of all decoder levels (MICCAI 2018, arXiv 1809.00076)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from monai.networks.layers.factories import Conv
from torch import Tensor, nn

from medseg.errors import ConfigError
from medseg.networks.kernels.mix_channels import mix_channels
from medseg.networks.layers.conv_units import ConvUnit, activation_layer, conv_in, initialize_selu
from medseg.networks.registry import PlannedFor, register

__all__ = ["VNetDS"]


class Section(nn.Module):
    """Convolution units beside a 1x1 unit; their sum is not activated again."""

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        count: int,
        kernel_size: int,
        *,
        residual: bool,
        **unit: Any,
    ) -> None:
        super().__init__()
        self.units = nn.ModuleList(
            ConvUnit(spatial_dims, out_channels if i else in_channels, out_channels, kernel_size, **unit)
            for i in range(count)
        )
        self.shortcut = ConvUnit(spatial_dims, in_channels, out_channels, **unit) if residual else None

    def forward(self, x: Tensor, second: Tensor | None = None) -> Tensor:
        """One or two inputs (B, C_i, *spatial), as if concatenated -> (B, out_channels, *spatial)."""
        y = x if second is None else torch.cat((x, second), 1)
        for unit in self.units:
            y = unit(y)
        return y if self.shortcut is None else y + self.shortcut(x, second)


class UpUnit(nn.Module):
    """Transposed convolution that doubles sizes, normalised unless the activation is SELU [parity], activated."""

    def __init__(self, spatial_dims: int, in_channels: int, out_channels: int, act_name: str) -> None:
        super().__init__()
        conv = Conv[Conv.CONVTRANS, spatial_dims]
        self.op = conv(in_channels, out_channels, 3, stride=2, padding=1, output_padding=1)
        self.normalization = None if act_name.lower() == "selu" else nn.GroupNorm(1, out_channels)
        self.act = activation_layer(act_name, features=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.op(x)
        y: Tensor = self.act(x if self.normalization is None else self.normalization(x))
        return y


@register(
    "vnet_ds",
    title="V-Net-DS",
    spatial_dims=(2, 3),
    channels=(4, 4),
    parameters=22547764,
    setting="BraTS 2023, 4 channels in and out",
    paper="3D Segmentation with Exponential Logarithmic Loss, MICCAI 2018, arXiv 1809.00076",
)
class VNetDS(nn.Module):
    """V-Net with deep supervision by fusion of features; there are no auxiliary losses.

    ``x: (B, in_channels, *spatial)``, any size -> logits ``(B, out_channels, *spatial)``. Group norms and the published
    protocol are of whole volumes.

    Args:
        spatial_dims: 2 or 3.
        filters: channels of the finest level; they double with each level.
        num_blocks: convolution units per level, finest first.
        fused_levels: levels whose features the head reads, with 0, the finest; ``None`` for level 0 alone without the
            fusing unit.
        kernel_size: size of the units' kernels.
        resize: work at half resolution.
        residual: levels are residual.
        activation: as in MONAI.
        self_normalizing: no normalisation layers and SELU's initialisation; with ``activation="selu"`` only.

    Raises:
        ConfigError: options that do not fit together.
    """

    whole_volume: ClassVar[bool] = True

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        *,
        filters: int = 24,
        num_blocks: Sequence[int] = (1, 2, 3, 3, 3),
        fused_levels: Sequence[int] | None = (0, 1, 2, 3, 4),
        kernel_size: int = 3,
        resize: bool = True,
        residual: bool = True,
        activation: str = "elu",
        self_normalizing: bool = False,
    ) -> None:
        super().__init__()
        levels = len(num_blocks)
        if not levels or min(num_blocks) < 1:
            raise ConfigError(f"num_blocks is {list(num_blocks)}, expected a positive number per level.")
        fused = [] if fused_levels is None else sorted(set(fused_levels), reverse=True)  # coarsest first, as published
        if fused and (fused[-1] != 0 or fused[0] >= levels):
            raise ConfigError(
                f"fused_levels is {list(fused_levels or ())}, expected 0 and other levels below {levels}."
            )
        if self_normalizing and activation.lower() != "selu":
            raise ConfigError(f"self_normalizing needs activation 'selu', not '{activation}'; leave one out.")
        unit: dict[str, Any] = {"act_name": activation, "norm": not self_normalizing}
        section: dict[str, Any] = {"residual": residual, **unit}
        widths = [filters * 2**level for level in range(levels)]
        self.conv_in = conv_in(spatial_dims, in_channels, filters, **unit) if resize else None
        entering = [filters if resize else in_channels, *widths]
        self.encoders = nn.ModuleList(
            Section(spatial_dims, entering[i], widths[i], num_blocks[i], kernel_size, **section) for i in range(levels)
        )
        finer = range(levels - 1)
        self.downs = nn.ModuleList(ConvUnit(spatial_dims, widths[i], widths[i], 3, stride=2, **unit) for i in finer)
        self.downs.append(nn.Identity())  # the coarsest level ends there
        self.ups = nn.ModuleList(UpUnit(spatial_dims, widths[i + 1], widths[i], activation) for i in finer)
        self.decoders = nn.ModuleList(
            Section(spatial_dims, 2 * widths[i], widths[i], num_blocks[i], kernel_size, **section) for i in finer
        )
        self.fused = fused if len(fused) > 1 else []
        self.offsets = [sum(widths[i] for i in fused if i > level) for level in range(levels)]  # channels before it
        self.conv_ds = None
        if self.fused:
            self.conv_ds = ConvUnit(spatial_dims, sum(widths[i] for i in fused), out_channels, **unit)
        self.conv_out = Conv[Conv.CONV, spatial_dims](
            out_channels if self.fused else filters, out_channels, 1, bias=False
        )
        self.upsampling = {2: "bilinear", 3: "trilinear"}[spatial_dims]
        if self_normalizing:
            self.apply(initialize_selu)

    @classmethod
    def planned_arguments(cls, plan: PlannedFor) -> dict[str, Any]:
        """The published network, on a CPU of eight channels; less levels where an axis would fall below two voxels."""
        num_blocks = [1, 2, 3, 3, 3]
        while len(num_blocks) > 1 and min(plan.roi_size) < 2 ** (len(num_blocks) + 1):
            num_blocks.pop()
        light = {"filters": 8} if plan.light else {}
        return {**light, "num_blocks": num_blocks, "fused_levels": list(range(len(num_blocks)))}

    def forward(self, x: Tensor) -> Tensor:
        size = list(x.shape[2:])
        if self.conv_in is not None:
            x = self.conv_in(x)
        resolution = list(x.shape[2:])
        skips: list[Tensor] = []
        for encoder, down in zip(self.encoders, self.downs):
            skips.append(encoder(x))
            x = down(skips[-1])
        x = skips.pop()
        head = self._fuse(None, x, len(skips), resolution)
        for level in range(len(skips) - 1, -1, -1):
            x = self._decode(x, skips.pop(), level)
            head = self._fuse(head, x, level, resolution)
        if self.conv_ds is not None and head is not None:
            x = self.conv_ds.finish(head)
        x = mix_channels(self.conv_out.weight, None, [x])
        if self.conv_in is not None:
            x = F.interpolate(x, size=size, mode=self.upsampling, align_corners=False)
        return x

    def _decode(self, x: Tensor, skip: Tensor, level: int) -> Tensor:
        """Features of the next coarser level, and of this one's encoder -> of its decoder."""
        y = x
        for number, (up, decoder) in enumerate(zip(self.ups, self.decoders)):
            if number == level:  # a script indexes no modules
                y = up(x)
                for axis, n in enumerate(skip.shape[2:]):
                    y = y.narrow(axis + 2, 0, n)  # of an odd size, doubling its half gives one voxel too many
                y = decoder(y, skip)
        return y

    def _fuse(self, head: Tensor | None, x: Tensor, level: int, size: list[int]) -> Tensor | None:
        """``head`` plus a level's part of the fusing 1x1 convolution, which is done before upsampling."""
        if self.conv_ds is None or level not in self.fused:
            return head
        weight = self.conv_ds.op.weight.narrow(1, self.offsets[level], x.shape[1])
        x = mix_channels(weight, self.conv_ds.op.bias if head is None else None, [x])
        x = F.interpolate(x, size=size, mode="nearest") if level else x
        return x if head is None else head + x
