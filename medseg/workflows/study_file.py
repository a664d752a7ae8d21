"""What a study compares, as its YAML file says it: every mapping of the file is one frozen value."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from medseg.bundle.plan_layer import LIGHT, check_recipe
from medseg.bundle.recipe import Layer, Recipe
from medseg.data.plan_grid import check_configuration
from medseg.engines.time_limit import CLOCKS
from medseg.errors import ConfigError, DataError, nearest
from medseg.metrics.catalog import DEFAULT_METRICS
from medseg.networks import network_target
from medseg.shipped import find_bundle, shipped_name
from medseg.storage import as_formed, read_yaml

__all__ = ["Budget", "ExternalSet", "Search", "Study", "StudyData", "StudyNetwork", "read_study"]

T = TypeVar("T", "StudyNetwork", "StudyData", "ExternalSet")
_REMEDY = "expected a study file as the README shows it; correct that value"
_PATHS = ("json_list", "data_dir", "bundle")


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How long every member trains, by one of these.

    Attributes:
        iterations: number of batches.
        cpu_seconds: CPU time of the training, which other processes on the machine do not change.
        gpu_seconds: time for which the training holds its GPU.
    """

    iterations: int | None = None
    cpu_seconds: float | None = None
    gpu_seconds: float | None = None

    @property
    def clock(self) -> str:
        """Clock of a budget in seconds (``medseg.engines.time_limit``)."""
        return CLOCKS[self.cpu_seconds is not None]

    @property
    def seconds(self) -> float | None:
        """The budget in seconds; ``None`` where it is of iterations."""
        return self.gpu_seconds if self.cpu_seconds is None else self.cpu_seconds


@dataclass(frozen=True, kw_only=True)
class StudyNetwork:
    """One of the compared methods.

    Attributes:
        name: its name in tables.
        network: name of `medseg networks`, MONAI class or dotted path (default: ``name``).
        bundle: bundle in the network's place.
        overlays: further configs of the bundle.
        settings: config ids of this method alone.
        recipe: named training of `medseg train` (default: the study's); a bundle has its own.
        configuration: 2d, 3d_fullres or 3d_lowres of `medseg train` (default: the study's); a bundle has its own.
    """

    name: str
    network: str | None = None
    bundle: str | None = None
    overlays: Sequence[str] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    recipe: str | None = None
    configuration: str | None = None


@dataclass(frozen=True, kw_only=True)
class StudyData:
    """Data that every method is trained on and scored with.

    Attributes:
        name: its name in tables.
        json_list: datalist.
        data_dir: base directory for relative paths in the datalist.
        folds: folds that are trained (default: all; the validation section of a list without folds).
        transfer: name of the data whose trained networks are fine-tuned, each its own; of their first fold.
        settings: config ids of trainings on these data.
    """

    name: str
    json_list: str
    data_dir: str | None = None
    folds: Sequence[int] = ()
    transfer: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ExternalSet:
    """Cases that no member was trained on.

    Attributes:
        name: its name in tables.
        json_list: datalist; all its labelled cases are scored.
        data_dir: base directory for relative paths in the datalist.
        trained_on: name of the data whose networks are scored.
        labels: label of these data -> its values here; other values must not occur, labels that are not named are not
            scored.
        folds: folds whose networks are scored (default: all that are trained).
    """

    name: str
    json_list: str
    data_dir: str | None = None
    trained_on: str
    labels: Mapping[str, Any]
    folds: Sequence[int] = ()


@dataclass(frozen=True, kw_only=True)
class Search:
    """The search of the learning rate: the same for every method, on the training cases of each fold alone.

    Attributes:
        learning_rates: rates that are tried; none means no search.
        share: share of the budget that each of them gets.
        holdout: share of the training cases that choose.
    """

    learning_rates: Sequence[float] = ()
    share: float = 0.25
    holdout: float = 0.25


