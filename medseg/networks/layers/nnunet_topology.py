"""Stages of a U-Net from patch and spacing, by nnU-Net's rule (Isensee et al., Nature Methods 18, 2021, supplement)."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["BLOCKS", "LIGHT_STAGES", "features_of", "nnunet_topology"]

_WIDEST = {2: 512, 3: 320}
BLOCKS = (1, 3, 4, 6)  # residual ones of the finest stages; every further one has as many as the last
LIGHT_STAGES = 4  # at most, on a CPU
_SMALLEST = 4  # voxels of an axis at the bottleneck


def nnunet_topology(
    patch: Sequence[int], spacing: Sequence[float] | None, *, max_stages: int | None = None
) -> tuple[list[list[int]], list[list[int]]]:
    """Kernel sizes and strides per stage, finest first.

    An axis is halved while it keeps 4 voxels and its spacing is below twice the finest of such axes; the last axis that
    is left needs 12 voxels. Its kernel is 1 until its spacing comes below twice the finest, and 3 at the bottleneck.

    Args:
        patch: voxels per axis.
        spacing: mm per axis; ``None`` for equal spacings.
        max_stages: no more stages than that; nnU-Net has no such limit. At least two are made.
    """
    size, mm = list(patch), list(spacing or [1.0] * len(patch))
    kernel, stride = [1] * len(size), [1] * len(size)
    kernels, strides = [], [stride]
    while max_stages is None or len(strides) < max_stages:
        kernel = [3 if k == 3 or m < 2 * min(mm) else 1 for k, m in zip(kernel, mm, strict=True)]
        large = [m for n, m in zip(size, mm, strict=True) if n >= 2 * _SMALLEST]
        halved = [n >= 2 * _SMALLEST and m < 2 * min(large) for n, m in zip(size, mm, strict=True)]
        alone = sum(halved) == 1 and max(n for n, h in zip(size, halved, strict=True) if h) < 3 * _SMALLEST
        if not any(halved) or alone:
            break
        kernels.append(kernel)
        stride = [2 if h else 1 for h in halved]
        strides.append(stride)
        size = [-(-n // s) for n, s in zip(size, stride, strict=True)]
        mm = [m * s for m, s in zip(mm, stride, strict=True)]
    if len(strides) == 1:  # a patch below 8 voxels
        kernels, strides = [kernel], [stride, [2] * len(size)]
    return [*kernels, [3] * len(size)], strides


def features_of(stages: int, spatial_dims: int, *, light: bool = False) -> list[int]:
    """nnU-Net's channels per stage; a quarter of them for a CPU."""
    return [min(32 * 2**stage, _WIDEST[spatial_dims]) // (4 if light else 1) for stage in range(stages)]
