"""Activation checkpointing: the same gradients and names, less kept for them."""

from __future__ import annotations

import copy

import pytest
import torch
from network_contract import error, heads, image, small
from torch import Tensor, distributed, nn
from torch.autograd.graph import saved_tensors_hooks

from medseg.errors import ConfigError
from medseg.networks import checkpointed, network_class
from medseg.workflows import network


def step(net: nn.Module, x: Tensor) -> tuple[list[Tensor], int]:
    """Gradients of the weights, and the bytes that are kept for them at the end of the forward pass."""
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    torch.manual_seed(2)  # of stochastic depth
    with saved_tensors_hooks(keep, lambda tensor: tensor):
        result = heads(net(x))
    total = sum(kept.values())
    torch.stack([y.square().mean() for y in result]).sum().backward()
    return [p.grad for p in net.parameters() if p.grad is not None], total


@pytest.mark.parametrize("name", ["hnoseg_xs", "vnet_ds", "ssh_unet", "hermes_medformer"])
def test_same_gradients_in_less_memory(name: str) -> None:
    net, x = small(network_class(name), 3).train(), image(3, batch=2)
    other = copy.deepcopy(checkpointed(copy.deepcopy(net)))  # as an average of weights copies it
    assert isinstance(other, type(net)) and list(other.state_dict()) == list(net.state_dict())
    (expected, much), (found, little) = step(net, x), step(other, x)
    assert error(found, expected) <= 1e-6
    assert little < 0.8 * much
    with torch.no_grad():
        assert torch.equal(heads(other.eval()(x))[0], heads(net.eval()(x))[0])


class Blocks(nn.Module):
    """Three blocks without chance, since a compiler draws other numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.InstanceNorm2d(4), nn.GELU(), nn.Conv2d(4, 4, 1))
            for _ in range(3)
        )

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x


def test_compiled_and_data_parallel_it_is_still_less() -> None:
    net, x = Blocks().train(), torch.randn(2, 4, 16, 16)
    expected, much = step(network(copy.deepcopy(net), "cpu", distributed=True), x)
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    try:
        parallel = network(copy.deepcopy(net), "cpu", distributed=True, checkpointing=True)
        assert isinstance(parallel, nn.parallel.DistributedDataParallel)
        found = [step(parallel, x)]
    finally:
        distributed.destroy_process_group()
    compiled = network(copy.deepcopy(net), "cpu", distributed=True, checkpointing=True)
    compiled.compile(backend="aot_eager", dynamic=False)
    found.append(step(compiled, x))
    for gradients, little in found:
        assert error(gradients, expected) <= 1e-6 and little < 0.8 * much


def test_blocks_with_running_statistics_stay_and_single_convolutions() -> None:
    net = nn.Sequential(nn.ModuleList([nn.Sequential(nn.Conv2d(1, 1, 1)), nn.BatchNorm2d(1), nn.Conv2d(1, 1, 1)]))
    assert [type(block) for block in checkpointed(net)[0]][1:] == [nn.BatchNorm2d, nn.Conv2d]
    with pytest.raises(ConfigError, match="train it without checkpointing"):
        checkpointed(nn.Sequential(nn.ModuleList([nn.BatchNorm2d(1)])))
