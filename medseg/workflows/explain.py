"""Explain the config of a run or bundle: each value with its origin, and what refers to it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, Literal

from monai.bundle import ReferenceResolver

from medseg.bundle.compose import user
from medseg.bundle.config_check import check_overrides
from medseg.bundle.document import stored_training
from medseg.bundle.folder import Bundle
from medseg.bundle.recipe import Recipe, leaves
from medseg.settings import Folder, takes

__all__ = ["ConfigSettings", "explain"]


@dataclass(frozen=True)
class ConfigSettings:
    """Which value of which config is explained.

    Attributes:
        run: run or bundle folder.
        key: id of a value, or of what contains it (default: all).
        task: task whose config is meant.
        overrides: config values by their ids, such as learning_rate=0.01.
        overlays: further configs, such as gsm.
    """

    run: Folder = field(metadata={"positional": "RUN"})
    key: str | None = field(default=None, metadata={"positional": "KEY"})
    _: KW_ONLY
    task: Literal["train", "evaluate", "infer", "ensemble"] = "train"
    overrides: Mapping[str, Any] | None = field(default=None, metadata={"option": "set"})
    overlays: Sequence[str] = field(default=(), metadata={"option": "overlay"})


@takes(ConfigSettings)
def explain(settings: ConfigSettings) -> list[str]:
    """Show the values of a config, where each comes from, and what uses it.

    Returns:
        A line per value; of one value also what it refers to and what refers to it.

    Raises:
        ConfigError: no such id; the nearest is named.
        ModelError: there is no bundle.
    """
    bundle = Bundle(settings.run)
    plain = settings.task == "train" and not settings.overlays
    recipe = stored_training(bundle) if plain else bundle.recipe(settings.task, settings.overlays)
    check_overrides(recipe.tree, settings.overrides or {})
    recipe = recipe.over(user(settings.overrides))
    if settings.key is None:
        return [_line(recipe, id_, value) for id_, value in leaves(recipe.tree)]
    key = ReferenceResolver.normalize_id(settings.key)
    value = recipe.value(key)
    lines = [_line(recipe, "::".join(filter(None, (key, id_))), found) for id_, found in leaves(value)]
    for target, found in _chain(recipe, value):
        lines += ["refers to:", *(_line(recipe, "::".join(filter(None, (target, i))), v) for i, v in leaves(found))]
    users = [id_ for id_, found in leaves(recipe.tree) if isinstance(found, str) and found == f"@{key}"]
    return lines + ([f"used by: {', '.join(users)}"] if users else [])


def _chain(recipe: Recipe, value: Any) -> Iterator[tuple[str, Any]]:
    """The ids that a reference leads to, one after the other, with their content."""
    seen: set[str] = set()
    while isinstance(value, str) and value.startswith("@") and value[1:] not in seen:
        seen.add(value[1:])
        id_, value = value[1:], recipe.value(value[1:])
        yield id_, value


def _line(recipe: Recipe, id_: str, value: Any) -> str:
    origin = recipe.origin(id_)
    shown = "null" if value is None else repr(value)
    return f"{id_} = {shown}    {origin or ''}".rstrip()
