"""Import of the original systems' networks and checkpoints: one module per system, found by its file name.

A module holds ``ARCHITECTURES``: the original's class names and, for each, an ``Architecture``; and ``LICENCE``, empty
where the original states none. Where the original has
its own config files, ``CONFIG_READERS`` holds, for their suffix, a function from (text, name of the
file) to (architecture, arguments), or to ``None`` for a file of plain arguments.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import Tensor, nn

from medseg.errors import ConfigError, nearest
from medseg.networks import create_network
from medseg.storage import parse_yaml
from medseg.weights.files import check_match, refuse_non_finite
from medseg.weights.original.contract import Architecture, Conversion, ImportReport

__all__ = [
    "ImportReport",
    "architectures",
    "import_original",
    "import_with_report",
    "licence_notice",
    "read_config",
    "systems",
]


def systems() -> list[str]:
    """Names of the systems whose networks can be imported."""
    return [module.name for module in pkgutil.iter_modules(__path__) if module.name != "contract"]


def architectures(system: str) -> dict[str, Architecture]:
    """The network classes of a system.

    Raises:
        ConfigError: no such system.
    """
    if system not in systems():
        raise ConfigError(f"No system '{system}'.{nearest(str(system), systems())} Known: {', '.join(systems())}.")
    found: dict[str, Architecture] = _module(system).ARCHITECTURES
    return found


def licence_notice(report: ImportReport) -> str:
    """Whose weights were imported, and on what terms."""
    first = f"Weights of {report.system} {report.architecture}, imported into {report.network} by medseg."
    licence = _module(report.system).LICENCE
    terms = (
        f"The original program states the licence {licence}; hold to its terms when you pass these weights on."
        if licence
        else "The original program states no licence, so all rights are its authors': use these weights with their "
        "permission, and do not pass them on without it."
    )
    return f"{first}\n\n{terms}\nThe terms of the data that they were trained on hold as well.\n"


def _module(system: str) -> ModuleType:
    return importlib.import_module(f"{__name__}.{system}")


def read_config(path: str | Path, system: str, architecture: str | None = None) -> tuple[str, dict[str, Any]]:
    """(architecture, constructor arguments) from a JSON or YAML file, or from a config file of the original's own.

    A JSON or YAML file holds the arguments, plain or under ``constructor`` or ``args``, then also with ``architecture``
    or ``class``.

    Raises:
        ConfigError: no such file, not readable, or the architecture is open.
    """
    path = Path(path)
    known = architectures(system)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"Config {path} cannot be read ({reason}); name an existing text file.") from error
    reader = getattr(_module(system), "CONFIG_READERS", {}).get(path.suffix)
    if reader is not None and (found := reader(text, str(path))) is not None:
        return architecture or found[0], found[1]
    content = parse_yaml(text, f"Config {path}")
    if not isinstance(content, dict):
        raise ConfigError(f"Config {path} holds no arguments; expected a mapping of names to values.")
    constructor = next((content[key] for key in ("constructor", "args") if isinstance(content.get(key), dict)), None)
    named = (content.get("architecture") or content.get("class")) if constructor is not None else None
    architecture = architecture or named or (next(iter(known)) if len(known) == 1 else None)
    if architecture is None:
        raise ConfigError(f"Config {path} names no architecture; give one of {', '.join(known)}.")
    return architecture, content if constructor is None else constructor


def import_original(
    system: str, architecture: str, arguments: Mapping[str, Any], state_dict: Mapping[str, Tensor] | None = None
) -> nn.Module:
    """Our network that equals an original one, built from the original's own constructor arguments.

    Args:
        system: ``sshunet``, ...; see ``systems()``.
        architecture: the original's class, such as ``SSHUNet``.
        arguments: arguments of the original's constructor; lists and tuples are alike.
        state_dict: the original's, loaded strictly: every key is used, or dropped for a reason in the report.

    Raises:
        ConfigError: unknown system, architecture or argument.
        ModelError: keys or shapes that do not fit, or a tensor that holds NaN or infinity.
    """
    return import_with_report(system, architecture, arguments, state_dict)[0]


def import_with_report(
    system: str, architecture: str, arguments: Mapping[str, Any], state_dict: Mapping[str, Tensor] | None = None
) -> tuple[nn.Module, ImportReport]:
    """``import_original``, and the report of what was taken and dropped."""
    known = architectures(system)
    if architecture not in known:
        raise ConfigError(
            f"System '{system}' has no architecture '{architecture}'.{nearest(str(architecture), known)} "
            f"Known: {', '.join(known)}."
        )
    name, ours = known[architecture].network(dict(arguments))
    network = create_network(name, **ours)
    conversion = Conversion()
    if state_dict is not None:
        refuse_non_finite(state_dict, f"The state dict of {system} {architecture}")
        conversion = known[architecture].convert(state_dict, network)
        check_match(network, conversion.state, f"The state dict of {system} {architecture}")
        network.load_state_dict(conversion.state)
    parameters = sum(p.numel() for p in network.parameters())
    found = (conversion.origin, conversion.dropped, conversion.notes)
    return network, ImportReport(system, architecture, name, ours, parameters, *found)
