"""The command that lists networks, and the layers of one; torch is imported for layers only."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from medseg.errors import ConfigError, nearest
from medseg.networks.catalog import NetworkFacts, catalog, list_networks
from medseg.settings import takes

if TYPE_CHECKING:
    from medseg.networks.layer_table import LayerTable

__all__ = ["NetworksSettings", "networks"]


@dataclass(frozen=True)
class NetworksSettings:
    """Which networks are listed.

    Attributes:
        pattern: shell pattern of their names, such as 'hno*'.
        layers: table of the layers of the one network of that name, at its published setting.
    """

    pattern: str = field(default="*", metadata={"positional": "PATTERN"})
    layers: bool = field(default=False, kw_only=True)


@takes(NetworksSettings)
def networks(settings: NetworksSettings) -> list[NetworkFacts] | LayerTable:
    """List the registered networks with parameters, dimensions and paper, or the layers of one.

    Raises:
        ConfigError: layers are asked for, and no network has the name.
    """
    if not settings.layers:
        return [catalog()[name] for name in list_networks(settings.pattern)]
    from medseg.networks.layer_table import layer_table

    if settings.pattern not in catalog():
        hint = nearest(settings.pattern, catalog())
        raise ConfigError(
            f"No network '{settings.pattern}' whose layers could be shown.{hint} All: {', '.join(catalog())}."
        )
    return layer_table(catalog()[settings.pattern])
