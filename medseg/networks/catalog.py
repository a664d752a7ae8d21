"""Facts about the registered networks, read from their source without importing torch.

A network module carries its facts as literal arguments of its ``@register(...)`` decorator. Commands that only list or
complete names parse that decorator, so that ``medseg networks`` and ``--help`` answer at once.
"""

from __future__ import annotations

import ast
import fnmatch
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

__all__ = ["SLICE_WISE", "NetworkFacts", "catalog", "list_networks", "network_name", "own_network"]

SLICE_WISE = "medseg.networks.SliceWise"


@dataclass(frozen=True)
class NetworkFacts:
    """Static facts of one registered network.

    Attributes:
        name: registered name (snake case).
        class_name: the class in ``medseg.networks``.
        module: module that defines it.
        title: the name used in the paper.
        spatial_dims: supported numbers of spatial axes.
        channels: channels in and out at the published setting.
        parameters: parameter count there: the constructor's defaults, with the highest number of spatial axes.
        setting: that setting in a few words.
        paper: citation.
        unscripted: why ``torch.jit.script`` cannot compile it; empty where it can.
        heads, rate, light_rate, changes, evidence, bf16_time: facts of its training, as in ``TrainingFacts``.
    """

    name: str
    class_name: str
    module: str
    title: str
    spatial_dims: tuple[int, ...]
    channels: tuple[int, int]
    parameters: int
    setting: str
    paper: str
    unscripted: str = ""
    heads: bool = False
    rate: float = 1.0
    light_rate: float = 1.0
    changes: Mapping[str, Any] = field(default_factory=dict)
    evidence: str = ""
    bf16_time: float | None = None


@cache
def catalog() -> dict[str, NetworkFacts]:
    """All registered networks by name, sorted.

    Raises:
        ValueError: two modules register one name.
    """
    found: dict[str, NetworkFacts] = {}
    for path in sorted(Path(__file__).parent.glob("*.py")):
        source = path.read_text(encoding="utf-8")
        if "@register(" not in source:
            continue
        for node in ast.parse(source).body:
            if not isinstance(node, ast.ClassDef):
                continue
            for decorator in node.decorator_list:
                if isinstance(decorator, ast.Call) and getattr(decorator.func, "id", "") == "register":
                    facts = {
                        keyword.arg: ast.literal_eval(keyword.value) for keyword in decorator.keywords if keyword.arg
                    }
                    name = ast.literal_eval(decorator.args[0])
                    if name in found:
                        raise ValueError(f"Network '{name}' is registered in {found[name].module} and in {path.stem}.")
                    found[name] = NetworkFacts(name, node.name, f"medseg.networks.{path.stem}", **facts)
    return dict(sorted(found.items()))


def list_networks(pattern: str = "*") -> list[str]:
    """Names of the registered networks that match a shell pattern, sorted; torch is not imported.

    Examples:
        >>> medseg.list_networks("hno*")
        ['hnoseg', 'hnoseg_xs']
    """
    return fnmatch.filter(catalog(), pattern)


def own_network(definition: Mapping[str, Any]) -> Mapping[str, Any]:
    """The class and arguments of the network that a ``network_def`` is of: of a 2D network on slices, the 2D one."""
    inner = definition.get("network") if definition.get("_target_") == SLICE_WISE else None
    return inner if isinstance(inner, Mapping) else definition


def network_name(definition: Mapping[str, Any]) -> str:
    """Its class's name for a reader, such as ``DynUNet``, or ``DynUNet (2D)`` on the slices of volumes."""
    own = own_network(definition)
    name = str(own.get("_target_", "network")).rpartition(".")[2]
    return name if own is definition else f"{name} (2D)"
