"""The truncated Hartley transform against FFTs, in slabs, and what is built on it: maps per mode and attention."""

from __future__ import annotations

import pytest
import torch
from reference_neural_operators import clip, corners, dht, inverse_dht, zero_filled
from torch import Tensor

from medseg.errors import ConfigError
from medseg.networks.kernels import blocked_attention
from medseg.networks.kernels.blocked_attention import attend
from medseg.networks.layers.hartley import HartleyGrid, clipped, kept, mirror_sum, padded
from medseg.networks.layers.hartley_attention import HartleyAttention
from medseg.networks.layers.mode_mix import FourierMix, HartleyMix, HartleyOperator

# Odd, even and prime sizes; modes that are few, all that there are, and more than that.
SIZES = [((7, 8, 9), (2, 4, 3)), ((6, 5, 11), (3, 2, 9)), ((12, 9), (3, 4)), ((13, 8), (2, 4))]


def image(size: tuple[int, ...], channels: int = 3) -> Tensor:
    torch.manual_seed(0)
    return torch.randn(2, channels, *size, dtype=torch.float64)


@pytest.mark.parametrize(("size", "num_modes"), SIZES)
def test_equals_the_fft(size: tuple[int, ...], num_modes: tuple[int, ...]) -> None:
    x, modes = image(size), clipped(size, num_modes)
    assert modes == clip(size, num_modes)
    grid = HartleyGrid(size, modes, x)
    found = kept(grid.analyze(x), half=False)
    torch.testing.assert_close(found, corners(dht(x), modes))
    back = grid.synthesize(padded(found, grid.frequencies, half=False))
    torch.testing.assert_close(back, inverse_dht(zero_filled(found, size)))


