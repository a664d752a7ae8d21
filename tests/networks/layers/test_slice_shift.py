"""Shifts: closed-form directions, gradients, and the operators for channels-last memory that they stand on."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from medseg.errors import ConfigError
from medseg.networks.kernels.channels_last import PointwiseConv, channels_last, instance_norm
from medseg.networks.layers.slice_shift import GSM, TSM, create_shift, shift_slices

FORMATS = [torch.contiguous_format, torch.channels_last_3d]


def test_tsm_moves_the_first_quarter_up_and_the_last_down() -> None:
    x = torch.arange(1.0, 4.0).view(1, 1, 3, 1, 1).repeat(1, 9, 1, 1, 1)  # slices 1, 2, 3 in each of 9 channels
    y = TSM(9)(x)[0, :, :, 0, 0]
    assert y[:2].tolist() == [[0, 1, 2]] * 2
    assert y[2:7].tolist() == [[1, 2, 3]] * 5
    assert y[7:].tolist() == [[2, 3, 0]] * 2


def test_shift_of_a_single_slice_is_zero() -> None:
    x = torch.ones(1, 4, 1, 2, 2)
    assert shift_slices(x, up=True).abs().sum() == 0
    assert TSM(4)(x)[0, :, 0, 0, 0].tolist() == [0, 1, 1, 0]


@pytest.mark.parametrize("decoder", [False, True])
def test_open_gates_move_the_groups_apart(decoder: bool) -> None:
    gsm = GSM(2, decoder=decoder)
    torch.nn.init.zeros_(gsm.gate.weight)
    torch.nn.init.constant_(gsm.gate.bias, 50.0)  # tanh is 1: everything moves
    x = torch.arange(1.0, 4.0).view(1, 1, 3, 1, 1).repeat(1, 2, 1, 2, 2)
    up, down = [0, 1, 2], [2, 3, 0]
    assert gsm(x)[0, :, :, 0, 0].tolist() == ([up, down] if decoder else [down, up])


@pytest.mark.parametrize("memory", FORMATS)
@pytest.mark.parametrize("kind", ["tsm", "gsm", "gsf"])
def test_gradients(kind: str, memory: torch.memory_format) -> None:
    torch.manual_seed(0)
    shift = create_shift(kind, 8).double()
    x = torch.randn(2, 8, 3, 2, 3, dtype=torch.float64).contiguous(memory_format=memory).requires_grad_()
    assert torch.autograd.gradcheck(shift, (x,))


@pytest.mark.parametrize(("kind", "channels"), [("tsm", 3), ("gsm", 5), ("gsf", 3)])
def test_channels_that_cannot_be_divided(kind: str, channels: int) -> None:
    with pytest.raises(ConfigError, match=str(channels)):
        create_shift(kind, channels)


def test_gsf_counts_an_even_quarter() -> None:
    assert [create_shift("gsf", c).gated for c in (4, 12, 20, 32, 320)] == [2, 4, 6, 8, 80]


@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("shape", [(2, 3, 4, 5, 6), (1, 40, 17, 16, 16)])
def test_instance_norm_in_channels_last_memory(shape: tuple[int, ...], affine: bool) -> None:
    torch.manual_seed(1)
    x = (torch.randn(shape, dtype=torch.float64) * 2 + 5).requires_grad_()
    weight, bias = (torch.randn(shape[1], dtype=torch.float64, requires_grad=True) if affine else None for _ in "wb")
    expected = F.instance_norm(x, weight=weight, bias=bias)
    grad = torch.randn_like(x)
    leaves = [t for t in (x, weight, bias) if t is not None]
    theirs = torch.autograd.grad(expected, leaves, grad)
    ours = instance_norm(channels_last(x), weight, bias)
    for a, b in zip(torch.autograd.grad(ours, leaves, grad), theirs, strict=True):
        torch.testing.assert_close(a, b)
    torch.testing.assert_close(ours, expected)
    with torch.no_grad():
        copy = channels_last(x).clone(memory_format=torch.preserve_format)
        torch.testing.assert_close(instance_norm(copy, weight, bias, inplace=True), expected)


def test_instance_norm_of_one_voxel_is_refused() -> None:
    with pytest.raises(ValueError, match="more than"):
        instance_norm(channels_last(torch.ones(1, 2, 1, 1, 1)))


def test_pointwise_convolution_with_stride() -> None:
    torch.manual_seed(2)
    conv = PointwiseConv(3, 5, (1, 2, 2)).double()
    x = torch.randn(2, 3, 3, 4, 6, dtype=torch.float64)
    expected = F.conv3d(x, conv.weight, conv.bias, conv.stride)
    torch.testing.assert_close(conv(channels_last(x)), expected)
    torch.testing.assert_close(conv(x), expected)
