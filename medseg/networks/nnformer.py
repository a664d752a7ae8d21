"""nnFormer: a U-shaped transformer of volume windows whose decoder asks the skips by attention (Zhou et al., IEEE TIP
2023, arXiv 2109.03201).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from monai.networks.layers.factories import Conv
from monai.utils import ensure_tuple_rep
from torch import Tensor, nn

from medseg.errors import ConfigError
from medseg.networks.layers.large_kernel_unetr import ChannelNorm
from medseg.networks.layers.padding import crop_to, pad_to_multiples
from medseg.networks.layers.window_attention import WindowBlock
from medseg.networks.registry import PlannedFor, register

__all__ = ["NNFormer"]

_EPS = 1e-5


class Stage(nn.Sequential):
    """Attention blocks on windows of features (B, C, *grid); the first block joins a skip of the same shape."""

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        x = x.movedim(1, -1)
        context = None if skip is None else skip.movedim(1, -1)
        for block in self:
            x = block(x, context)
            context = None
        return x.movedim(-1, 1)


@register(
    "nnformer",
    title="nnFormer",
    spatial_dims=(2, 3),
    channels=(1, 5),
    parameters=149265629,
    setting="FLARE 2021, patch 96, 5 channels",
    paper="nnFormer: Volumetric Medical Image Segmentation via a 3D Transformer, IEEE TIP 2023, arXiv 2109.03201",
    heads=True,
)
class NNFormer(nn.Module):
    """nnFormer.

    ``x: (B, in_channels, *spatial)``, any size -> logits ``(B, out_channels, *spatial)``. Sizes that ``patch_size``
    times 2 per further stage does not divide are zero-padded at the end of each axis and the logits cropped back. In
    training with ``deep_supervision`` the result is a list: full resolution first, then a half, a quarter, ..., as
    ``monai.losses.DeepSupervisionLoss`` takes it.

    As published, an attention window that reaches the shortest axis of its stage's grid shrinks to it and is never
    shifted, and offsets of tokens share position biases in 3D (``layers/window_attention.py``).

    Args:
        spatial_dims: 2 or 3 (published: 3).
        img_size: patch that attention windows and position biases are made for; one number or one per axis. Other sizes
            are taken, in the same attention windows.
        embed_dim: channels of the finest tokens; they double with each stage.
        depths: blocks per stage, of the encoder and of the decoder, which lacks the last one.
        num_heads: heads per stage of the encoder.
        decoder_num_heads: heads per stage of the decoder, finest first; ``None`` for those of the encoder.
        patch_size: voxels of a finest token per axis; ``None`` for (2, 4, 4) or, in 2D, (4, 4).
        window_size: tokens per axis of the windows of each stage.
        drop_path_rate: stochastic depth, a probability that rises linearly from 0 at the first block of the encoder,
            and again of the decoder.
        deep_supervision: heads on every stage of the decoder in training.

    Raises:
        ConfigError: arguments that do not fit together.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        *,
        img_size: int | Sequence[int] = 96,
        embed_dim: int = 192,
        depths: Sequence[int] = (2, 2, 2, 2),
        num_heads: Sequence[int] = (6, 12, 24, 48),
        decoder_num_heads: Sequence[int] | None = None,
        patch_size: Sequence[int] | None = None,
        window_size: Sequence[int] = (4, 4, 8, 4),
        drop_path_rate: float = 0.2,
        deep_supervision: bool = False,
    ) -> None:
        super().__init__()
        stages = len(depths)
        patch = list(patch_size or {2: (4, 4), 3: (2, 4, 4)}.get(spatial_dims, ()))
        asking = list(num_heads if decoder_num_heads is None else decoder_num_heads)[: stages - 1]
        _check(spatial_dims, embed_dim, patch, [len(num_heads), len(window_size), len(asking) + 1], depths)
        conv: type[nn.Module] = Conv[Conv.CONV, spatial_dims]
        conv_up: type[nn.Module] = Conv[Conv.CONVTRANS, spatial_dims]
        widths = [embed_dim * 2**stage for stage in range(stages)]
        self.multiples = [size * 2 ** (stages - 1) for size in patch]
        shortest = min(
            math.ceil(n / m) * m // size
            for n, m, size in zip(ensure_tuple_rep(img_size, spatial_dims), self.multiples, patch, strict=True)
        )

        def stage(level: int, heads: int, rates: Sequence[float], decodes: bool) -> Stage:
            reach = shortest // 2**level
            window, shifts = min(window_size[level], reach), reach > window_size[level]
            return Stage(
                *(
                    WindowBlock(
                        spatial_dims,
                        widths[level],
                        heads,
                        window=window,
                        # the encoder shifts every other block, the decoder all but the first, which asks the skip
                        shift=window // 2 if shifts and (number > 0 if decodes else number % 2) else 0,
                        cross=decodes and number == 0,
                        drop_path=rate,
                    )
                    for number, rate in enumerate(rates)
                )
            )

        self.stem = _stem(spatial_dims, in_channels, embed_dim, patch)
        rates = _rising(drop_path_rate, depths)
        self.stages = nn.ModuleList(stage(i, num_heads[i], rates[i], False) for i in range(stages))
        self.norms = nn.ModuleList(ChannelNorm(width, _EPS) for width in widths)
        self.merges = nn.ModuleList(
            nn.Sequential(nn.GELU(), ChannelNorm(width, _EPS), conv(width, 2 * width, 3, stride=2, padding=1))
            for width in widths[:-1]
        )
        self.merges.append(nn.Identity())  # the coarsest stage ends there
        self.scales = [[2**level] * spatial_dims for level in range(stages)]
        coarse_to_fine = range(stages - 2, -1, -1)
        rates = _rising(drop_path_rate, [depths[i] for i in coarse_to_fine])
        self.ups = nn.ModuleList(
            nn.Sequential(ChannelNorm(2 * widths[i], _EPS), conv_up(2 * widths[i], widths[i], 2, stride=2))
            for i in coarse_to_fine
        )
        self.decoder = nn.ModuleList(
            stage(i, asking[i], rate, True) for i, rate in zip(coarse_to_fine, rates, strict=True)
        )
        self.heads = nn.ModuleList(
            conv_up(width, out_channels, patch, stride=patch)
            for width in (widths[:-1] if deep_supervision else widths[:1])
        )

    @classmethod
    def planned_arguments(cls, plan: PlannedFor) -> dict[str, Any]:
        """Attention windows for the patch, and in 3D the finer tokens along its shortest axis (published: the first, of
        equal ones); fewer stages where a patch is smaller than what four divide it by; on a CPU an eighth of the
        channels.
        """
        patch = [4] * plan.spatial_dims
        if plan.spatial_dims == 3:
            patch[plan.roi_size.index(min(plan.roi_size))] = 2
        stages = 4
        while stages > 2 and any(n < p * 2 ** (stages - 1) for n, p in zip(plan.roi_size, patch, strict=True)):
            stages -= 1
        width, heads = (24, (2, 4, 8, 16)) if plan.light else (192, (6, 12, 24, 48))
        return {
            "img_size": list(plan.roi_size),
            "embed_dim": width,
            "depths": [2] * stages,
            "num_heads": list(heads[:stages]),
            "patch_size": patch,
            "window_size": [4, 4, 8, 4][:stages],
        }

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        size = list(x.shape[2:])
        x = self.stem(pad_to_multiples(x, self.multiples, normalizes=False))
        skips: list[Tensor] = []
        for stage, norm, merge in zip(self.stages, self.norms, self.merges):
            x = stage(x)
            skips.append(norm(x))
            x = merge(x)
        x = skips.pop()
        found: list[Tensor] = []
        for up, stage in zip(self.ups, self.decoder):
            x = stage(up(x), skips.pop())
            found.append(x)
        logits: list[Tensor] = []
        for level, head in enumerate(self.heads):
            if level == 0 or self.training:
                logits.append(crop_to(head(found[-1 - level]), size, self.scales[level]))
        if len(logits) > 1:
            return logits
        return logits[0]


