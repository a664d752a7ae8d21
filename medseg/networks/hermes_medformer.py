"""Hermes-M: MedFormer, a convolution-attention hybrid, with learned task and modality priors (arXiv 2306.02416).

From 1/4 resolution on, a feature map exchanges information with a few tokens: semantic maps of the features
(``layers/semantic_maps.py``) and the priors of the tasks and of the modality (``layers/bidirectional_attention.py``).
The maps of all encoder scales meet in a transformer before the decoder. Heads as in Hermes-R.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medseg.errors import ConfigError
from medseg.networks.layers.bidirectional_attention import BidirectionalAttention, PriorExchange
from medseg.networks.layers.depthwise import PatchMerging
from medseg.networks.layers.preactivation import PreActBlock, same_conv
from medseg.networks.layers.prior_heads import TaskHead
from medseg.networks.layers.priors import Chosen
from medseg.networks.layers.semantic_maps import MapFusion, SemanticMap
from medseg.networks.layers.task_conditioned import TaskConditioned, planned_scales, triples
from medseg.networks.layers.unet_blocks import Triple
from medseg.networks.recording import full_precision
from medseg.networks.registry import PlannedFor, register

__all__ = ["HermesMedFormer"]


@register(
    "hermes_medformer",
    title="Hermes-M",
    spatial_dims=(2, 3),
    channels=(1, 72),
    parameters=47129990,
    setting="11 data sets, 72 tasks, 5 modalities",
    paper="Universal segmentation by context-prior learning, CVPR 2024, arXiv 2306.02416",
)
class HermesMedFormer(TaskConditioned):
    """Hermes with a MedFormer backbone.

    ``x: (B, in_channels, *spatial)``, any size -> logits ``(B, T, *spatial)``, as ``TaskConditioned`` says. Sizes that
    the scales do not divide are zero-padded at the end of each axis. In training with ``deep_supervision`` the result
    is a list of two, the second from features at 1/4 resolution, up-sampled.

    Args:
        spatial_dims: 2 or 3.
        out_channels: number of tasks; with plain labels one task per channel, the background too.
        base_channels: channels at full resolution.
        channels: numbers of channels of the four levels.
        scales: factors of each of the four steps down.
        kernel_size: kernel sizes at full resolution and at each level; odd.
        num_blocks: residual blocks of the four steps down and the four steps up.
        attention_depth: attention blocks of the five scales with priors.
        heads: numbers of heads of those five.
        map_tokens: semantic maps per scale.
        expansion: factor of the attention blocks' inverted bottlenecks.
        fusion_depth, fusion_channels, fusion_heads: sizes of the transformer over the semantic maps.
        deep_supervision: the second head.
        num_modalities, mask_null: see ``TaskConditioned``.

    Raises:
        ConfigError: options that do not fit together.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        *,
        base_channels: int = 32,
        channels: Sequence[int] = (64, 128, 256, 320),
        scales: Sequence[Sequence[int] | int] = (2, 2, 2, 2),
        kernel_size: Sequence[Sequence[int] | int] = (3, 3, 3, 3, 3),
        num_blocks: Sequence[int] = (2, 0, 0, 0, 0, 0, 2, 2),
        attention_depth: Sequence[int] = (2, 4, 8, 4, 2),
        heads: Sequence[int] = (4, 8, 10, 8, 4),
        map_tokens: int = 64,
        expansion: int = 4,
        fusion_depth: int = 2,
        fusion_channels: int = 320,
        fusion_heads: int = 10,
        deep_supervision: bool = True,
        num_modalities: int = 5,
        mask_null: bool = True,
    ) -> None:
        for name, values, count in (
            ("channels", channels, 4),
            ("num_blocks", num_blocks, 8),
            ("attention_depth", attention_depth, 5),
            ("heads", heads, 5),
        ):
            if len(values) != count:
                raise ConfigError(f"{name} is {list(values)}, expected {count} numbers.")
        half, quarter, eighth, deepest = channels
        at_scale = (quarter, eighth, deepest, eighth, quarter)
        super().__init__(spatial_dims, out_channels, num_modalities, mask_null, sum(at_scale))
        if attention_depth[4] and quarter % heads[4]:
            raise ConfigError(f"channels {quarter} must be a multiple of their {heads[4]} heads at the last scale.")
        self.scales = triples("scales", scales, 4, spatial_dims)
        self.total = [math.prod(axis) for axis in zip(*self.scales, strict=True)]
        kernels = triples("kernel_size", kernel_size, 5, spatial_dims)
        (map_kernel,) = triples("kernel_size", (3,), 1, spatial_dims)

        def exchange(scale: int, c_in: int, kernel: Triple) -> PriorExchange:
            c, depth = at_scale[scale], attention_depth[scale]
            blocks = [
                BidirectionalAttention(
                    c if i else c_in,
                    c,
                    heads[scale],
                    kernel_size=kernel,
                    expansion=expansion,
                    token_projection=(scale, i) != (4, depth - 1),  # nothing but the heads reads these tokens
                )
                for i in range(depth)
            ]
            return PriorExchange(out_channels, num_modalities, c, blocks)

        widths = (base_channels, *channels)
        self.stem = nn.Sequential(
            same_conv(in_channels, base_channels, kernels[0]), PreActBlock(base_channels, base_channels, kernels[0])
        )
        self.merging = nn.ModuleList(
            PatchMerging(widths[i], widths[i + 1], self.scales[i], kernels[i + 1]) for i in range(4)
        )
        self.encoder = nn.ModuleList(
            _blocks(widths[i + 1], widths[i + 1], kernels[i + 1], num_blocks[i]) for i in range(4)
        )
        self.maps = nn.ModuleList(SemanticMap(c, map_tokens, map_kernel) for c in at_scale[:3])
        self.encoder_priors = nn.ModuleList(exchange(i, at_scale[i], kernels[i + 2]) for i in range(3))
        self.map_fusion = MapFusion(at_scale[:3], fusion_channels, fusion_heads, fusion_depth)
        self.map_reduction = nn.ModuleList(
            nn.Linear(below + c, c, bias=False) for below, c in ((deepest, eighth), (eighth, quarter))
        )
        joined = (deepest + eighth, eighth + quarter, quarter + half, half + base_channels)
        self.decoder_priors = nn.ModuleList(exchange(3 + i, joined[i], kernels[3 - i]) for i in range(2))
        self.decoder = nn.ModuleList(
            _blocks(c if i < 2 and attention_depth[3 + i] else c_in, c, kernels[3 - i], num_blocks[4 + i])
            for i, (c_in, c) in enumerate(zip(joined, widths[3::-1], strict=True))
        )
        self.head = TaskHead(sum(at_scale), base_channels)
        self.auxiliary_head = TaskHead(sum(at_scale), quarter) if deep_supervision else None

    @classmethod
    def planned_arguments(cls, plan: PlannedFor) -> dict[str, Any]:
        """For one data set: a task per output channel, one kind of image; a narrow, shallow variant for a CPU."""
        arguments: dict[str, Any] = {"num_modalities": 0, "scales": planned_scales(plan.roi_size, plan.spacing)}
        if plan.light:
            arguments |= {
                "base_channels": 8,
                "channels": [16, 32, 64, 80],
                "num_blocks": [1, 0, 0, 0, 0, 0, 1, 1],
                "attention_depth": [1, 1, 2, 1, 1],
                "heads": [1, 2, 2, 2, 1],
                "map_tokens": 8,
                "expansion": 2,
                "fusion_depth": 1,
                "fusion_channels": 64,
                "fusion_heads": 2,
            }
        return arguments

    def padded_size(self, size: list[int]) -> list[int]:
        """Multiples of all scales together, with more than one voxel on the deepest level, as instance norm needs."""
        padded = [math.ceil(n / t) * t for n, t in zip(size, self.total)]
        if padded == self.total:
            padded[-1] = 2 * padded[-1]
        return padded

    def predict(self, x: Tensor, chosen: Chosen) -> tuple[list[Tensor], Tensor]:
        size = list(x.shape[2:])
        if torch.jit.is_scripting():
            skips, maps, found = self._encode(x, chosen)
        else:
            with full_precision(x):  # an image rounded to bf16 moves logits by 22 %, as the encoder amplifies it
                skips, maps, found = self._encode(x.to(next(self.parameters()).dtype), chosen)
        x, m = skips.pop(), maps.pop()
        quarter = x
        for level, blocks in enumerate(self.decoder):
            skip = skips.pop().to(x.dtype)
            x = torch.cat((_resized(x, list(skip.shape[2:])), skip), 1)
            for number, (exchange, reduction) in enumerate(zip(self.decoder_priors, self.map_reduction)):
                if number == level:
                    x, m, priors = exchange(x, reduction(torch.cat((m, maps.pop()), -1)), chosen)
                    found.append(priors)
            x = blocks(x)
            if level == 1:
                quarter = x
        posterior = torch.cat(found, -1)
        tasks = posterior[:, : -self.modality_tokens]
        heads = [self.head(tasks, x)]
        if self.training and self.auxiliary_head is not None:
            heads.append(_resized(self.auxiliary_head(tasks, quarter), size))
        return heads, posterior

    def _encode(self, x: Tensor, chosen: Chosen) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """The features of all levels, finest first, and the fused maps and posterior priors of the encoder's scales."""
        found: list[Tensor] = []
        maps: list[Tensor] = []
        x = self.stem(x)
        skips = [x]
        for level, (merge, blocks) in enumerate(zip(self.merging, self.encoder)):
            x = blocks(merge(x))
            for number, (exchange, summary) in enumerate(zip(self.encoder_priors, self.maps)):
                if number == level - 1:  # a script indexes no modules
                    x, m, priors = exchange(x, summary(x), chosen)
                    maps.append(m)
                    found.append(priors)
            skips.append(x)
        return skips, self.map_fusion(maps), found


def _resized(x: Tensor, size: list[int]) -> Tensor:
    return F.interpolate(x, size=size, mode="trilinear", align_corners=True)


def _blocks(c_in: int, c_out: int, kernel: Triple, number: int) -> nn.Sequential:
    return nn.Sequential(*(PreActBlock(c_out if i else c_in, c_out, kernel) for i in range(number)))
