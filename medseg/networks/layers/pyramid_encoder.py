"""A convolutional feature pyramid with the layers of YOLOv8 without its detection head (QTSeg, arXiv 2412.17241)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["ConvNormAct", "PyramidEncoder"]


class ConvNormAct(nn.Module):
    """Convolution without bias, batch norm, SiLU; ``transposed`` enlarges by its kernel size instead.

    ``padding``: default half the kernel.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 1,
        stride: int = 1,
        padding: int | None = None,
        *,
        transposed: bool = False,
    ) -> None:
        super().__init__()
        self.conv: nn.Conv2d | nn.ConvTranspose2d
        if transposed:
            self.conv = nn.ConvTranspose2d(in_channels, out_channels, kernel_size, kernel_size, bias=False)
        else:
            padding = kernel_size // 2 if padding is None else padding
            self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(self.norm(self.conv(x)), inplace=not torch.is_grad_enabled())


class Bottleneck(nn.Module):
    """Two 3 x 3 convolutions, with a residual where ``shortcut``."""

    def __init__(self, channels: int, *, shortcut: bool) -> None:
        super().__init__()
        self.conv1 = ConvNormAct(channels, channels, 3)
        self.conv2 = ConvNormAct(channels, channels, 3)
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv2(self.conv1(x))
        return x + y if self.shortcut else y


class CrossStageBlock(nn.Module):
    """YOLOv8's C2f: two halves, a chain of bottlenecks on the second, and a 1 x 1 convolution over all of their
    results.
    """

    def __init__(self, in_channels: int, out_channels: int, repeats: int, *, shortcut: bool) -> None:
        super().__init__()
        half = out_channels // 2
        self.split = ConvNormAct(in_channels, 2 * half)
        self.chain = nn.ModuleList(Bottleneck(half, shortcut=shortcut) for _ in range(repeats))
        self.merge = ConvNormAct((2 + repeats) * half, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        parts = list(self.split(x).chunk(2, dim=1))
        for bottleneck in self.chain:
            parts.append(bottleneck(parts[-1]))
        y: Tensor = self.merge(torch.cat(parts, dim=1))
        return y


class PyramidPooling(nn.Module):
    """YOLOv8's SPPF: three chained 5 x 5 maxima beside the features themselves."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.split = ConvNormAct(channels, channels // 2)
        self.merge = ConvNormAct(2 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        parts = [self.split(x)]
        for _ in range(3):
            parts.append(F.max_pool2d(parts[-1], 5, stride=1, padding=2))
        y: Tensor = self.merge(torch.cat(parts, dim=1))
        return y


class PyramidEncoder(nn.Module):
    """``x: (B, in_channels, H, W)``, H and W multiples of 32 -> features of 4, 8 and 16 times ``width`` channels at
    strides 8, 16 and 32.
    """

    def __init__(self, in_channels: int, width: int = 16) -> None:
        super().__init__()
        n = width
        self.stem = ConvNormAct(in_channels, n, 3, 2)
        self.down1 = ConvNormAct(n, 2 * n, 3, 2)
        self.block1 = CrossStageBlock(2 * n, 2 * n, 1, shortcut=True)
        self.down2 = ConvNormAct(2 * n, 4 * n, 3, 2)
        self.block2 = CrossStageBlock(4 * n, 4 * n, 2, shortcut=True)
        self.down3 = ConvNormAct(4 * n, 8 * n, 3, 2)
        self.block3 = CrossStageBlock(8 * n, 8 * n, 2, shortcut=True)
        self.down4 = ConvNormAct(8 * n, 16 * n, 3, 2)
        self.block4 = CrossStageBlock(16 * n, 16 * n, 1, shortcut=True)
        self.pool = PyramidPooling(16 * n)
        self.up3 = CrossStageBlock(24 * n, 8 * n, 1, shortcut=False)
        self.out2 = CrossStageBlock(12 * n, 4 * n, 1, shortcut=False)
        self.lower2 = ConvNormAct(4 * n, 4 * n, 3, 2)
        self.out3 = CrossStageBlock(12 * n, 8 * n, 1, shortcut=False)
        self.lower3 = ConvNormAct(8 * n, 8 * n, 3, 2)
        self.out4 = CrossStageBlock(24 * n, 16 * n, 1, shortcut=False)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.block1(self.down1(self.stem(x)))
        stride8 = self.block2(self.down2(x))
        stride16 = self.block3(self.down3(stride8))
        stride32 = self.pool(self.block4(self.down4(stride16)))
        merged = self.up3(torch.cat((_twice(stride32), stride16), dim=1))
        fine = self.out2(torch.cat((_twice(merged), stride8), dim=1))
        middle = self.out3(torch.cat((self.lower2(fine), merged), dim=1))
        coarse = self.out4(torch.cat((self.lower3(middle), stride32), dim=1))
        return [fine, middle, coarse]


def _twice(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="nearest")
