"""In a training step no network waits for a GPU: none reads from its device, or sends something by a blocking copy.

The meta device stands in for a GPU: whoever reads a number there gets an error, and copies to it are seen.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from network_contract import heads, image, small
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from medseg.labels import LabelSpace
from medseg.losses import MaskedDiceCELoss
from medseg.networks import catalog, create_network, network_class

META = torch.device("meta")
SPACE = LabelSpace.from_table({"background": 0, "a": 1, "b": 2, "ignore": 3})


class Copies(TorchDispatchMode):
    """Notes the operators that send something to the meta device and wait for it."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and result.device == META:
            sources = [one for one in tree_leaves((args, kwargs)) if isinstance(one, torch.Tensor) and one.dim()]
            if any(one.device != META for one in sources) and not (kwargs or {}).get("non_blocking"):
                self.seen.append(str(func))
        return result


class Numbers(TorchFunctionMode):
    """Notes the tensors that are made of numbers in Python and sent to the meta device."""

    def __init__(self, seen: list[str]) -> None:
        super().__init__()
        self.seen = seen

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in (torch.tensor, torch.as_tensor) and not isinstance(args[0], torch.Tensor) and result.device == META:
            self.seen.append(func.__name__)
        return result


def step(net: torch.nn.Module, x: torch.Tensor, **conditions: Any) -> None:
    logits = heads(net(x, **conditions))[0]
    labels = torch.zeros(len(x), 1, *x.shape[2:], device=META)
    MaskedDiceCELoss(SPACE)(logits, labels).backward()


def waits(net: torch.nn.Module, dims: int, **conditions: Any) -> list[str]:
    """Those of a second step: the first may fill what is kept."""
    net, x = net.train().to(META), image(dims, batch=2).to(META)
    step(net, x, **conditions)
    with Copies() as copies, Numbers(copies.seen):
        step(net, x, **conditions)
    return copies.seen


@pytest.mark.parametrize(
    ("name", "dims"), [(name, dims) for name, facts in catalog().items() for dims in facts.spatial_dims]
)
def test_no_network_waits(name: str, dims: int) -> None:
    assert waits(small(network_class(name), dims), dims) == []


def test_tasks_are_checked_before_they_are_sent() -> None:
    net = create_network("hermes_resunet", spatial_dims=3, in_channels=2, out_channels=3, num_modalities=2)
    assert waits(net, 3, tasks=torch.tensor([[0, 1, 2]]), modality=torch.tensor([0, 1])) == []


def test_copies_are_seen() -> None:
    with Copies() as copies, Numbers(copies.seen):
        torch.tensor([1.0], device=META)
        torch.ones(2).to(META)
        torch.ones(2).to(META, non_blocking=True)
    assert len(copies.seen) == 2