@dataclass(frozen=True, kw_only=True)
class Study:
    """A study.

    Attributes:
        networks: the compared methods; the first is the baseline.
        data: what they are trained on.
        external: what they are scored on besides.
        seeds: random seeds; several tell the spread over trainings.
        budget: budget of every member.
        search: search of the learning rate.
        validations: number of validations of each training.
        checkpoint: weights that are scored: last, or best by the validations.
        settings: config ids of all trainings.
        recipe, configuration: named training and configuration of all methods that name none.
        equal: whether members may differ in nothing but method, data, fold and seed.
        device: cpu, cuda or cuda:N (default: a GPU where there is one).
        processes: number of processes of each training, by torchrun.
        score: score that is compared.
    """

    networks: Sequence[StudyNetwork]
    data: Sequence[StudyData]
    external: Sequence[ExternalSet] = ()
    seeds: Sequence[int] = (0,)
    budget: Budget
    search: Search = field(default_factory=Search)
    validations: int = 0
    checkpoint: str = "last"
    settings: Mapping[str, Any] = field(default_factory=dict)
    recipe: str = LIGHT
    configuration: str | None = None
    equal: bool = True
    device: str | None = None
    processes: int = 1
    score: str = "dice"

    def check(self) -> None:
        """Refuse what can be told before any data are read.

        Raises:
            ConfigError: naming the entry.
        """
        given = [name for name in vars(self.budget) if getattr(self.budget, name) is not None]
        if len(given) != 1 or not 0 < getattr(self.budget, given[0]) < math.inf:
            raise ConfigError(
                f"The budget has {' and '.join(given) or 'no entry'}; expected one number above 0: iterations, "
                "cpu_seconds or gpu_seconds. Give one."
            )
        if self.checkpoint not in ("last", "best") or (self.checkpoint == "best" and self.validations < 1):
            raise ConfigError(
                f"checkpoint '{self.checkpoint}' with {self.validations} validations: expected last, or best with "
                "validations to choose by. Add validations, or take last."
            )
        if self.budget.iterations is not None and self.validations > self.budget.iterations:
            raise ConfigError(
                f"{self.validations} validations in {self.budget.iterations} iterations: expected one or more "
                "iterations for each. Take fewer validations."
            )
        if not (0 < self.search.holdout <= 0.5 and 0 < self.search.share <= 1):
            raise ConfigError(
                f"search: holdout {self.search.holdout:g} and share {self.search.share:g}: expected shares above 0, to "
                "0.5 and to 1. Correct them."
            )
        lists: dict[str, Sequence[Any]] = {"seeds": self.seeds, "search::learning_rates": self.search.learning_rates}
        lists |= {f"data::{data.name}::folds": data.folds for data in self.data}
        lists |= {f"external::{one.name}::folds": one.folds for one in self.external}
        for place, values in lists.items():
            if twice := [value for number, value in enumerate(values) if value in values[:number]]:
                raise ConfigError(f"{place}: {twice[0]} is given twice; expected each once. Leave one out.")
        if self.score not in DEFAULT_METRICS:
            raise ConfigError(
                f"score '{self.score}' is unknown.{nearest(self.score, DEFAULT_METRICS)} Use "
                f"{', '.join(DEFAULT_METRICS)}."
            )
        if self.processes < 1 or self.validations < 0:
            raise ConfigError(
                f"processes {self.processes}, validations {self.validations}: expected numbers from 1 and from 0 on. "
                "Correct them."
            )
        for number, words in ((len(self.networks), "networks"), (len(self.data), "data"), (len(self.seeds), "seeds")):
            if not number:
                raise ConfigError(f"The study has no {words}; expected one or more. Add an entry.")
        if len(self.networks) < 2:
            raise ConfigError("The study has one network; expected two or more to compare. Add another.")
        check_recipe(self.recipe)
        for method in self.networks:
            check_recipe(method.recipe or self.recipe)
            check_configuration(method.configuration or self.configuration)
            if method.bundle is None:
                network_target(method.network or method.name)
            elif (method.recipe, method.configuration) != (None, None):
                raise ConfigError(
                    f"networks::{method.name}: a bundle has a training of its own, recipe and configuration are for "
                    "networks. Leave one of them out."
                )
            elif not (find_bundle(method.bundle) / "configs").is_dir():
                raise ConfigError(f"networks::{method.name}: bundle '{method.bundle}' not found. Fix the path.")
        names = [data.name for data in self.data]
        for place, name in [(f"data::{data.name}::transfer", data.transfer) for data in self.data] + [
            (f"external::{one.name}::trained_on", one.trained_on) for one in self.external
        ]:
            if name is not None and name not in names:
                raise ConfigError(f"{place}: the study has no data '{name}'.{nearest(name, names)} Name one of it.")
        self._refuse_circles()

    def _refuse_circles(self) -> None:
        sources = {data.name: data.transfer for data in self.data}
        for name in sources:
            seen, at = {name}, sources[name]
            while at is not None:
                if at in seen:
                    raise ConfigError(f"data::{name}::transfer leads back to '{at}'; train one of them from scratch.")
                seen.add(at)
                at = sources[at]


