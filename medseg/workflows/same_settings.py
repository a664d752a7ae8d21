"""Is a run that of the settings that a training is told? Answered from the run's own files: no image is read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from os.path import commonprefix
from pathlib import Path
from typing import Any

from medseg.bundle.compose import command
from medseg.bundle.folder import INITIAL, Bundle
from medseg.bundle.plan_layer import LIGHT
from medseg.bundle.recipe import Recipe, split_id
from medseg.data import read_datalist
from medseg.data.plan_grid import FULL, SLICES
from medseg.data.run_settings import read_origins
from medseg.errors import ConfigError, DataError
from medseg.networks import network_target
from medseg.networks.catalog import own_network
from medseg.shipped import find_bundle
from medseg.workflows.run_folder import differences
from medseg.workflows.train_settings import TrainSettings

__all__ = ["OF_MACHINE", "SettingsHeld", "hold_settings", "refuse_other", "stored_list"]

OF_MACHINE = {"cache", "compile", "num_workers"}  # what a plan takes from the machine: it may differ when a run resumes
_PLACES = {"dataset_dir", "device"}  # told with each command
_EARLIER = {"num_validations": "validations"}  # id -> its name in earlier versions
_SHOWN, _WIDTH = 5, 80  # of settings in a sentence, and characters of a value
_UNIVERSAL = "universal"  # recipe of a training on several data sets, whatever is told


@dataclass(frozen=True)
class SettingsHeld:
    """What a training is told, held against a run.

    Attributes:
        changed: id -> value of the run, and the one that is told.
        unknown: what cannot be held against it, as the version that trained it did not keep it.
    """

    changed: Mapping[str, tuple[Any, Any]]
    unknown: tuple[str, ...] = ()


def refuse_other(run: Path, changed: Mapping[str, tuple[Any, Any]]) -> None:
    """Refuse to take a run for one of other settings.

    Raises:
        ConfigError: naming what differs.
    """
    if changed:
        pairs = list(changed.items())[:_SHOWN]
        shown = "; ".join(f"{key}: {' -> '.join(_short(*pair))}" for key, pair in pairs)
        raise ConfigError(
            f"{run} holds a run with other settings ({shown}). Use another --output folder, or the settings of "
            f"that run."
        )


def _short(*values: Any) -> list[str]:
    """Each value; of long ones what begins shortly before they differ."""
    texts = [repr(value) for value in values]
    same = max(0, len(commonprefix(texts)) - _WIDTH // 4) if max(map(len, texts)) > _WIDTH else 0
    found = [f"{'… ' if same else ''}{text[same:]}" for text in texts]
    return [text if len(text) <= _WIDTH else f"{text[: _WIDTH - 2]} …" for text in found]


def stored_list(run: Path, data_dir: str) -> bytes:
    """The run's own datalist; empty where it is damaged."""
    try:
        return read_datalist(run / "configs" / "datalist.json", data_dir).as_stored()
    except DataError:
        return b""


def hold_settings(settings: TrainSettings, run: Path) -> SettingsHeld:
    """Hold what a training is told against the run in its folder, but for what a machine may change.

    What is planned for the data follows from it, so that it is not compared.

    Raises:
        ConfigError, DataError: a file of the run or the datalist is damaged.
    """
    recipe, origins = Bundle(run).recipe("train"), read_origins(run)
    tree, told = recipe.tree, _told(settings, recipe.tree)
    changed = _source(settings, run, origins) | (_planned(settings, tree) if settings.network else {})
    changed |= _given(recipe, told)
    for id_, (place, _) in origins.items():
        if place == "--set" and not _is_told(id_, told):
            changed[id_] = (recipe.value(id_), None)
    datalist = read_datalist(settings.json_list, settings.data_dir)
    if stored_list(run, str(datalist.data_dir)) != datalist.as_stored():  # wherever its data lie now
        changed["datalist"] = ("as stored", "another content")
    unknown = [] if origins else ["where settings come from"]
    unknown += [f"the {name}" for name in ("recipe", "configuration") if settings.network and not tree.get(name)]
    return SettingsHeld({key: pair for key, pair in changed.items() if key not in OF_MACHINE | _PLACES}, tuple(unknown))


