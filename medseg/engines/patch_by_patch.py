"""Training where a GPU has no room for a batch: its patches go through the network one by one, for the same step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from monai.inferers import Inferer
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase
from torch.utils.checkpoint import checkpoint

from medseg.faults import memory_lacking

__all__ = ["PatchByPatch", "memory_advice", "sees_patches_alone"]


class PatchByPatch(Inferer):
    """Runs the network on each patch of a batch, and again for the patch's gradients (activation checkpointing).

    Memory is needed for the activations of one patch. The loss sees the outputs of the whole batch, so that it and the
    gradients are those of the whole batch for every loss, but for rounding and for what dropout draws.

    Arguments whose length is that of the batch ``(B, ...)`` go with their patches.
    """

    def __call__(self, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        count = len(inputs)

        def one(value: Any, number: int) -> Any:
            of_batch = isinstance(value, torch.Tensor) and value.dim() and len(value) == count
            return value[number : number + 1] if of_batch else value

        def output(number: int) -> Any:
            own = [one(value, number) for value in args]
            named = {name: one(value, number) for name, value in kwargs.items()}
            return checkpoint(network, inputs[number : number + 1], *own, use_reentrant=False, **named)

        return _joined([output(number) for number in range(count)])


def _joined(outputs: Sequence[Any]) -> Any:
    """Outputs of single patches as one of a batch; lists and tuples of heads too."""
    if isinstance(outputs[0], torch.Tensor):
        return torch.cat(list(outputs))
    return type(outputs[0])(map(_joined, zip(*outputs, strict=True)))


def sees_patches_alone(network: nn.Module) -> bool:
    """Whether no layer's output or state depends on the other patches of a training batch, as with batch norms."""
    norms = (part for part in network.modules() if isinstance(part, _NormBase) and part.training)
    # Instance norms without running statistics are the only ones of this kind that see each patch alone.
    return not any(isinstance(norm, _BatchNorm) or norm.track_running_stats for norm in norms)


def memory_advice(error: BaseException, inputs: torch.Tensor, tried: str, *, half: bool, blocks: bool) -> str:
    """What to say where a GPU has no room for a training step and nothing equal is left to do.

    Args:
        error: error of the GPU's allocator.
        inputs: the batch ``(B, C, *spatial)``.
        tried: what was tried before, or why nothing was.
        half: whether the network runs in half precision already.
        blocks: whether it has blocks that can be computed again, and are not yet.
    """
    size = inputs.shape[2:]
    smaller = [max(16, n * 3 // 4 // 16 * 16) if n > 16 else n for n in size]
    options = [f"--set roi_size=[{','.join(map(str, smaller))}]"] * (smaller != list(size))
    options += ["--set batch_size=1"] * (len(inputs) > 1) + ["--set precision=bf16"] * (not half)
    options += ["--set checkpointing=true"] * blocks
    patches = f"{len(inputs)} patch{'es' * (len(inputs) > 1)} of {'×'.join(map(str, size))}"
    return (
        f"The GPU is out of memory{memory_lacking(str(error))} for a training step on {patches}; {tried}. "
        f"Use {', or '.join(options) or 'a smaller network'}."
    )
