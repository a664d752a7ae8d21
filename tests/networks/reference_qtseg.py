"""QTSeg in the original's order of operations, as plain functions over the weights of our network.

Contiguous memory, batch norms apart from convolutions, attention as projections, scores, softmax and sum, layer norm
over channels from its formula, transposed convolutions: slow, and easy to compare with the description of the network
line by line. The tests compare values and gradients with it, the benchmark time.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medseg.networks import QTSeg


def _cbs(x: Tensor, layer: nn.Module) -> Tensor:
    return F.silu(layer.norm(layer.conv(x)))


def _c2f(x: Tensor, block: nn.Module) -> Tensor:
    parts = list(_cbs(x, block.split).chunk(2, 1))
    for bottleneck in block.chain:
        y = _cbs(_cbs(parts[-1], bottleneck.conv1), bottleneck.conv2)
        parts.append(parts[-1] + y if bottleneck.shortcut else y)
    return _cbs(torch.cat(parts, 1), block.merge)


def _sppf(x: Tensor, block: nn.Module) -> Tensor:
    parts = [_cbs(x, block.split)]
    for _ in range(3):
        parts.append(F.max_pool2d(parts[-1], 5, 1, 2))
    return _cbs(torch.cat(parts, 1), block.merge)


def encode(x: Tensor, encoder: nn.Module) -> list[Tensor]:
    def twice(y: Tensor) -> Tensor:
        return F.interpolate(y, scale_factor=2, mode="nearest")

    x = _c2f(_cbs(_cbs(x, encoder.stem), encoder.down1), encoder.block1)
    p3 = _c2f(_cbs(x, encoder.down2), encoder.block2)
    p4 = _c2f(_cbs(p3, encoder.down3), encoder.block3)
    p5 = _sppf(_c2f(_cbs(p4, encoder.down4), encoder.block4), encoder.pool)
    n4 = _c2f(torch.cat((twice(p5), p4), 1), encoder.up3)
    out0 = _c2f(torch.cat((twice(n4), p3), 1), encoder.out2)
    out1 = _c2f(torch.cat((_cbs(out0, encoder.lower2), n4), 1), encoder.out3)
    out2 = _c2f(torch.cat((_cbs(out1, encoder.lower3), p5), 1), encoder.out4)
    return [out0, out1, out2]


def distribute(features: list[Tensor], bridge: nn.Module | None) -> list[Tensor]:
    if bridge is None:
        return features
    return [torch.cat([_cbs(f, path) for f, path in zip(features, level, strict=True)], 1) for level in bridge.paths]


def _position_map(frequencies: Tensor, h: int, w: int) -> Tensor:
    ones = torch.ones(h, w, dtype=frequencies.dtype, device=frequencies.device)
    y, x = (ones.cumsum(0) - 0.5) / h, (ones.cumsum(1) - 0.5) / w
    p = 2 * math.pi * ((2 * torch.stack((x, y), dim=-1) - 1) @ frequencies)
    return torch.cat((p.sin(), p.cos()), dim=-1).permute(2, 0, 1)[None]


def _attention(q: Tensor, k: Tensor, v: Tensor, layer: nn.Module) -> Tensor:
    def heads(x: Tensor) -> Tensor:
        return x.reshape(x.shape[0], x.shape[1], layer.num_heads, -1).transpose(1, 2)

    q, k, v = heads(layer.query(q)), heads(layer.key(k)), heads(layer.value(v))
    weights = torch.softmax(q @ k.transpose(2, 3) / math.sqrt(q.shape[3]), dim=-1)
    y = (weights @ v).transpose(1, 2)
    return layer.out(y.reshape(y.shape[0], y.shape[1], -1))


def _rows(x: Tensor) -> Tensor:
    return x.flatten(2).permute(0, 2, 1)


def _two_way(t: Tensor, f: Tensor, pe: Tensor, layer: nn.Module) -> tuple[Tensor, Tensor]:
    k, place = _rows(f), _rows(pe)
    attended = _attention(t, t, t, layer.self_attention)
    t = layer.norm1(attended if layer.first else t + attended)
    t = layer.norm2(t + _attention(t, k + place, k, layer.tokens_to_pixels))
    t = layer.norm3(t + layer.mlp.linear2(F.relu(layer.mlp.linear1(t))))
    k = layer.norm4(k + _attention(k + place, t, t, layer.pixels_to_tokens))
    return t, k.transpose(1, 2).reshape(f.shape)


def _dual_mix(t: Tensor, f: Tensor, pe: Tensor, layer: nn.Module) -> tuple[Tensor, Tensor]:
    g = f + pe
    summary = torch.cat((g.mean(1, keepdim=True), g.max(1, keepdim=True)[0]), 1)
    s = g * torch.sigmoid(layer.spatial_gate.conv(summary)) + g
    x = g.flatten(2)
    likeness = torch.bmm(x, x.permute(0, 2, 1))
    unlike = torch.max(likeness, -1, keepdim=True)[0].expand_as(likeness) - likeness
    c = layer.channel_attention.gamma * torch.bmm(torch.softmax(unlike, -1), x).view(f.shape) + g
    s, c = _rows(s), _rows(c)
    mixed = layer.norm1(_attention(t, s, s, layer.spatial_mix) + _attention(t, c, c, layer.channel_mix) + t)
    back = _attention(s + c + _rows(pe), mixed, mixed, layer.feature_mix)
    t = layer.norm2(layer.mlp.linear2(F.gelu(layer.mlp.linear1(mixed)))) + t
    return t, f + back.transpose(1, 2).reshape(f.shape)


def _norm_channels(x: Tensor, norm: nn.LayerNorm) -> Tensor:
    mean = x.mean(1, keepdim=True)
    var = (x - mean).pow(2).mean(1, keepdim=True)
    return norm.weight[:, None, None] * ((x - mean) / torch.sqrt(var + norm.eps)) + norm.bias[:, None, None]


def decode(features: list[Tensor], decoder: nn.Module) -> tuple[Tensor, Tensor]:
    """Logits at stride 2, and the features that they are products of."""
    tokens = decoder.tokens[None].expand(features[0].shape[0], -1, -1)
    previous: Tensor | float = 0.0
    for number in (2, 1, 0):
        level = decoder.levels[number]
        f = features[number] + previous
        pe = _position_map(level.frequencies, *f.shape[2:])
        entered = tokens
        for layer in level.layers:
            tokens, f = (_two_way if hasattr(layer, "self_attention") else _dual_mix)(tokens, f, pe, layer)
        k = _rows(f)
        attended = _attention(tokens + entered, k + _rows(pe), k, level.final_attention)
        tokens = level.final_norm(tokens + attended)
        for step in decoder.enlarge[number]:
            f = F.gelu(_norm_channels(F.conv_transpose2d(f, step.conv.weight, step.conv.bias, stride=2), step.norm))
        previous = f
        tokens = torch.stack([head(tokens[:, i]) for i, head in enumerate(level.heads)], dim=1)
    b, c, h, w = f.shape
    return (tokens @ f.view(b, c, h * w)).view(b, -1, h, w), f


def forward(net: QTSeg, x: Tensor) -> Tensor:
    """Logits; sizes that 32 divides only."""
    low, _ = decode(distribute(encode(x, net.encoder), net.bridge), net.decoder)
    return F.interpolate(low, x.shape[2:], mode="bilinear", align_corners=False)
