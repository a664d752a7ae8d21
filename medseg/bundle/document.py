"""What a bundle says of itself, from its final config: the settings in ``docs/README.md``, what goes in and out in
``metadata.json``, and where each value comes from in ``configs/origin.json``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from medseg.bundle.dump import rewrite_yaml
from medseg.bundle.folder import Bundle
from medseg.bundle.metadata import data_format
from medseg.bundle.recipe import Layer, Recipe, ValueOrigin
from medseg.data.run_settings import ORIGINS, Setting, read_origins, reasons_in, settings_of
from medseg.storage import write_json, write_text

__all__ = ["describe_data", "readme_with", "rewrite_training", "stored_training", "training_settings", "write_origins"]

_HEADING = "\n## Settings of the training\n"


def training_settings(train: Recipe) -> list[Setting]:
    """The settings of a training that have a value, each with its origin."""
    return [one for one in settings_of(train.tree, reasons_in(train.reasons)) if one.value]


def readme_with(text: str, settings: Sequence[Setting]) -> str:
    """A README whose last section is these settings."""
    before = text.partition(_HEADING)[0].rstrip("\n")
    lines = "\n".join(f"    {setting.line()}" for setting in settings)
    return f"{before}\n{_HEADING}\n{lines}\n"


def write_origins(root: str | Path, train: Recipe) -> None:
    """Write where each value of ``train.yaml`` comes from; for display, never for trust."""
    shown = {id_: [origin.where, origin.reason] for id_, origin in train.origins.items()}
    write_json(Path(root) / ORIGINS, shown)


def stored_training(bundle: Bundle, *layers: Layer) -> Recipe:
    """A run's ``train.yaml`` with the origins that it was written with, the file and line where they are not known;
    layers change it.
    """
    recipe = bundle.recipe("train")
    known = {id_: ValueOrigin("bundle", place, None, why) for id_, (place, why) in read_origins(bundle.root).items()}
    stored = Recipe(recipe.tree, {id_: known.get(id_, origin) for id_, origin in recipe.origins.items()})
    for layer in layers:
        stored = stored.over(layer)
    return stored


def rewrite_training(place: Bundle | str | Path, *layers: Layer) -> None:
    """Change a run's ``train.yaml`` and what is said of it."""
    bundle = Bundle.at(place)
    train = stored_training(bundle, *layers)
    rewrite_yaml(train.tree, bundle.config("train"))
    write_origins(bundle.root, train)
    readme = bundle.root / "docs" / "README.md"
    text = readme.read_text(encoding="utf-8") if readme.is_file() else ""
    write_text(readme, readme_with(text, training_settings(train)))


def describe_data(metadata: Mapping[str, Any], train: Mapping[str, Any], channels: Sequence[str]) -> dict[str, Any]:
    """Metadata with what goes in and out; what they say besides, such as authors and references, stays.

    Args:
        metadata: the content of ``metadata.json``.
        train: the final config, unresolved.
        channels: names of the image's channels, where the data set gives them.
    """
    content: dict[str, Any] = deepcopy(dict(metadata))
    image, pred = (_part(content, "network_data_format", *keys) for keys in (("inputs", "image"), ("outputs", "pred")))
    if not isinstance(image, dict) or not isinstance(pred, dict):
        return content  # another task's
    names = list(channels) or list(image.get("channel_def", {}).values())
    inputs, outputs = data_format(train, names)
    if outputs["channel_def"] != pred.get("channel_def"):
        content["pred_classes"] = ", ".join(outputs["channel_def"].values())
        content["label_classes"] = content["pred_classes"].removeprefix("background, ")
    image |= inputs
    pred |= outputs
    return content


def _part(value: Any, *keys: str) -> Any:
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value