_NAMED = {"recipe?": str, "configuration?": str}  # of `medseg train`
_FORMS: dict[type, dict[str, Any]] = {
    Budget: {"iterations?": int, "cpu_seconds?": float, "gpu_seconds?": float},
    StudyNetwork: {"network?": str, "bundle?": str, "overlays?": [str], "settings?": dict, **_NAMED},
    StudyData: {"json_list": str, "data_dir?": str, "folds?": [int], "transfer?": str, "settings?": dict},
    ExternalSet: {"json_list": str, "data_dir?": str, "trained_on": str, "labels": dict, "folds?": [int]},
    Search: {"learning_rates?": [float], "share?": float, "holdout?": float},
    Study: {
        "networks": (dict, [str]),
        "data": {str: dict},
        "external?": {str: dict},
        "seeds?": [int],
        "budget": dict,
        "search?": dict,
        "validations?": int,
        "checkpoint?": str,
        "settings?": dict,
        **_NAMED,
        "equal?": bool,
        "device?": str,
        "processes?": int,
        "score?": str,
    },
}


def read_study(path: str | Path, overrides: Mapping[str, Any] | None = None) -> Study:
    """The study that a file describes.

    Args:
        path: YAML file; relative paths in it start at its folder.
        overrides: id (``budget::iterations``) -> value in its place.

    Raises:
        ConfigError: naming the entry, and the nearest known one.
    """
    path = Path(path)
    layers = [Layer(read_yaml(path), "user", str(path)), Layer(overrides or {}, "user", "--set")]
    table = dict(Recipe.of(*layers).tree)
    whole = _entries(Study, table, str(path))
    methods = whole["networks"]
    methods = dict.fromkeys(methods) if isinstance(methods, list) else methods
    whole["networks"] = _named(StudyNetwork, methods, path, "networks")
    whole["data"] = _named(StudyData, whole["data"], path, "data")
    whole["external"] = _named(ExternalSet, whole.get("external", {}), path, "external")
    for name, kind in (("budget", Budget), ("search", Search)):
        if name in whole:
            whole[name] = kind(**_entries(kind, whole[name], f"{path}, {name}"))
    study = Study(**whole)
    study.check()
    return study


def _entries(kind: type, table: Any, where: str) -> dict[str, Any]:
    """The entries of a mapping, each known and of its type."""
    known = [one.name for one in fields(kind) if one.name != "name"]
    table = {} if table is None else table
    for key in table if isinstance(table, Mapping) else ():
        if key not in known:
            raise ConfigError(f"{where}: unknown entry '{key}'.{nearest(key, known)} Known: {', '.join(known)}.")
    try:
        given = as_formed(table, _FORMS[kind], where, _REMEDY)
    except DataError as error:
        raise ConfigError(str(error)) from error
    return dict(given)


def _named(kind: type[T], table: Mapping[str, Any], path: Path, place: str) -> tuple[T, ...]:
    """The values of a mapping by their names, with paths from the study file's folder."""
    found = []
    for name, entry in table.items():
        if not str(name).replace("-", "").replace("_", "").replace(".", "").isalnum():
            raise ConfigError(f"{path}, {place}: '{name}' names a folder; use letters, digits, '-', '_' and '.' alone.")
        entries = _entries(kind, entry, f"{path}, {place}::{name}")
        for key in _PATHS:
            if key in entries and shipped_name(entries[key]) is None and (path.parent / entries[key]).exists():
                entries[key] = str((path.parent / entries[key]).resolve())
        found.append(kind(name=str(name), **entries))
    return tuple(found)
