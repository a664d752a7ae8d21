"""Networks: ``create_network(name, ...)``, ``list_networks(pattern)``, and each class as ``medseg.networks.<Class>``;
``checkpointed(network)`` trains in less memory.

Nothing is imported before it is asked for, so that listing networks needs no torch.
"""

from __future__ import annotations

import importlib
from typing import Any

from medseg.networks.catalog import catalog, list_networks, network_name, own_network

__all__ = [
    "catalog",
    "checkpointed",
    "create_network",
    "list_networks",
    "network_class",
    "network_name",
    "network_target",
    "own_network",
    "register",
]

_REGISTRY = ("NETWORKS", "create_network", "network_class", "network_target", "register")


def __getattr__(name: str) -> Any:
    if name in _REGISTRY:
        return getattr(importlib.import_module("medseg.networks.registry"), name)
    if name == "checkpointed":
        return importlib.import_module("medseg.networks.checkpointing").checkpointed
    if name == "SliceWise":
        return importlib.import_module("medseg.networks.slice_wise").SliceWise
    for facts in catalog().values():
        if facts.class_name == name:
            return getattr(importlib.import_module(facts.module), name)
    raise AttributeError(f"module 'medseg.networks' has no attribute '{name}'")


def __dir__() -> list[str]:
    return [*__all__, "SliceWise", *(facts.class_name for facts in catalog().values())]
