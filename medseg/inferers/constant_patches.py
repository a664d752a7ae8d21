"""Patches of one constant content have one output: the first of each is run, and its output used again.

Around a body, and where padding is, many patches are alike. This is exact where a network's output depends on a patch's
content alone: in evaluation mode, and without noise of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

__all__ = ["by_content", "constants", "run_patches"]

Place = Sequence[slice]


def by_content(network: Any) -> bool:
    """Whether the output for a patch depends on its content alone: while evaluating, without statistics of batches."""
    if not isinstance(network, nn.Module):
        return False
    parts = list(network.modules())
    batches = (part for part in parts if isinstance(part, _BatchNorm))
    return not any(part.training for part in parts) and all(part.track_running_stats for part in batches)


def constants(image: torch.Tensor, places: Iterable[Place]) -> list[tuple[float, ...] | None]:
    """Of each patch of an image ``(C, *spatial)`` the value of each channel; ``None`` where one is not constant.

    All are read at once, and before the network runs: a read waits for what a GPU has to do by then.
    """
    ranges = [torch.stack(image[(slice(None), *place)].flatten(1).aminmax(dim=1)) for place in places]
    return [tuple(low) if low == high else None for low, high in torch.stack(ranges).tolist()]


def run_patches(
    image: torch.Tensor, places: Sequence[Place], run: Callable[[torch.Tensor], torch.Tensor], batch: int, reuse: bool
) -> Iterator[tuple[Place, torch.Tensor]]:
    """The place and output ``(K, *patch)`` of each patch, in the order of the places.

    Args:
        image: ``(C, *spatial)``.
        places: where its patches are.
        run: the network, on patches ``(B, C, *patch)``.
        batch: patches per call of it.
        reuse: whether constant patches are run once.
    """
    kept: dict[Any, torch.Tensor] = {}
    waiting: list[tuple[Place, Any]] = []
    new: dict[Any, Place] = {}  # what of these the next call runs

    def finished() -> Iterator[tuple[Place, torch.Tensor]]:
        found = run(torch.stack([image[(slice(None), *place)] for place in new.values()])) if new else ()
        outputs = dict(zip(new, found, strict=True))
        kept.update((key, output.clone()) for key, output in outputs.items() if isinstance(key, tuple))
        for place, key in waiting:
            yield place, kept[key].clone() if key in kept else outputs[key]
        waiting.clear()
        new.clear()

    values = constants(image, places) if reuse else [None] * len(places)
    for number, (place, constant) in enumerate(zip(places, values, strict=True)):
        key: Any = number if constant is None else constant
        waiting.append((place, key))
        if key not in kept:
            new.setdefault(key, place)
        if len(new) == batch:
            yield from finished()
    yield from finished()
