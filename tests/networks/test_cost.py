"""Parameters and multiply-adds against sums by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medseg.networks import create_network
from medseg.networks.cost import count_multiply_adds, count_parameters, multiply_adds_of


def test_a_convolution_by_hand() -> None:
    net = nn.Conv3d(4, 8, 3, padding=1, groups=2, bias=True)
    assert count_parameters(net) == 8 * 2 * 27 + 8
    forward = multiply_adds_of(net, (2, 4, 5, 6, 7))
    assert forward.total == 2 * 5 * 6 * 7 * 8 * 2 * 27
    assert forward.by_operation == {"convolution": forward.total}
    # Backward: the gradient of the weights costs as much; the input needs none.
    assert multiply_adds_of(net, (2, 4, 5, 6, 7), training=True).total == 2 * forward.total


def test_fourier_transforms_follow_their_model() -> None:
    x = torch.zeros(3, 8, 16)

    def spectrum() -> Tensor:
        return torch.fft.irfftn(torch.fft.fftn(torch.fft.rfftn(x, dim=(1, 2)), dim=(1,)), s=(8, 16), dim=(1, 2))

    real, inner = 2.5 * 3 * 128 * 7, 5 * 3 * 8 * 9 * 3
    assert count_multiply_adds(spectrum).total == pytest.approx((2 * real + inner) / 2, rel=1e-6)


def test_complex_products_are_four_real_ones() -> None:
    a = torch.zeros(5, 6, 7)
    real = count_multiply_adds(lambda: a @ a.mT).total
    assert real == 5 * 6 * 7 * 6
    assert count_multiply_adds(lambda: a.cfloat() @ a.mT.cfloat()).total == 4 * real


def test_fused_attention_is_counted_forward_and_backward() -> None:
    q = torch.zeros(2, 4, 64, 16, requires_grad=True)
    forward = count_multiply_adds(lambda: F.scaled_dot_product_attention(q, q, q))
    assert forward.total == 2 * 2 * 4 * 64 * 64 * 16
    both = count_multiply_adds(lambda: F.scaled_dot_product_attention(q, q, q).sum().backward())
    assert both.total >= 3 * forward.total


def test_foreign_operators_are_named() -> None:
    @torch.library.custom_op("medseg_test::twice", mutates_args=())
    def twice(x: Tensor) -> Tensor:
        return x * 2

    @twice.register_fake
    def _(x: Tensor) -> Tensor:
        return torch.empty_like(x)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 4)

        def forward(self, x: Tensor) -> Tensor:
            return twice(self.layer(x))

    counted = multiply_adds_of(Net(), (5, 3))
    assert counted.not_counted == ("medseg_test.twice",)
    assert counted.total == 5 * 3 * 4


def test_a_network_that_cannot_run_on_meta_runs_where_it_is() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x) * float(x.sum())

    net = Net().train()
    assert multiply_adds_of(net, (5, 3)).total == 60
    assert net.training


def test_a_registered_network_counts_the_same_on_meta_and_on_the_cpu() -> None:
    levels = {"filters": [4, 4, 4], "strides": [1, 2, 2], "kernel_size": [(1, 3, 3)] * 3}
    net = create_network("ssh_unet", spatial_dims=3, in_channels=1, out_channels=2, **levels).eval()
    counted = multiply_adds_of(net, (1, 1, 8, 8, 8))
    with torch.no_grad():
        real = count_multiply_adds(lambda: net(torch.zeros(1, 1, 8, 8, 8)))
    assert counted.total == real.total
    assert not counted.not_counted
    assert math.log10(counted.total) > 5
