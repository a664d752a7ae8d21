"""What a bundle says of itself, written from its final config: the settings in ``docs/README.md``, what goes in and out
in ``metadata.json``, and in ``inference.yaml`` the axes that training mirrors.

Called whenever a ``train.yaml`` was written, so that nothing said differs from what runs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medseg.bundle.dump import dump_yaml
from medseg.bundle.metadata import data_format
from medseg.data.run_settings import Setting, settings_of
from medseg.errors import DataError
from medseg.storage import read_table, read_yaml, write_json, write_text
from medseg.transforms.augmentations import trained_mirror_axes

__all__ = ["TRAINED_AXES", "document_bundle", "read_reasons"]

TRAINED_AXES = "trained_mirror_axes"  # id of inference.yaml: a packaged bundle may have no train.yaml
_HEADING = "\n## Settings of the training\n"
_REASONS = "reasons.json"


def document_bundle(
    root: str | Path, reasons: Mapping[str, str] | None = None, channels: Sequence[str] = ()
) -> list[Setting]:
    """Write what follows from ``configs/train.yaml``; returns its settings.

    Args:
        root: the bundle's folder.
        reasons: config id -> why it is so, besides those that ``docs/reasons.json`` holds already.
        channels: names of the image's channels, where the data set gives them.
    """
    folder = Path(root)
    train = read_yaml(folder / "configs" / "train.yaml")
    known = read_reasons(folder) | dict(reasons or {})
    docs = folder / "docs"
    write_json(docs / _REASONS, known)
    settings = [setting for setting in settings_of(train, known) if setting.value]
    readme = docs / "README.md"
    before = readme.read_text(encoding="utf-8").partition(_HEADING)[0].rstrip("\n") if readme.is_file() else ""
    lines = "\n".join(f"    {setting.line()}" for setting in settings)
    write_text(readme, f"{before}\n{_HEADING}\n{lines}\n")
    _describe_data(folder / "configs" / "metadata.json", train, channels)
    _store_axes(folder / "configs" / "inference.yaml", train)
    return settings


def read_reasons(root: str | Path) -> dict[str, str]:
    """Config id -> why it is so, as ``document_bundle`` stored it; empty for other bundles."""
    path = Path(root) / "docs" / _REASONS
    try:
        content = read_table(path, "reasons") if path.is_file() else {}
    except DataError:  # for display alone
        return {}
    return {str(key): str(value) for key, value in content.items()}


def _describe_data(path: Path, train: Mapping[str, Any], channels: Sequence[str]) -> None:
    """Keep what a metadata file says besides, such as authors and references."""
    if not path.is_file():
        return
    content = read_table(path, "metadata; restore it")
    image, pred = (_part(content, "network_data_format", *keys) for keys in (("inputs", "image"), ("outputs", "pred")))
    if not isinstance(image, dict) or not isinstance(pred, dict):
        return  # another task's
    names = list(channels) or list(image.get("channel_def", {}).values())
    inputs, outputs = data_format(train, names)
    if outputs["channel_def"] != pred.get("channel_def"):
        content["pred_classes"] = ", ".join(outputs["channel_def"].values())
        content["label_classes"] = content["pred_classes"].removeprefix("background, ")
    image |= inputs
    pred |= outputs
    write_text(path, json.dumps(content, indent=4, ensure_ascii=False) + "\n")


def _part(value: Any, *keys: str) -> Any:
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _store_axes(path: Path, train: Mapping[str, Any]) -> None:
    axes = trained_mirror_axes(train)
    if not path.is_file() or axes is None:
        return
    config = read_yaml(path)
    if "mirror_axes" not in config or config.get(TRAINED_AXES) == list(axes):
        return
    first = path.read_text(encoding="utf-8").splitlines()[0]
    entries: dict[str, Any] = {}
    for key, value in config.items():
        if key == "mirror_axes":
            entries[TRAINED_AXES] = list(axes)
        if key != TRAINED_AXES:
            entries[key] = value
    dump_yaml(entries, path, first.removeprefix("# ") if first.startswith("#") else "")
