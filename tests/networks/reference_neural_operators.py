"""The neural-operator family in the original's order of operations, as functions over the weights of our networks.

Full complex FFTs of which the corners are cut out, zero-filled spectra, concatenations, all features upsampled before
the last convolution, attention matrices whole: slow, and easy to compare with the description of the networks line by
line. The tests compare values with it, the benchmark time and memory.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medseg.networks.fnoseg import FNOSeg
from medseg.networks.hartley_mha import HartleyMHA
from medseg.networks.hnoseg_xs import HNOSegXS
from medseg.networks.layers.operator_network import OperatorNetwork


def dht(x: Tensor) -> Tensor:
    """The Hartley transform over all spatial axes, divided by the number of voxels."""
    spectrum = torch.fft.fftn(x, dim=tuple(range(2, x.dim())), norm="forward")
    return spectrum.real - spectrum.imag


def inverse_dht(x: Tensor) -> Tensor:
    spectrum = torch.fft.fftn(x, dim=tuple(range(2, x.dim())), norm="backward")
    return spectrum.real - spectrum.imag


def corners(spectrum: Tensor, modes: Sequence[int]) -> Tensor:
    """The blocks 0 ... m-1 and N-m ... N-1 of the leading ``len(modes)`` spatial axes, concatenated."""
    for axis, m in enumerate(modes, start=2):
        n = spectrum.shape[axis]
        spectrum = torch.cat((spectrum.narrow(axis, 0, m), spectrum.narrow(axis, n - m, m)), axis)
    return spectrum


def zero_filled(modes: Tensor, size: Sequence[int]) -> Tensor:
    """The corners put back into a spectrum whose leading axes have ``size``."""
    for axis, n in enumerate(size, start=2):
        m = modes.shape[axis] // 2
        gap = modes.new_zeros(*modes.shape[:axis], n - 2 * m, *modes.shape[axis + 1 :])
        modes = torch.cat((modes.narrow(axis, 0, m), gap, modes.narrow(axis, m, m)), axis)
    return modes


def mirrored(spectrum: Tensor) -> Tensor:
    """A full spectrum at -k: index (N - k) mod N."""
    axes = tuple(range(2, spectrum.dim()))
    return spectrum.flip(axes).roll([1] * len(axes), axes)


def mix(weight: Tensor, x: Tensor, opposite: Tensor) -> Tensor:
    if weight.dim() == 2:
        return torch.einsum("oi,bi...->bo...", weight, x)
    even = torch.einsum("oi...,bi...->bo...", weight, x + opposite)
    return (even + torch.einsum("oi...,bi...->bo...", mirrored(weight), x - opposite)) / 2


def conv(unit: nn.Module, x: Tensor) -> Tensor:
    return F.selu(unit.op(x))


def clip(size: Sequence[int], num_modes: Sequence[int]) -> list[int]:
    return [n // 2 if 2 * m > n else m for n, m in zip(size, num_modes, strict=True)]


def xs_block(net: OperatorNetwork, block: nn.Module, x: Tensor) -> Tensor:
    size = x.shape[2:]
    modes = corners(dht(x), clip(size, net.num_modes))
    for layer in block.conv_blocks:
        modes = F.selu(mix(layer.weight, modes, mirrored(modes)) + modes)
    y = F.selu(inverse_dht(zero_filled(modes, size)))
    return y + x if block.conv_concat is None else conv(block.conv_concat, torch.cat((y, x), 1))


def hartley(net: OperatorNetwork, op: nn.Module, x: Tensor) -> Tensor:
    size = x.shape[2:]
    spectrum, modes = dht(x), clip(size, net.num_modes)
    y = mix(op.weight, corners(spectrum, modes), corners(mirrored(spectrum), modes))
    return inverse_dht(F.selu(zero_filled(y, size)))


def fourier(net: OperatorNetwork, op: nn.Module, x: Tensor) -> Tensor:
    size, axes = x.shape[2:], tuple(range(2, x.dim()))
    *leading, last = clip(size, net.num_modes)
    modes = corners(torch.fft.rfftn(x, dim=axes, norm="forward").narrow(-1, 0, last), leading)
    weight = torch.complex(op.weight_real, op.weight_imag)
    y = torch.einsum("oi,bi...->bo..." if weight.dim() == 2 else "oi...,bi...->bo...", weight, modes)
    y = F.pad(zero_filled(y, size[:-1]), (0, size[-1] // 2 + 1 - last))
    return torch.fft.irfftn(y, s=size, dim=axes, norm="forward")


def attention(net: OperatorNetwork, op: nn.Module, x: Tensor) -> Tensor:
    size = x.shape[2:]
    modes = corners(dht(x), net.modes(size))
    projected = [torch.einsum("zoi,bi...->bzo...", w, modes) for w in (op.weight_query, op.weight_key, op.weight_value)]
    grid, patch = modes.shape[2:], op.patch_size
    query, key, value = (grouped(v, patch) for v in projected)
    scores = F.selu(query.transpose(2, 3) @ key / query.shape[2] ** 0.5)
    y = torch.einsum("bzqk,bzck->bzcq", scores, value)
    y = ungrouped(y, grid, patch).flatten(1, 2)
    return inverse_dht(zero_filled(torch.einsum("oi,bi...->bo...", op.weight_out, y), size))


def grouped(x: Tensor, patch: Sequence[int]) -> Tensor:
    """(B, Z, C, *grid) -> (B, Z, C * patch, tokens), one patch position after the other."""
    parts = []
    for offset in itertools.product(*(range(p) for p in patch)):
        index = tuple(slice(o, None, p) for o, p in zip(offset, patch, strict=True))
        parts.append(x[(slice(None),) * 3 + index].flatten(3))
    return torch.stack(parts, 3).flatten(2, 3)


def ungrouped(x: Tensor, grid: Sequence[int], patch: Sequence[int]) -> Tensor:
    count = 1
    for p in patch:
        count *= p
    tokens = [n // p for n, p in zip(grid, patch, strict=True)]
    x = x.unflatten(2, (-1, count))
    out = x.new_zeros(*x.shape[:3], *grid)
    for number, offset in enumerate(itertools.product(*(range(p) for p in patch))):
        index = tuple(slice(o, None, p) for o, p in zip(offset, patch, strict=True))
        out[(slice(None),) * 3 + index] = x[:, :, :, number].unflatten(3, tokens)
    return out


def operator_block(net: OperatorNetwork, block: nn.Module, x: Tensor) -> Tensor:
    kind = attention if isinstance(net, HartleyMHA) else fourier if isinstance(net, FNOSeg) else hartley
    a = F.selu(kind(net, block.op, x) + block.conv_branch(x))
    if block.conv_concat is not None:
        return conv(block.conv_concat, torch.cat((a, x), 1))
    return a + x if block.adds_input else a


def forward(net: OperatorNetwork, x: Tensor) -> Tensor:
    """Logits of ``net`` with SELU, at the input's size."""
    size = x.shape[2:]
    if net.conv_in is not None:
        x = conv(net.conv_in, x)
    x = conv(net.conv1, x)
    features, stored = [x] if net.deep_supervision else [], {}
    for number, block in enumerate(net.layers):
        if number in net.enters:
            x = conv(block.mapping_conv, torch.cat((x, stored[len(net.layers) - 1 - number]), 1))
        x = (xs_block if isinstance(net, HNOSegXS) else operator_block)(net, block, x)
        if max(net.enters) >= 0 and number < len(net.layers) // 2:
            stored[number] = x
        if net.deep_supervision:
            features.append(x)
    if net.deep_supervision:
        x = torch.cat(features, 1)
        x = x if net.conv_ds is None else conv(net.conv_ds, x)
    if net.conv_in is not None:
        x = F.interpolate(x, size=size, mode=net.upsampling, align_corners=False)
    return net.conv_out(x)
