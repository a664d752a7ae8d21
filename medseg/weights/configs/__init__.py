"""The original systems' own config files as settings of a training here: one module per system, found by file name.

A module holds ``SUFFIXES`` and ``read(text, source) -> OriginalConfig | None``, ``None`` for a file of another system.
Files are data: nothing in them is executed.
"""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path
from typing import Any

from medseg.errors import ConfigError
from medseg.weights.configs.contract import OriginalConfig
from medseg.weights.original import architectures

__all__ = ["OriginalConfig", "network_of", "read_original"]

# Arguments that follow from the data.
_OF_DATA = ("spatial_dims", "in_channels", "out_channels", "num_modalities")


def read_original(path: str | Path) -> OriginalConfig:
    """A config of one of the original systems.

    Raises:
        ConfigError: it cannot be read, or is of none of them.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"Config {path} cannot be read ({reason}); name an existing text file.") from error
    names = [module.name for module in pkgutil.iter_modules(__path__) if module.name != "contract"]
    modules = [importlib.import_module(f"{__name__}.{name}") for name in names]
    for module in modules:
        found: OriginalConfig | None = module.read(text, str(path)) if path.suffix in module.SUFFIXES else None
        if found is not None:
            return found
    raise ConfigError(
        f"Config {path} is not of a system known here; expected {'; '.join(module.FORM for module in modules)}. "
        "Or name a network with --network."
    )


def network_of(config: OriginalConfig) -> tuple[str, dict[str, Any]]:
    """Our network and its arguments, without those that follow from the data; by the mapping that imports weights.

    Raises:
        ConfigError: an argument that is unknown, missing, or not built here.
    """
    name, arguments = architectures(config.system)[config.architecture].network(dict(config.arguments))
    return name, {key: _plain(value) for key, value in arguments.items() if key not in _OF_DATA}


def _plain(value: Any) -> Any:
    """As YAML holds it: lists, no tuples."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value
