"""SSH-UNet in the original's order of operations, as plain functions over the weights of our network.

Contiguous memory, all views in one batch, every shift out of place, torch's own operators: slow, and easy to compare
with the description of the network line by line. The tests compare values and gradients with it, the benchmark time
and memory.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medseg.networks import SSHUNet


def tsm(x: Tensor) -> Tensor:
    fold = x.shape[1] // 4
    y = torch.zeros_like(x)
    y[:, :fold, 1:] = x[:, :fold, :-1]
    y[:, -fold:, :-1] = x[:, -fold:, 1:]
    y[:, fold:-fold] = x[:, fold:-fold]
    return y


def _move(x: Tensor, up: bool) -> Tensor:
    y = torch.zeros_like(x)
    if up:
        y[:, :, 1:] = x[:, :, :-1]
    else:
        y[:, :, :-1] = x[:, :, 1:]
    return y


def _gates(x: Tensor, weights: nn.Module) -> list[Tensor]:
    normed = F.leaky_relu(F.instance_norm(x), 0.1)
    gate = torch.tanh(F.conv3d(normed, weights.gate.weight, weights.gate.bias, padding=1, groups=2))
    return [gate[:, :1], gate[:, 1:]]


def gsm(x: Tensor, weights: nn.Module, decoder: bool) -> Tensor:
    half = x.shape[1] // 2
    out = []
    for part, gate, up in zip((x[:, :half], x[:, half:]), _gates(x, weights), (decoder, not decoder), strict=True):
        y = gate * part
        rest = part - y
        out.append(_move(y, up) + rest)
    return torch.cat(out, dim=1)


def gsf(x: Tensor, weights: nn.Module, decoder: bool) -> Tensor:
    count = int(0.25 * x.shape[1])
    count += count % 2
    head, rest_of_channels = x[:, :count], x[:, count:]
    half = count // 2
    out = []
    gates = _gates(head, weights)
    for group, up in ((0, decoder), (1, not decoder)):
        part = head[:, group * half : (group + 1) * half]
        y = gates[group] * part
        rest = part - y
        y = _move(y, up)
        image = torch.stack((y.mean((3, 4)), rest.mean((3, 4))), dim=1)
        fusion = weights.fusion[group]
        w = torch.sigmoid(F.conv2d(image, fusion.weight, fusion.bias, padding=1))[:, 0, :, :, None, None]
        out.append(y * w + rest * (1 - w))
    return torch.cat((*out, rest_of_channels), dim=1)


def shift(x: Tensor, weights: nn.Module, decoder: bool) -> Tensor:
    kind = type(weights).__name__
    if kind == "Identity":
        return x
    return tsm(x) if kind == "TSM" else gsm(x, weights, decoder) if kind == "GSM" else gsf(x, weights, decoder)


def _norm(x: Tensor, layer: nn.Module) -> Tensor:
    if isinstance(layer, nn.InstanceNorm3d):
        return F.instance_norm(x, weight=layer.weight, bias=layer.bias, eps=layer.eps)
    return layer(x)


def _conv(x: Tensor, layer: nn.Conv3d) -> Tensor:
    return F.conv3d(x, layer.weight, layer.bias, layer.stride, layer.padding)


def _lrelu(x: Tensor) -> Tensor:
    return F.leaky_relu(x, 0.01, inplace=True)


def _basic(x: Tensor, block: nn.Module) -> Tensor:
    x = _lrelu(_norm(_conv(x, block.conv1), block.norm1))
    return _lrelu(_norm(_conv(x, block.conv2), block.norm2))


def _residual(x: Tensor, block: nn.Module, decoder: bool) -> Tensor:
    h = _conv(x, block.conv1)
    if block.shift_first:
        h = shift(h, block.shift, decoder)
    h = _conv(_lrelu(_norm(h, block.norm1)), block.conv2)
    h = shift(h, block.shift, decoder)
    if block.conv3 is not None:
        x = _norm(_conv(x, block.conv3), block.norm3)
    h += x
    return _lrelu(_norm(h, block.norm2))


def _block(x: Tensor, block: nn.Module, decoder: bool = False) -> Tensor:
    return _residual(x, block, decoder) if hasattr(block, "shift") else _basic(x, block)


def _up(x: Tensor, skip: Tensor, up: nn.Module) -> Tensor:
    x = F.conv_transpose3d(x, up.up.weight, up.up.bias, stride=up.up.stride)
    x = torch.cat((x, skip), dim=1)
    return _block(x, up.block, decoder=True)


def _output(x: Tensor, block: nn.Module) -> Tensor:
    if not hasattr(block, "out"):
        first, second, third = x.chunk(3)
        merged = first + second.transpose(2, 3) + third.transpose(2, 4)
        return _conv(_lrelu(F.instance_norm(_conv(merged, block.conv1))), block.conv)
    views = list(_conv(x, block.conv).chunk(3))
    if block.align:
        views = [views[0], views[1].transpose(2, 3), views[2].transpose(2, 4)]
    full = torch.cat(views, dim=1)
    half = _basic(full, block.conv1)
    quarter = _basic(half, block.conv2)
    deep = _up(_basic(quarter, block.bottleneck), quarter, block.up2)
    return _conv(_up(_up(deep, half, block.up1), full, block.up), block.out)


def forward(net: SSHUNet, x: Tensor) -> list[Tensor]:
    """Logits at full resolution, then those of the deep supervision heads; cubes of divisible size only."""
    x = torch.cat((x, x.transpose(2, 3), x.transpose(2, 4)))
    skips = [_block(x, net.input_block)]
    for down in net.downsamples:
        skips.append(_block(skips[-1], down))
    x = _block(skips[-1], net.bottleneck)
    decoded: list[Tensor] = []
    for up in net.upsamples:
        x = _up(x, skips.pop(), up)
        decoded = [x, *decoded][: 1 + len(net.deep_supervision_heads)]
    heads = [_output(x, net.output_block)]
    return heads + [_output(f, h) for f, h in zip(decoded[1:], net.deep_supervision_heads, strict=False)]