def _stem(spatial_dims: int, in_channels: int, embed_dim: int, patch: Sequence[int]) -> nn.Sequential:
    """Two steps of two overlapping convolutions each, which divide the sizes by ``patch``; the first step halves."""
    conv: type[nn.Module] = Conv[Conv.CONV, spatial_dims]
    second = [max(size // 2, 1) for size in patch]
    first = [size // step for size, step in zip(patch, second, strict=True)]
    half = embed_dim // 2
    return nn.Sequential(
        *(conv(in_channels, half, 3, stride=first, padding=1), nn.GELU(), ChannelNorm(half, _EPS)),
        *(conv(half, half, 3, padding=1), nn.GELU(), ChannelNorm(half, _EPS)),
        *(conv(half, embed_dim, 3, stride=second, padding=1), nn.GELU(), ChannelNorm(embed_dim, _EPS)),
        *(conv(embed_dim, embed_dim, 3, padding=1), ChannelNorm(embed_dim, _EPS)),
    )


def _rising(rate: float, depths: Sequence[int]) -> list[list[float]]:
    """From 0 to ``rate`` over all blocks, by stage."""
    total = sum(depths)
    rates = iter([rate * i / max(total - 1, 1) for i in range(total)])
    return [[next(rates) for _ in range(depth)] for depth in depths]


def _check(
    spatial_dims: int, embed_dim: int, patch: Sequence[int], lengths: Sequence[int], depths: Sequence[int]
) -> None:
    if spatial_dims not in (2, 3):
        raise ConfigError(f"spatial_dims is {spatial_dims}, expected 2 or 3.")
    if embed_dim % 2 or len(patch) != spatial_dims or any(n != 1 and n % 2 for n in patch):
        raise ConfigError(
            f"embed_dim is {embed_dim} and patch_size {list(patch)}, expected an even number, and 1 or an even number "
            "per axis."
        )
    if len(depths) < 2 or min(depths) < 1 or any(length != len(depths) for length in lengths):
        raise ConfigError(
            f"depths is {list(depths)}, expected a positive number for each of at least two stages, and as many "
            "entries in num_heads and window_size (one less in decoder_num_heads)."
        )