def _told(settings: TrainSettings, tree: Mapping[str, Any]) -> dict[str, Any]:
    """Config id -> value that the settings give it; ids of a network's plan are not among them."""
    options: dict[str, Any] = {"fold": settings.fold, "max_minutes": settings.max_minutes}
    options |= {"seed": settings.seed} if settings.bundle is None or settings.seed else {}
    options |= {"epochs": settings.epochs} if settings.max_minutes is None and settings.epochs is not None else {}
    told = {**(settings.overrides or {}), **{key: value for key, value in options.items() if key in tree}}
    return {key if key in tree else _EARLIER.get(key, key): value for key, value in told.items()}


def _given(stored: Recipe, told: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """What would become another value of a stored config."""
    changed: dict[str, tuple[Any, Any]] = {}
    recipe = stored
    for key, value in told.items():
        id_ = "::".join(split_id(key))
        try:
            before = stored.value(id_)
        except ConfigError:
            changed |= {} if key[0] == "~" or value is None else {id_: (None, value)}
            continue
        if key[0] not in "+~":
            recipe = recipe.over(command({key: value}))
        elif key[0] == "~" or not _extends(before, value):
            changed[id_] = (before, None if key[0] == "~" else value)
    return changed | differences(*(json.loads(json.dumps(one.tree)) for one in (stored, recipe)))


def _extends(whole: Any, value: Any) -> bool:
    if isinstance(value, Mapping):
        return isinstance(whole, Mapping) and {**whole, **value} == whole
    return isinstance(whole, list) and whole[-len(value) :] == list(value)


def _is_told(id_: str, told: Mapping[str, Any]) -> bool:
    """Whether a value is what is told, lies in it, or contains it."""
    names = ["::".join(split_id(key)) for key in told]
    return any(f"{id_}::".startswith(f"{name}::") or name.startswith(f"{id_}::") for name in names)


def _source(settings: TrainSettings, run: Path, origins: Mapping[str, tuple[str, str]]) -> dict[str, tuple[Any, Any]]:
    """Another bundle or other overlays than those whose values a run has; known by their names, as folders move."""
    if not origins:
        return {}
    files = {Path(place.rpartition(":")[0]) for place, _ in origins.values()}
    before = {file.parent.parent.name for file in files if file.stem == "train" and file.parent.name == "configs"}
    before -= {run.name}  # its own file, where an earlier version kept no origins
    now = {find_bundle(settings.bundle).resolve().name} if settings.bundle else set()
    changed: dict[str, tuple[Any, Any]] = {} if before == now else {"bundle": (sorted(before), sorted(now))}
    used = {why.removeprefix("overlay ") for _, why in origins.values() if why.startswith("overlay ")}
    named = {Path(name).stem for name in settings.overlays}
    return changed if used == named else changed | {"overlays": (sorted(used), sorted(named))}


def _planned(settings: TrainSettings, tree: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Another network, recipe or configuration than those that a run was planned for, or other first weights."""
    definition = tree["network_def"]
    own = own_network(definition)
    recipe, configuration = tree.get("recipe"), tree.get("configuration")
    told: dict[str, tuple[Any, Any]] = {
        "network_def::_target_": (own.get("_target_"), network_target(str(settings.network)))
    }
    if recipe and (recipe, settings.recipe) != (_UNIVERSAL, LIGHT):
        told["recipe"] = (recipe, settings.recipe)
    default = SLICES if configuration == SLICES and own is definition else FULL  # 2D images have no other
    if configuration:
        told["configuration"] = (configuration, settings.configuration or default)
    path = tree["initial"].get("path") if isinstance(tree.get("initial"), Mapping) else None
    started = isinstance(path, Mapping) and path.get("name") == INITIAL
    if started != (settings.transfer is not None):
        told["transfer"] = (path, None if settings.transfer is None else str(settings.transfer))
    return {key: pair for key, pair in told.items() if pair[0] != pair[1]}
