"""The layers of a network: name, class, output and parameters of each, without time and memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from medseg.networks.catalog import NetworkFacts
from medseg.networks.registry import create_network

__all__ = ["Layer", "LayerTable", "layer_table", "layers_of"]

_SIDE = {2: 256, 3: 96}  # voxels per axis of the image that is shown


@dataclass(frozen=True)
class Layer:
    """One module.

    Attributes:
        name: its path in the network, "" for the network itself.
        kind: its class.
        output: shape of what it returned at its first call, of the first tensor where it returned several; ``None``
            where it was not called: for training only, or another module reads its weights.
        parameters: number of its own parameters, without those of the modules in it.
    """

    name: str
    kind: str
    output: tuple[int, ...] | None
    parameters: int


@dataclass(frozen=True)
class LayerTable:
    """The layers of a registered network at its published setting.

    Attributes:
        network: registered name.
        input: shape of the image.
        layers: in the order of construction.
    """

    network: str
    input: tuple[int, ...]
    layers: tuple[Layer, ...]


def layer_table(facts: NetworkFacts) -> LayerTable:
    """The layers at the constructor's defaults, for one image of 96 voxels per axis (256 in 2D), on the meta device."""
    dims, (in_channels, out_channels) = facts.spatial_dims[-1], facts.channels
    shape = (1, in_channels, *(_SIDE[dims],) * dims)
    with torch.device("meta"):
        network = create_network(
            facts.name, spatial_dims=dims, in_channels=in_channels, out_channels=out_channels
        ).eval()
        return LayerTable(facts.name, shape, layers_of(network, torch.zeros(shape)))


def layers_of(network: nn.Module, x: Tensor) -> tuple[Layer, ...]:
    """Modules that have parameters of their own or nothing inside, as ``network(x)`` calls them."""
    outputs: dict[nn.Module, tuple[int, ...]] = {}

    def note(module: nn.Module, _: Any, result: Any) -> None:
        while isinstance(result, (list, tuple)) and result:
            result = result[0]
        if isinstance(result, Tensor):
            outputs.setdefault(module, tuple(result.shape))

    hooks = [module.register_forward_hook(note) for module in network.modules()]
    try:
        with torch.no_grad():
            network(x)
    finally:
        for hook in hooks:
            hook.remove()
    found = []
    for name, module in network.named_modules():
        own = sum(parameter.numel() for parameter in module.parameters(recurse=False))
        if own or not list(module.children()):
            found.append(Layer(name, type(module).__name__, outputs.get(module), own))
    return tuple(found)
