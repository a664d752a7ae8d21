"""The memory of a training step, forecast without running it, and a plan whose patch and batch a GPU has room for.

The network runs on torch's meta device, where nothing is computed, and what autograd keeps for the backward pass is
counted, as of float32; half precision mostly needs less. Workspaces of kernels are not in it.
"""

from __future__ import annotations

import gc
import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from monai.losses import DeepSupervisionLoss, DiceCELoss
from torch import nn

from medseg.data import Plan, PlanSettings
from medseg.data.run_settings import SET
from medseg.engines.trainer import heads_of
from medseg.free_memory import GIB
from medseg.networks import checkpointed, create_network
from medseg.networks.checkpointing import recomputable

__all__ = ["free_gpu_bytes", "kept_for_backward", "plan_within", "step_bytes"]

logger = logging.getLogger("medseg")

_USED = 0.9  # share of the free memory that a plan uses; the rest is for workspaces and gaps between blocks
_LEAST = 1 / 8  # of the voxels of the largest patch: half of it per axis
_PER_PARAMETER = 16  # bytes: the parameter, its gradient and the two moments of AdamW, in float32


def free_gpu_bytes() -> int | None:
    """Memory of the current GPU that is free now, without what an earlier training of this process has left; ``None``
    where torch sees no GPU.
    """
    if not torch.cuda.is_available():
        return None
    gc.collect()
    torch.cuda.empty_cache()
    return int(torch.cuda.mem_get_info()[0])


def plan_within(
    free: int, network: str, asked: PlanSettings, planned: Callable[[PlanSettings], tuple[Plan, dict[str, Any]]]
) -> tuple[Plan, dict[str, Any]]:
    """The plan, and the network's arguments, whose training step fits into a GPU's free memory, if one does.

    The limit of the patch's voxels falls in proportion to the lack of memory, to an eighth at most, as nnU-Net gives
    up patch before batch; then the batch is halved. What the user or nnU-Net's rules decided stays. Where there is room
    for the prepared cases as well, the GPU keeps them.

    Args:
        free: bytes.
        network: registered name, MONAI class or dotted path.
        asked: what is asked of the plan.
        planned: makes a plan, and the network's arguments for it.
    """
    room, first = _USED * free, planned(asked)
    (plan, arguments), batch_size = first, first[0].batch_size
    patch_is_open = asked.roi_size is None and asked.nnunet is None and not asked.like_nnunet
    batch_is_open = asked.batch_size is None and not asked.like_nnunet
    while True:
        seen = plan.seen().roi_size
        needed = step_bytes(network, arguments, seen, plan.batch_size, checkpointing=asked.checkpointing)
        if needed is None:
            return plan, arguments
        if needed <= room:
            break
        if patch_is_open and asked.voxel_share > _LEAST:
            asked = replace(asked, voxel_share=max(_LEAST, asked.voxel_share * min(0.9, room / needed)))
        elif batch_is_open and plan.batch_size > 1:
            asked = replace(asked, batch_size=plan.batch_size // 2)
        else:
            break
        plan, arguments = planned(asked)
    forecast = f"a training step needs about {needed / GIB:.1f} GiB, the GPU has {free / GIB:.1f} GiB free"
    smaller = "; smaller than usual for that" * (plan.roi_size != first[0].roi_size)
    if plan.reasons["roi_size"] != SET:
        plan.reasons["roi_size"] += f"; {forecast}{smaller}"
    if plan.batch_size != batch_size:
        plan.reasons["batch_size"] = f"{batch_size} would not fit: {forecast}"
    cached = plan.cache_gib * GIB
    if asked.cases_on_gpu and plan.cache == "cache" and needed + 2 * cached <= room:  # as much again for validation
        plan.cache = "device"
        plan.reasons["cache"] += f"; they fit on the GPU beside a training step, {free / GIB:.1f} GiB are free there"
    if needed > room:
        logger.warning("%s: use a smaller roi_size, a smaller batch_size or a smaller network if it fails", forecast)
    return plan, arguments


def step_bytes(
    network: str,
    arguments: Mapping[str, Any],
    roi_size: Sequence[int],
    batch_size: int,
    *,
    checkpointing: bool = False,
) -> int | None:
    """Bytes of a training step in float32: what is kept for the backward pass, gradients on its way, and parameters.

    ``None`` where the network does not run on the meta device. With ``checkpointing`` one block at a time is computed
    again.
    """
    for built_on in ("meta", "cpu"):
        try:
            with torch.device(built_on):
                net = create_network(network, **arguments).to("meta").train()
            x = torch.zeros(1, arguments["in_channels"], *roi_size, device="meta")
            again = _largest_block(net, x) if checkpointing else 0
            kept = kept_for_backward(checkpointed(net) if again else net, x)
        except Exception:  # any network may fail in any way there; accepts_roi has told whether it is sound
            continue
        passing = 2 * max(kept, default=0)  # the gradients of a layer's output and of its input
        parameters: int = sum(p.numel() for p in net.parameters())
        return batch_size * (sum(kept) + again + passing) + _PER_PARAMETER * parameters
    return None


def kept_for_backward(network: nn.Module, x: torch.Tensor) -> list[int]:
    """Sizes in bytes of what a forward pass with Dice and cross-entropy keeps, each storage once, without parameters.

    Args:
        network: in training mode, on the device of ``x``; it returns logits, or heads with the finest first.
        x: patches ``(B, C, *spatial)``.
    """
    labels = torch.zeros(len(x), 1, *x.shape[2:], device=x.device)

    def forward() -> None:
        result = network(x)
        heads = heads_of(result[0] if isinstance(result, tuple) else result, x.dim())
        one = heads[0].shape[1] == 1
        DeepSupervisionLoss(DiceCELoss(to_onehot_y=not one, softmax=not one, sigmoid=one))(heads, labels)

    return _kept(network, forward)


def _largest_block(network: nn.Module, x: torch.Tensor) -> int:
    """Bytes that one of the blocks that ``checkpointed`` computes again keeps for its own gradients, at most."""
    found = [0]

    def note(block: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        with torch.enable_grad():
            found.append(sum(_kept(block, partial(block.forward, *args, **kwargs))))

    handles = [block.register_forward_hook(note, with_kwargs=True) for block in recomputable(network)]
    with torch.no_grad():
        network(x)
    for handle in handles:
        handle.remove()
    return max(found)


def _kept(network: nn.Module, forward: Callable[[], Any]) -> list[int]:
    """Sizes in bytes of what a computation keeps for its gradients, each storage once, without parameters."""
    own = {tensor.untyped_storage()._cdata for tensor in (*network.parameters(), *network.buffers())}
    kept: dict[int, torch.UntypedStorage] = {}  # held, so that no address is used again

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept.setdefault(storage._cdata, storage)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        forward()
    return [storage.nbytes() for key, storage in kept.items() if key not in own]
