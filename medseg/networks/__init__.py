"""Networks: ``create_network(name, ...)``, ``list_networks(pattern)``, and each class as ``medseg.networks.<Class>``;
``checkpointed(network)`` trains in less memory.

Nothing is imported before it is asked for, so that listing networks needs no torch.
"""

from __future__ import annotations

import importlib
from typing import Any

from medseg.networks.catalog import SLICE_WISE, catalog, list_networks, network_name, own_network

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

_MODULES = {
    **dict.fromkeys(("NETWORKS", "create_network", "network_class", "network_target", "register"), "registry"),
    "checkpointed": "checkpointing",
    SLICE_WISE.rpartition(".")[2]: "slice_wise",
}  # name -> module


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(importlib.import_module(f"medseg.networks.{_MODULES[name]}"), name)
    for facts in catalog().values():
        if facts.class_name == name:
            return getattr(importlib.import_module(facts.module), name)
    raise AttributeError(f"module 'medseg.networks' has no attribute '{name}'")


def __dir__() -> list[str]:
    return [*{*__all__, *_MODULES}, *(facts.class_name for facts in catalog().values())]
