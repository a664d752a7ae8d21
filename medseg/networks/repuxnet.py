"""3D RepUX-Net: large depth-wise kernels without residuals, whose taps learn the slower the farther out they lie
(Lee et al., MICCAI 2023, arXiv 2303.05785).

The learning rates per tap are no part of the network: ``medseg.optimizers.frequency_reparameterized`` brings them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from monai.networks.layers.factories import Norm
from torch import Tensor, nn

from medseg.networks.layers.large_kernel import DepthwiseConv
from medseg.networks.layers.large_kernel_unetr import LargeKernelUNETR
from medseg.networks.registry import register

__all__ = ["RepUXBlock", "RepUXNet"]


class RepUXBlock(nn.Module):
    """``y = GELU(BN(conv(x)))``, a depth-wise convolution with bias; (B, channels, *spatial) -> the same.

    The paper's equation 4 puts the norm first; its figure 2 and the published weights have this order.
    """

    def __init__(self, spatial_dims: int, channels: int, kernel_size: int | Sequence[int], method: str) -> None:
        super().__init__()
        self.conv = DepthwiseConv(spatial_dims, channels, kernel_size, method=method)
        self.norm = Norm[Norm.BATCH, spatial_dims](channels)
        self.act = nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.act(self.norm(self.conv(x)))
        return y


@register(
    "repuxnet",
    title="3D RepUX-Net",
    spatial_dims=(2, 3),
    channels=(1, 5),
    parameters=65827829,
    setting="FLARE 2021, kernel 21, 5 channels",
    paper="Scaling Up 3D Kernels with Bayesian Frequency Re-parameterization, MICCAI 2023, arXiv 2303.05785",
    bf16_time=0.7,
)
class RepUXNet(LargeKernelUNETR):
    """3D RepUX-Net. Sizes, shapes and errors are those of ``LargeKernelUNETR``.

    Args:
        spatial_dims: 2 or 3 (published: 3).
        kernel_size: size of the depth-wise convolutions, odd; one number or one per axis.
        depths: blocks per stage.
        feature_size: channels of the four stages.
        hidden_size: channels of the bottleneck.
        norm_name, res_block: arguments of MONAI's UNETR blocks.
        conv_method: how the depth-wise convolutions are computed, see ``DepthwiseConv``; the results are equal.
    """

    reparameterization: ClassVar[str] = "effective"

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: int | Sequence[int] = 21,
        depths: Sequence[int] = (2, 2, 2, 2),
        feature_size: Sequence[int] = (48, 96, 192, 384),
        hidden_size: int = 768,
        norm_name: str | tuple[Any, ...] = "instance",
        res_block: bool = True,
        conv_method: str = "auto",
    ) -> None:
        super().__init__(
            spatial_dims,
            in_channels,
            out_channels,
            lambda channels, _: RepUXBlock(spatial_dims, channels, kernel_size, conv_method),
            depths=depths,
            feature_size=feature_size,
            hidden_size=hidden_size,
            norm_name=norm_name,
            res_block=res_block,
        )
