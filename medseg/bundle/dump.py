"""Config files as MONAI's parser reads them back."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import yaml

from medseg.storage import write_text

__all__ = ["dump_yaml"]


class _Dumper(yaml.SafeDumper):
    """Lists of plain values on one line, no anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_list(dumper: yaml.SafeDumper, data: Sequence[Any]) -> yaml.Node:
    nested = any(isinstance(item, dict) for item in data) or any(
        isinstance(item, str) and len(item) > 40 for item in data
    )
    return dumper.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=not nested)


def _represent_float(dumper: yaml.SafeDumper, value: float) -> yaml.Node:
    # PyYAML writes 1e-05, which it reads back as text: always a plain decimal with a point.
    if not math.isfinite(value):
        name = {"inf": ".inf", "-inf": "-.inf"}.get(str(value), ".nan")
        return dumper.represent_scalar("tag:yaml.org,2002:float", name)
    text = format(Decimal(repr(value)), "f")
    return dumper.represent_scalar("tag:yaml.org,2002:float", text if "." in text else f"{text}.0")


_Dumper.add_representer(list, _represent_list)
_Dumper.add_representer(float, _represent_float)


def dump_yaml(config: Mapping[str, Any], path: str | Path, comment: str = "") -> None:
    """Write a config as MONAI's parser reads it back, with an optional first comment line."""
    text = yaml.dump(dict(config), Dumper=_Dumper, sort_keys=False, width=140, allow_unicode=True)
    write_text(path, (f"# {comment}\n" if comment else "") + text)