@pytest.mark.parametrize(("size", "num_modes"), SIZES)
def test_all_modes_give_the_image_back(size: tuple[int, ...], num_modes: tuple[int, ...]) -> None:
    """Of odd sizes, (n - 1) / 2 modes and their mirrors are all; the spectrum holds them."""
    size = tuple(n - 1 + n % 2 for n in size)
    x = image(size)
    grid = HartleyGrid(size, [n // 2 for n in size], x)
    torch.testing.assert_close(grid.synthesize(grid.analyze(x)), x)


@pytest.mark.parametrize(("size", "num_modes"), SIZES)
def test_slabs_add_up(size: tuple[int, ...], num_modes: tuple[int, ...]) -> None:
    x = image(size)
    grid = HartleyGrid(size, clipped(size, num_modes), x)
    slabs = (slice(0, 2), slice(2, 3), slice(3, None))
    spectrum = grid.analyze(x)
    planes = torch.cat([grid.planes(x[:, :, slab]) for slab in slabs], 2)
    torch.testing.assert_close(mirror_sum(grid.products(planes)), spectrum)
    coefficients = grid.coefficients(mirror_sum(spectrum))
    parts = [grid.image(coefficients[:, :, slab]) for slab in slabs]
    torch.testing.assert_close(torch.cat(parts, 2), grid.synthesize(spectrum))


def test_one_voxel_keeps_the_mean() -> None:
    x = image((1, 6))
    grid = HartleyGrid((1, 6), clipped((1, 6), (3, 2)), x)
    modes = kept(grid.analyze(x), half=False)
    assert modes.shape[2:] == (1, 4)
    torch.testing.assert_close(modes, corners(dht(x)[:, :, 0], [2])[:, :, None])
    assert padded(modes, grid.frequencies, half=False).shape[2:] == (1, 5)


def test_float32_is_as_exact_as_an_fft() -> None:
    x = image((31, 61, 61))
    exact = corners(dht(x), [10, 14, 14])
    grid = HartleyGrid(x.shape[2:], [10, 14, 14], x.float())
    error = (kept(grid.analyze(x.float()), half=False) - exact).abs().max()
    assert error < 3e-7 * exact.abs().max()


def test_half_precision() -> None:
    """Images are read and written in half precision, spectra are in float32."""
    x = image((21, 30)).bfloat16()
    grid, exact = HartleyGrid((21, 30), [5, 5], x), HartleyGrid((21, 30), [5, 5], x.float())
    spectrum = exact.analyze(x.float())
    assert grid.analyze(x).dtype == torch.float32 and grid.synthesize(spectrum).dtype == torch.bfloat16
    for found, expected in (
        (grid.analyze(x), spectrum),
        (grid.synthesize(spectrum).float(), exact.synthesize(spectrum)),
    ):
        assert (found - expected).norm() < 2**-8 * expected.norm()


def test_gradients() -> None:
    grid = HartleyGrid((5, 4, 3), [2, 1, 1], image((1,)))
    x = image((5, 4, 3), 1)[:1].requires_grad_()
    assert torch.autograd.gradcheck(grid.analyze, x)
    spectrum = grid.analyze(x).detach().requires_grad_()
    assert torch.autograd.gradcheck(grid.synthesize, spectrum)


# ---------------------------------------------------------------------- maps per mode
def of_one(mix: HartleyMix | FourierMix) -> None:
    """Random weights of order one."""
    for weight in mix.parameters():
        torch.nn.init.normal_(weight)


@pytest.mark.parametrize("size", [(7, 5), (5, 7, 5)])
def test_individual_weights_convolve(size: tuple[int, ...]) -> None:
    """W is the spectrum of the kernel of a circular convolution; without its highest modes, which have no mirror."""
    x, axes = image(size, 1), tuple(range(2, len(size) + 2))
    modes = [n // 2 for n in size]
    grid = HartleyGrid(size, modes, x)
    weight = image(tuple(2 * m - 1 for m in modes), 1)[:1]
    weight = torch.nn.functional.pad(weight, [1] * (2 * len(size)))
    voxels = torch.tensor(size).prod()
    kernel = grid.synthesize(weight) / voxels
    mix = HartleyMix(1, 1, modes, "individual").double()
    with torch.no_grad():
        mix.weight.copy_(kept(weight, half=False))
    spectrum = grid.analyze(x)
    found = grid.synthesize(
        padded(mix(kept(spectrum, half=False), kept(spectrum.flip(axes), half=False)), grid.frequencies, half=False)
    )
    torch.testing.assert_close(
        found, torch.fft.ifftn(torch.fft.fftn(x, dim=axes) * torch.fft.fftn(kernel, dim=axes), dim=axes).real
    )


@pytest.mark.parametrize(("size", "num_modes"), SIZES)
def test_fewer_modes_than_individual_weights(size: tuple[int, ...], num_modes: tuple[int, ...]) -> None:
    """A small image takes the weights of its own modes: the same as a layer made with these alone."""
    x, modes = image(size), clipped(size, num_modes)
    grid = HartleyGrid(size, modes, x)
    more = [m + 2 for m in modes]
    for kind, last in ((HartleyOperator, slice(-modes[-1], None)), (FourierMix, slice(0, 0))):
        large, small = (kind(3, 2, n, "individual").double() for n in (more, modes))
        of_one(large)
        for ours, theirs in zip(small.parameters(), large.parameters(), strict=True):
            value = theirs.detach()
            for axis, m in enumerate(modes[:-1], start=2):
                value = torch.cat((value.narrow(axis, 0, m), value.narrow(axis, value.shape[axis] - m, m)), axis)
            ours.data = torch.cat((value[..., : modes[-1]], value[..., last]), -1)
        found, expected = (mirror_sum(layer(grid.products(grid.planes(x)))) for layer in (large, small))
        if kind is HartleyOperator:  # the small layer knows no weight at +m, by which it would weigh -m
            for axis in range(2, x.dim()):
                found, expected = (value.narrow(axis, 1, value.shape[axis] - 2) for value in (found, expected))
        torch.testing.assert_close(found, expected)


def test_unknown_weights() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'shared'"):
        HartleyMix(1, 1, [2, 2], "shard")


# ---------------------------------------------------------------------- attention
@pytest.mark.parametrize("grad", [False, True])
def test_attention_in_blocks(grad: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = HartleyAttention(4, 2, (2, 1, 2)).double()
    spectrum = image((5, 7, 9), 4).requires_grad_()
    whole = layer(spectrum)
    monkeypatch.setitem(blocked_attention._BLOCK, "cpu", 100)
    with torch.set_grad_enabled(grad):
        blocks = layer(spectrum)
    torch.testing.assert_close(blocks, whole)
    if grad:
        inputs = [spectrum, *layer.parameters()]
        expected = torch.autograd.grad(whole.sin().sum(), inputs)
        torch.testing.assert_close(torch.autograd.grad(blocks.sin().sum(), inputs), expected)


def test_attention_keeps_no_scores_for_the_gradient() -> None:
    """Of 1000 x 1000 scores per head, nothing of that size is saved."""
    query, key, value = (torch.randn(1, 2, 1000, 3, requires_grad=True) for _ in range(3))
    saved: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: saved.append(x.numel()) or x, lambda x: x):
        attend(query, key, value, torch.nn.SELU())
    assert 0 < max(saved) < 1000 * 1000
