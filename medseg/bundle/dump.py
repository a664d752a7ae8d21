"""Config files as MONAI's parser reads them back."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import yaml

from medseg.storage import write_text

__all__ = ["dump_yaml", "rewrite_yaml"]


_WIDTH = 180
_SHORT = 5 * _WIDTH  # characters of a mapping that stands on one line, or is wrapped; longer ones have a line per key
_MAP = "tag:yaml.org,2002:map"


class _Dumper(yaml.SafeDumper):
    """Short lists and mappings on one line, no anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


class _Flow(dict[str, Any]):
    """A mapping that is written on as few lines as hold it."""


def _compact(value: Any) -> Any:
    """Mappings that fit into a few lines as ``_Flow``."""
    if isinstance(value, dict):
        kind = _Flow if len(str(value)) <= _SHORT else dict
        return kind((key, _compact(item)) for key, item in value.items())
    return [_compact(item) for item in value] if isinstance(value, (list, tuple)) else value


def _represent_list(dumper: yaml.SafeDumper, data: Sequence[Any]) -> yaml.Node:
    return dumper.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=len(str(data)) <= _WIDTH)


def _represent_float(dumper: yaml.SafeDumper, value: float) -> yaml.Node:
    # PyYAML writes 1e-05, which it reads back as text: always a plain decimal with a point.
    if not math.isfinite(value):
        name = {"inf": ".inf", "-inf": "-.inf"}.get(str(value), ".nan")
        return dumper.represent_scalar("tag:yaml.org,2002:float", name)
    text = format(Decimal(repr(value)), "f")
    return dumper.represent_scalar("tag:yaml.org,2002:float", text if "." in text else f"{text}.0")


_Dumper.add_representer(list, _represent_list)
_Dumper.add_representer(_Flow, lambda dumper, data: dumper.represent_mapping(_MAP, data.items(), flow_style=True))
_Dumper.add_representer(float, _represent_float)


def dump_yaml(config: Mapping[str, Any], path: str | Path, comment: str = "") -> None:
    """Write a config as MONAI's parser reads it back, with an optional comment of some lines before it."""
    content = {key: _compact(value) for key, value in config.items()}
    text = yaml.dump(content, Dumper=_Dumper, sort_keys=False, width=_WIDTH, allow_unicode=True)
    write_text(path, "".join(f"# {line}\n" for line in comment.splitlines()) + text)


def rewrite_yaml(config: Mapping[str, Any], path: Path) -> None:
    """``dump_yaml`` in the place of a config that is there, under the line of comment that it begins with."""
    with path.open(encoding="utf-8") as file:
        first = file.readline().rstrip("\n")
    dump_yaml(config, path, first.removeprefix("# ") if first.startswith("#") else "")
