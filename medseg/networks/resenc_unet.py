"""Residual-encoder U-Net, the network of nnU-Net's presets ResEnc M, L and XL (Isensee et al., MICCAI 2024, arXiv
2404.09556).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from monai.networks.blocks import Convolution
from monai.networks.layers.factories import Conv, Pool
from monai.utils import ensure_tuple_rep
from torch import Tensor, nn

from medseg.errors import ConfigError
from medseg.networks.layers.nnunet_topology import BLOCKS, LIGHT_STAGES, features_of, nnunet_topology
from medseg.networks.layers.padding import crop_to, pad_to_multiples
from medseg.networks.registry import PlannedFor, register

__all__ = ["ResEncUNet"]

_NORM = ("instance", {"affine": True, "eps": 1e-5})
_ACT = ("leakyrelu", {"negative_slope": 0.01, "inplace": True})


def _unit(spatial_dims: int, c_in: int, c_out: int, kernel: Sequence[int] | int, **changed: Any) -> Convolution:
    """Convolution, instance norm, leaky ReLU."""
    return Convolution(spatial_dims, c_in, c_out, kernel_size=kernel, norm=_NORM, **{"act": _ACT, **changed})


class ResidualBlock(nn.Module):
    """``act(norm(conv2(unit(x))) + shortcut(x))``; (B, c_in, *spatial) -> (B, c_out, *spatial / stride).

    The shortcut averages over the stride, and adjusts the channels by a 1x1 convolution with norm.
    """

    def __init__(self, spatial_dims: int, c_in: int, c_out: int, kernel: Sequence[int], stride: Sequence[int]) -> None:
        super().__init__()
        self.conv1 = _unit(spatial_dims, c_in, c_out, kernel, strides=stride)
        self.conv2 = _unit(spatial_dims, c_out, c_out, kernel, act=None)
        self.pool = Pool[Pool.AVG, spatial_dims](tuple(stride)) if max(stride) > 1 else nn.Identity()
        adjusts = c_in != c_out
        self.adjust = _unit(spatial_dims, c_in, c_out, 1, act=None, bias=False) if adjusts else nn.Identity()
        self.act = nn.LeakyReLU(0.01, inplace=True)
        nn.init.zeros_(self.conv2.get_parameter("adn.N.weight"))  # the block begins as its shortcut

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.act(self.conv2(self.conv1(x)) + self.adjust(self.pool(x)))
        return y


@register(
    "resenc_unet",
    title="ResEnc U-Net",
    spatial_dims=(2, 3),
    channels=(1, 5),
    parameters=102352185,
    setting="nnU-Net ResEnc L, six stages, 5 channels",
    paper="nnU-Net Revisited, MICCAI 2024, arXiv 2404.09556",
    heads=True,
    bf16_time=0.65,
)
class ResEncUNet(nn.Module):
    """Residual-encoder U-Net of nnU-Net.

    ``x: (B, in_channels, *spatial)``, any size -> logits ``(B, out_channels, *spatial)``. Sizes that the strides do not
    divide are zero-padded at the end of each axis and the logits cropped back. In training with ``deep_supervision``
    the result is a list, finest first, a head per stage but the last, as ``monai.losses.DeepSupervisionLoss`` takes it.

    nnU-Net's presets M, L and XL are this network at patches for three sizes of GPU (``nnunet_patch``).

    Args:
        spatial_dims: 2 or 3.
        strides: per stage, one number or one per axis; the first is 1.
        kernel_sizes: likewise, odd; one number is for all stages.
        features: channels per stage, ``None`` for 32, 64, 128, ... up to 320 (512 in 2D).
        blocks: residual blocks per stage of the encoder, ``None`` for 1, 3, 4, 6, 6, ...
        decoder_convs: convolution units per stage of the decoder.
        deep_supervision: heads on every stage of the decoder in training, as nnU-Net trains.

    Raises:
        ConfigError: arguments that do not fit together.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        *,
        strides: Sequence[Sequence[int] | int] = (1, 2, 2, 2, 2, 2),
        kernel_sizes: Sequence[Sequence[int] | int] | int = 3,
        features: Sequence[int] | None = None,
        blocks: Sequence[int] | None = None,
        decoder_convs: int = 1,
        deep_supervision: bool = True,
    ) -> None:
        super().__init__()
        if spatial_dims not in (2, 3):
            raise ConfigError(f"spatial_dims is {spatial_dims}, expected 2 or 3.")
        stages = len(strides)
        steps = _per_axis(strides, spatial_dims)
        kernels = _per_axis([kernel_sizes] * stages if isinstance(kernel_sizes, int) else kernel_sizes, spatial_dims)
        widths = list(features or features_of(stages, spatial_dims))
        counts = list(blocks or [BLOCKS[min(stage, len(BLOCKS) - 1)] for stage in range(stages)])
        if stages < 2 or not len(kernels) == len(widths) == len(counts) == stages or min(counts) < 1:
            raise ConfigError(
                f"strides has {stages} stages, expected at least two, and as many entries in kernel_sizes "
                f"({len(kernels)}), features ({len(widths)}) and blocks ({len(counts)}, all positive)."
            )
        self.scales = [[math.prod(s) for s in zip(*steps[: stage + 1], strict=True)] for stage in range(stages)]
        self.stem = _unit(spatial_dims, in_channels, widths[0], kernels[0])
        self.encoder = nn.ModuleList(
            nn.Sequential(
                *(
                    ResidualBlock(
                        spatial_dims, width if i else before, width, kernel, [1] * spatial_dims if i else step
                    )
                    for i in range(count)
                )
            )
            for before, width, kernel, step, count in zip(
                [widths[0], *widths], widths, kernels, steps, counts, strict=False
            )
        )
        coarse_to_fine = range(stages - 2, -1, -1)
        self.ups = nn.ModuleList(
            Conv[Conv.CONVTRANS, spatial_dims](
                widths[i + 1], widths[i], tuple(steps[i + 1]), stride=tuple(steps[i + 1])
            )
            for i in coarse_to_fine
        )
        self.decoder = nn.ModuleList(
            nn.Sequential(
                *(
                    _unit(spatial_dims, widths[i] * (1 if number else 2), widths[i], kernels[i])
                    for number in range(decoder_convs)
                )
            )
            for i in coarse_to_fine
        )
        self.heads = nn.ModuleList(
            Conv[Conv.CONV, spatial_dims](width, out_channels, 1)
            for width in (widths[:-1] if deep_supervision else widths[:1])
        )
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)):
                nn.init.kaiming_normal_(module.weight, a=0.01)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    @classmethod
    def planned_arguments(cls, plan: PlannedFor) -> dict[str, Any]:
        """Stages by nnU-Net's rule; on a CPU at most four, a quarter as wide and of fewer blocks."""
        kernels, strides = nnunet_topology(plan.roi_size, plan.spacing, max_stages=LIGHT_STAGES if plan.light else None)
        arguments: dict[str, Any] = {"strides": strides, "kernel_sizes": kernels}
        if plan.light:
            arguments["features"] = features_of(len(strides), plan.spatial_dims, light=True)
            arguments["blocks"] = [1, 2, 2, 2][: len(strides)]
        return arguments

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        size = list(x.shape[2:])
        x = self.stem(pad_to_multiples(x, self.scales[-1], normalizes=True))
        skips: list[Tensor] = []
        for stage in self.encoder:
            x = stage(x)
            skips.append(x)
        x = skips.pop()
        found: list[Tensor] = []
        for up, convs in zip(self.ups, self.decoder):
            x = convs(torch.cat((up(x), skips.pop()), 1))
            found.append(x)
        logits: list[Tensor] = []
        for level, head in enumerate(self.heads):
            if level == 0 or self.training:
                logits.append(crop_to(head(found[-1 - level]), size, self.scales[level]))
        if len(logits) > 1:
            return logits
        return logits[0]


def _per_axis(values: Sequence[Sequence[int] | int], spatial_dims: int) -> list[tuple[int, ...]]:
    return [ensure_tuple_rep(value, spatial_dims) for value in values]
