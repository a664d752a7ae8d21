"""Hermes-R: a residual U-Net that talks with learned task and modality priors (arXiv 2306.02416).

At five scales, 1/4 to 1/16 in the encoder and 1/8 to 1/4 in the decoder, tokens of the tasks and of the modality read
the features and write back into them (``layers/prior_attention.py``). The tokens that result, of all scales, make one
prototype per task, and the logits are its products with the finest features (``layers/prior_heads.py``).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medseg.errors import ConfigError
from medseg.networks.layers.preactivation import PreActBlock, same_conv
from medseg.networks.layers.prior_attention import PriorFusion
from medseg.networks.layers.prior_heads import TaskHead
from medseg.networks.layers.priors import Chosen
from medseg.networks.layers.task_conditioned import TaskConditioned, planned_scales, triples
from medseg.networks.layers.unet_blocks import Triple
from medseg.networks.recording import full_precision
from medseg.networks.registry import PlannedFor, register

__all__ = ["HermesResUNet"]


@register(
    "hermes_resunet",
    title="Hermes-R",
    spatial_dims=(2, 3),
    channels=(1, 72),
    parameters=60884998,
    setting="11 data sets, 72 tasks, 5 modalities",
    paper="Universal segmentation by context-prior learning, CVPR 2024, arXiv 2306.02416",
    light_rate=0.3,
    evidence="studies/learning_rates.yaml, two seeds: Dice 0.31 instead of 0.24 (fetal brain), 0.68 of 0.65 (sarcoma)",
)
class HermesResUNet(TaskConditioned):
    """Hermes with a ResUNet backbone.

    ``x: (B, in_channels, *spatial)``, any size -> logits ``(B, T, *spatial)``, as ``TaskConditioned`` says; images
    that are smaller than the product of the scales are zero-padded at the end of each axis.

    Args:
        spatial_dims: 2 or 3.
        out_channels: number of tasks; with plain labels one task per channel, the background too.
        base_channels: channels at full resolution, at least 8; the levels have 2, 4, 8 and 10 times as many.
        scales: factors of each of the four steps down.
        kernel_size: kernel sizes at full resolution and at each level; odd.
        num_blocks: residual blocks of each level, encoder and decoder alike; the last decoder level always has 2.
        prior_depth: attention blocks of the five scales, in order.
        pool: go down by max pooling; else by the stride of a level's first block.
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
        scales: Sequence[Sequence[int] | int] = (2, 2, 2, 2),
        kernel_size: Sequence[Sequence[int] | int] = (3, 3, 3, 3, 3),
        num_blocks: Sequence[int] = (2, 2, 2, 2),
        prior_depth: Sequence[int] = (2, 2, 4, 2, 2),
        pool: bool = True,
        num_modalities: int = 5,
        mask_null: bool = True,
    ) -> None:
        if base_channels < 8:
            raise ConfigError(f"base_channels is {base_channels}, expected at least 8, for attention heads of 32.")
        full, *widths = (factor * base_channels for factor in (1, 2, 4, 8, 10))
        super().__init__(spatial_dims, out_channels, num_modalities, mask_null, 2 * sum(widths[1:3]) + widths[3])
        self.scales = triples("scales", scales, 4, spatial_dims)
        self.total = [math.prod(axis) for axis in zip(*self.scales, strict=True)]
        kernels = triples("kernel_size", kernel_size, 5, spatial_dims)
        if len(num_blocks) != 4 or len(prior_depth) != 5:
            raise ConfigError(
                f"num_blocks has {len(num_blocks)} and prior_depth {len(prior_depth)} entries, expected 4 and 5."
            )
        self.pool = pool

        def fusion(channels: int, depth: int) -> PriorFusion:
            return PriorFusion(out_channels, num_modalities, channels, depth)

        self.stem = nn.Sequential(same_conv(in_channels, full, kernels[0]), PreActBlock(full, full, kernels[0]))
        self.encoder = nn.ModuleList(
            _blocks(c_in, c_out, kernel, number, (1, 1, 1) if pool else scale)
            for c_in, c_out, kernel, number, scale in zip(
                [full, *widths], widths, kernels[1:], num_blocks, self.scales, strict=False
            )
        )
        self.encoder_priors = nn.ModuleList(map(fusion, widths[1:], prior_depth[:3]))
        skips = [full, *widths[:3]][::-1]
        self.decoder = nn.ModuleList(
            _blocks(skip + below, skip, kernel, number)
            for skip, below, kernel, number in zip(
                skips, [widths[3], *skips], kernels[3::-1], [*num_blocks[2::-1], 2], strict=False
            )
        )
        self.decoder_priors = nn.ModuleList(map(fusion, skips, prior_depth[3:]))
        self.head = TaskHead(2 * sum(widths[1:3]) + widths[3], full)

    @classmethod
    def planned_arguments(cls, plan: PlannedFor) -> dict[str, Any]:
        """For one data set: a task per output channel, one kind of image; a narrow, shallow variant for a CPU."""
        arguments: dict[str, Any] = {"num_modalities": 0, "scales": planned_scales(plan.roi_size, plan.spacing)}
        if plan.light:
            arguments |= {"base_channels": 8, "num_blocks": [1, 1, 1, 1], "prior_depth": [1, 1, 1, 1, 1]}
        return arguments

    def padded_size(self, size: list[int]) -> list[int]:
        """At least a voxel per axis on the deepest level, and more than one in all, as instance norm needs."""
        padded = [max(n, t) for n, t in zip(size, self.total)] if self.pool else list(size)
        deepest = [n // t if self.pool else -(-n // t) for n, t in zip(padded, self.total)]
        if deepest == [1, 1, 1]:
            padded[-1] = 2 * self.total[-1]
        return padded

    def predict(self, x: Tensor, chosen: Chosen) -> tuple[list[Tensor], Tensor]:
        if torch.jit.is_scripting():
            skips, found = self._encode(x, chosen)
        else:
            with full_precision(x):  # an image rounded to bf16 moves logits by 4 %, as the encoder amplifies it
                skips, found = self._encode(x.to(next(self.parameters()).dtype), chosen)
        x = skips.pop()
        for level, blocks in enumerate(self.decoder):
            skip = skips.pop().to(x.dtype)
            x = F.interpolate(x, size=list(skip.shape[2:]), mode="trilinear", align_corners=True)
            x = blocks(torch.cat((skip, x), 1))
            for number, fusion in enumerate(self.decoder_priors):
                if number == level:
                    x, priors = fusion(x, chosen)
                    found.append(priors)
        posterior = torch.cat(found, -1)
        return [self.head(posterior[:, : -self.modality_tokens], x)], posterior

    def _encode(self, x: Tensor, chosen: Chosen) -> tuple[list[Tensor], list[Tensor]]:
        """The features of all levels, finest first, and the posterior priors of the encoder's scales."""
        found: list[Tensor] = []
        x = self.stem(x)
        skips = [x]
        for level, blocks in enumerate(self.encoder):
            x = blocks(F.max_pool3d(x, self.scales[level]) if self.pool else x)
            for number, fusion in enumerate(self.encoder_priors):
                if number == level - 1:  # a script indexes no modules
                    x, priors = fusion(x, chosen)
                    found.append(priors)
            skips.append(x)
        return skips, found


def _blocks(c_in: int, c_out: int, kernel: Triple, number: int, stride: Triple = (1, 1, 1)) -> nn.Sequential:
    first = PreActBlock(c_in, c_out, kernel, stride)
    return nn.Sequential(first, *(PreActBlock(c_out, c_out, kernel) for _ in range(number - 1)))
