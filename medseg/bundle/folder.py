"""A bundle or run on disk: its configs and metadata, each read once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from medseg.bundle.recipe import Layer, Recipe, Tree, split_id
from medseg.errors import ConfigError, DataError, ModelError, nearest
from medseg.shipped import find_bundle, shipped_bundles
from medseg.storage import as_formed, read_yaml_lines

__all__ = ["EARLIER", "INITIAL", "PREVIOUS", "TASKS", "Bundle", "folds_hint"]

INITIAL = "models/initial.pt"  # of a run: weights of another training that it started from
PREVIOUS = "previous"  # folder of a bundle: the earlier stage, whose label maps it refines
EARLIER = "earlier stage: "  # begins the names of channels that are labels of it

TASKS = {
    "train": ("train",),
    "evaluate": ("train", "evaluate"),
    "infer": ("inference",),
    "ensemble": ("inference", "ensemble"),
}
_SUFFIXES = ("", ".yaml", ".yml", ".json")
_FORM = {
    **dict.fromkeys(("labels?", "network_def?", "preprocess?"), dict),
    "roi_size?": ([int], str),  # or a reference
}


class Bundle:
    """The folder of a bundle or a run.

    Its files are read when they are first asked for, and not again: whoever changes them makes a new ``Bundle``.

    Args:
        root: the folder, or the name of a bundle that comes with medseg.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = find_bundle(root).resolve()
        self._layers: dict[Path, Layer] = {}
        self._recipes: dict[tuple[str, ...], Recipe] = {}
        self._metadata: dict[str, Any] | None = None
        self.metadata_lines: dict[str, int] = {}  # once the metadata are read, as ids of ``_meta_``

    @classmethod
    def at(cls, place: Bundle | str | Path) -> Bundle:
        """The bundle itself, or that of a folder."""
        return place if isinstance(place, Bundle) else cls(place)

    def __str__(self) -> str:
        return str(self.root)

    def has(self, name: str) -> bool:
        """Whether there is a config of this name, such as ``train``."""
        return any((self.root / "configs" / f"{name}{suffix}").is_file() for suffix in _SUFFIXES[1:])

    def config(self, name: str) -> Path:
        """The file of a config by its name in ``configs/``, or by its path.

        Raises:
            ModelError: there is none.
        """
        configs = self.root / "configs"
        for candidate in (*(configs / f"{name}{suffix}" for suffix in _SUFFIXES), Path(name)):
            if candidate.is_file():
                return candidate
        known = sorted(p.stem for p in configs.glob("*.yaml")) if configs.is_dir() else []
        near = nearest(name, known) if configs.is_dir() else nearest(self.root.name, shipped_bundles())
        expected = f"Expected a bundle with configs/{name}.yaml.{folds_hint(self.root)}"
        raise ModelError(f"{self.root} has no config '{name}'.{near} {expected}")

    def layer(self, name: str, kind: str = "bundle") -> Layer:
        """A config as it stands in its file.

        Raises:
            ModelError: there is none.
            ConfigError: it cannot be read.
        """
        path = self.config(name)
        if path not in self._layers:
            self._layers[path] = Layer.read(path, kind)
        layer = self._layers[path]
        if kind != "overlay":
            return layer
        return replace(
            layer,
            kind=kind,
            reasons=dict.fromkeys(map("::".join, map(split_id, layer.changes)), f"overlay {path.stem}"),
        )

    def recipe(self, task: str, overlays: Sequence[str] = ()) -> Recipe:
        """The configs of a task of ``TASKS``, and overlays (names in ``configs/``, or paths) over them.

        Raises:
            ModelError: the folder is not a bundle, or a config is missing.
            ConfigError: a config cannot be read, or is damaged.
        """
        key = (task, *overlays)
        if key in self._recipes:
            return self._recipes[key]
        layers = [self.layer(name) for name in TASKS[task]]
        recipe = Recipe.of(*layers, *(self.layer(name, "overlay") for name in overlays))
        try:
            as_formed(recipe.tree, _FORM, f"{recipe.tree.where} is damaged", "restore it, or make the bundle again")
        except DataError as error:
            raise ConfigError(str(error)) from error
        self._recipes[key] = recipe
        return recipe

    @property
    def trained(self) -> Tree:
        """The config that its network was trained with; of a bundle without ``train.yaml``, that of inference.

        Raises:
            ModelError, ConfigError: as ``recipe``.
        """
        return self.recipe("train" if self.has("train") else "infer").tree

    @property
    def metadata(self) -> Mapping[str, Any]:
        """The content of ``metadata.json``; empty where there is none.

        Raises:
            DataError: it cannot be read.
        """
        if self._metadata is None:
            path = self.root / "configs" / "metadata.json"
            self._metadata, lines = read_yaml_lines(path, DataError) if path.is_file() else ({}, {})
            self.metadata_lines = {f"_meta_::{id_}": line for id_, line in lines.items()}
        return self._metadata

    @property
    def channel_names(self) -> list[str]:
        """Names of the image channels by the metadata; empty where they do not say."""
        found: Any = self.metadata
        for key in ("network_data_format", "inputs", "image", "channel_def"):
            found = found.get(key, {}) if isinstance(found, Mapping) else {}
        names = map(str, found.values()) if isinstance(found, Mapping) else ()
        return [name for name in names if not name.startswith(EARLIER)]


def folds_hint(folder: Path) -> str:
    """What to name in the place of a folder of folds, after a blank; empty for other folders."""
    fold = next((path.parents[1] for path in sorted(folder.glob("fold*/configs/train.yaml"))), None)
    return f" It holds folds: name one, such as {fold}." if fold else ""
