"""Blocks of U-Nets in the manner of MONAI's DynUNet, for features in channels-last memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from monai.networks.layers.utils import get_act_layer, get_norm_layer
from torch import Tensor, cat, nn

from medseg.errors import ConfigError
from medseg.networks.kernels.channels_last import InstanceNorm, PlanarConv

__all__ = ["BasicBlock", "LEAKY_RELU", "Name", "Triple", "UpBlock", "activation", "conv", "dropout_layer", "norm_layer"]

Name = str | Sequence[Any]  # MONAI's way to name a layer: "batch" or ("instance", {"affine": True})
Triple = tuple[int, int, int]  # (slice axis, two in-plane axes)
LEAKY_RELU = ("leakyrelu", {"inplace": True, "negative_slope": 0.01})


def norm_layer(name: Name, channels: int) -> nn.Module:
    """MONAI's normalisation layer of that name; instance norm without running statistics in our faster form.

    Raises:
        ConfigError: MONAI has no such layer, or it refuses the arguments.
    """
    name = name if isinstance(name, str) else tuple(name)
    try:
        layer: nn.Module = get_norm_layer(name=name, spatial_dims=3, channels=channels)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConfigError(
            f"norm_name {name!r} is not valid ({error}); use 'instance', ('instance', {{'affine': True}}), 'batch' or "
            f"another normalisation of MONAI."
        ) from error
    if type(layer) is nn.InstanceNorm3d and not layer.track_running_stats:
        return InstanceNorm(channels, eps=layer.eps, affine=layer.affine)
    return layer


def activation(name: Name) -> nn.Module:
    """MONAI's activation of that name.

    Raises:
        ConfigError: MONAI has no such layer, or it refuses the arguments.
    """
    try:
        layer: nn.Module = get_act_layer(name if isinstance(name, str) else tuple(name))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConfigError(
            f"act_name {name!r} is not valid ({error}); use 'relu', ('leakyrelu', {{'negative_slope': 0.01}}) or "
            f"another activation of MONAI."
        ) from error
    return layer


def dropout_layer(probability: float | None) -> nn.Module:
    """Element-wise dropout; none for ``None`` and 0."""
    return nn.Dropout(probability) if probability else nn.Identity()


def conv(in_channels: int, out_channels: int, kernel_size: Triple, stride: Triple = (1, 1, 1)) -> nn.Conv3d:
    """A convolution without bias that divides sizes by its stride (odd kernels; DynUNet's padding rule)."""
    d, h, w = ((k - s + 1) // 2 for k, s in zip(kernel_size, stride, strict=True))
    kind = PlanarConv if kernel_size[0] == 1 else nn.Conv3d
    return kind(in_channels, out_channels, kernel_size, stride, (d, h, w), bias=False)


class BasicBlock(nn.Module):
    """Convolution, normalisation, activation; twice. (B, in_channels, ...) -> (B, out_channels, ... / stride)."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Triple = (3, 3, 3),
        stride: Triple = (1, 1, 1),
        *,
        norm_name: Name = "instance",
        act_name: Name = LEAKY_RELU,
        dropout: float | None = None,
    ) -> None:
        super().__init__()
        self.conv1 = conv(in_channels, out_channels, kernel_size, stride)
        self.conv2 = conv(out_channels, out_channels, kernel_size)
        self.norm1 = norm_layer(norm_name, out_channels)
        self.norm2 = norm_layer(norm_name, out_channels)
        self.act = activation(act_name)
        self.dropout = dropout_layer(dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.norm1(self.dropout(self.conv1(x))))
        y: Tensor = self.act(self.norm2(self.dropout(self.conv2(x))))
        return y


class UpBlock(nn.Module):
    """Transposed convolution, concatenation (up-sampled features first, then the skip), block."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: Triple,
        block: nn.Module,
        *,
        bias: bool = False,
        dropout: float | None = None,
    ) -> None:
        super().__init__()
        self.up = nn.ConvTranspose3d(in_channels, out_channels, stride, stride, bias=bias)
        self.block = block
        self.dropout = dropout_layer(dropout)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        y: Tensor = self.block(cat((self.dropout(self.up(x)), skip), dim=1))
        return y
