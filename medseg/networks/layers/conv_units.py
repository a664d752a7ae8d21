"""Convolution, optional normalisation, activation: the unit of the neural-operator family and of V-Net-DS.

Self-normalising networks (SELU, Klambauer et al. 2017) have no normalisation layers; with any other activation a unit
normalises over all channels and voxels (group norm of one group).
"""

from __future__ import annotations

from collections.abc import Sequence

from monai.networks.layers.factories import Conv
from torch import Tensor, nn

from medseg.networks.kernels.mix_channels import mix_channels
from medseg.networks.kernels.selu import SELU
from medseg.networks.layers.unet_blocks import activation

__all__ = ["ConvUnit", "activation_layer", "conv_in", "initialize_selu"]

_IN_PLACE = ("relu", "leakyrelu", "elu")  # their gradients need the result only


def activation_layer(name: str, *, features: bool = False) -> nn.Module:
    """MONAI's activation of that name; it may overwrite its input.

    ``features``: for values of order one, unlike spectra and scores; SELU is in its fast form then.

    Raises:
        ConfigError: MONAI has no such layer.
    """
    if name.lower() == "selu":
        return SELU(fast=features)
    return activation((name, {"inplace": True}) if name.lower() in _IN_PLACE else name)


class ConvUnit(nn.Module):
    """``act(norm(conv(x)))``; a 1x1 unit takes two inputs in place of their concatenation.

    Args:
        kernel_size, stride: equal in all axes. Stride 1 keeps sizes; stride 2 pads by ``kernel_size // 2``.
        act_name: as in MONAI.
        norm: group norm of one group, with weights; ``None``: unless the activation is SELU.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 1,
        *,
        stride: int = 1,
        act_name: str = "selu",
        norm: bool | None = None,
    ) -> None:
        super().__init__()
        padding: str | int = "same" if stride == 1 else kernel_size // 2
        conv = Conv[Conv.CONV, spatial_dims]
        self.op = conv(in_channels, out_channels, kernel_size, stride=stride, padding=padding)
        self.pointwise = kernel_size == 1 and stride == 1
        normalize = act_name.lower() != "selu" if norm is None else norm
        self.normalization = nn.GroupNorm(1, out_channels) if normalize else None
        self.act = activation_layer(act_name, features=True)

    def forward(self, x: Tensor, second: Tensor | None = None) -> Tensor:
        if not self.pointwise:
            return self.finish(self.op(x))
        return self.finish(mix_channels(self.op.weight, self.op.bias, [x] if second is None else [x, second]))

    def finish(self, y: Tensor) -> Tensor:
        """What comes after the convolution."""
        x: Tensor = self.act(y if self.normalization is None else self.normalization(y))
        return x


def conv_in(
    spatial_dims: int, in_channels: int, out_channels: int, act_name: str, *, norm: bool | None = None
) -> ConvUnit:
    """The learned halving of the input: kernel 2, stride 2, padding 1, so n voxels become floor(n / 2) + 1 [parity].

    The first position of the kernel reaches one voxel over the border, which shifts the grid by half a voxel
    against the upsampling.
    """
    return ConvUnit(spatial_dims, in_channels, out_channels, 2, stride=2, act_name=act_name, norm=norm)


def initialize_selu(module: nn.Module, extra: Sequence[type[nn.Module]] = ()) -> None:
    """N(0, 1 / fan_in) weights and U(-0.001, 0.001) biases of convolutions and of the layers of the ``extra`` types.

    ``fan_in`` by torch's rule, that is ``out_channels`` times the kernel for transposed convolutions [parity].
    """
    convs = tuple(Conv[kind, dims] for kind in (Conv.CONV, Conv.CONVTRANS) for dims in (2, 3))
    if isinstance(module, (*convs, *extra)):
        for name, parameter in module.named_parameters(recurse=False):
            if name == "bias":
                nn.init.uniform_(parameter, -0.001, 0.001)
            else:
                nn.init.kaiming_normal_(parameter, nonlinearity="linear")
