"""From a recipe to the configs of a self-contained MONAI bundle.

A recipe, ``bundles/<name>/recipe.yaml`` or one of ``bundle/base`` and ``bundle/recipes``, says what is particular.
Each of its sections is a config file: ``train`` and ``inference``, whose content it changes as a layer of
``bundle.recipe`` (``both`` changes both), and the overlays on them by their names. ``base`` names the recipes that it
stands on. A section's ``about`` is the comment that the file begins with.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from medseg.bundle.copy import copy_texts
from medseg.bundle.dump import dump_yaml
from medseg.bundle.recipe import Layer, Recipe, Tree, split_id
from medseg.errors import ConfigError, ModelError, nearest
from medseg.settings import Folder, takes
from medseg.shipped import find_bundle, is_installed, shipped_bundles
from medseg.storage import read_table, read_yaml_lines
from medseg.transforms.augmentations import trained_mirror_axes

__all__ = [
    "RECIPE",
    "TRAINED_AXES",
    "BuildSettings",
    "BundleRecipe",
    "Section",
    "base_file",
    "build",
    "build_bundle",
    "named_recipes",
    "recipe_folders",
]

RECIPE = "recipe.yaml"
_BASE = Path(__file__).parent / "base"
_NAMED = Path(__file__).parent / "recipes"  # trainings that `--recipe` names
_LICENSE = Path(__file__).parent / "LICENSE.txt"
_WHOLE = ("train", "inference")  # the others are overlays on these
_SHARED, _ABOUT = "both", "about"
_MIRRORED, _VALIDATED = "mirror_axes", "validate::inferer::mirror_axes"  # null: the axes that training mirrors
TRAINED_AXES = "trained_mirror_axes"  # id of inference.yaml: a packaged bundle may have no train.yaml
# Both configs have these ids, each with its own value.
_OWN_OF_INFERENCE = ("bundle_root", "output_dir", "ckpt_path", "initialize", "run", "finalize")


@dataclass(frozen=True)
class Section:
    """What a recipe says of one config file.

    Attributes:
        file: ``train``, ``inference``, ``both`` or an overlay's name.
        layer: the changes.
        about: comment of the file; empty where an earlier section says it.
    """

    file: str
    layer: Layer
    about: str = ""


@dataclass(frozen=True)
class BundleRecipe:
    """A recipe.

    Attributes:
        base: names of the recipes of ``bundle/base`` and ``bundle/recipes`` that it stands on.
        own: its sections.
    """

    base: tuple[str, ...]
    own: tuple[Section, ...]

    @classmethod
    def read(cls, path: str | Path, kind: str = "bundle") -> BundleRecipe:
        """A ``recipe.yaml``, whose values are of a ``kind`` of ``ValueOrigin``.

        Raises:
            ConfigError: not valid YAML, or a section that is not a mapping.
        """
        content, lines = read_yaml_lines(path)
        place = f"{Path(path).parent.name}/{Path(path).name}" if kind == "base" else str(path)
        own = []
        for file, changes in content.items():
            if file == "base":
                continue
            if not isinstance(changes, Mapping):
                raise ConfigError(f"{path}: section '{file}' is not a mapping; expected config ids and their values.")
            inside = {id_.removeprefix(f"{file}::"): line for id_, line in lines.items() if id_.startswith(f"{file}::")}
            changed = {key: value for key, value in changes.items() if key != _ABOUT}
            own.append(Section(file, Layer(changed, kind, place, inside), str(changes.get(_ABOUT, "")).strip()))
        return cls(tuple(content.get("base", ())), tuple(own))

    @cached_property
    def sections(self) -> list[Section]:
        """Its sections after those of all that it stands on, in the order in which they apply.

        Raises:
            ConfigError: a base that does not exist.
        """
        return [*_of_base(self.base, set()), *self.own]

    def with_section(self, section: Section) -> BundleRecipe:
        """The recipe with one more."""
        return replace(self, own=(*self.own, section))

    def over(self, layer: Layer) -> BundleRecipe:
        """The recipe with changes of ``train``; those of ids that ``inference`` shares change that too."""
        inference = self.config("inference").tree if "inference" in self.files else {}
        parts: dict[str, dict[str, Any]] = {_SHARED: {}, "train": {}}
        for key, value in layer.changes.items():
            top = split_id(key)[0]
            parts[_SHARED if top in inference and top not in _OWN_OF_INFERENCE else "train"][key] = value
        sections = (Section(file, replace(layer, changes=changes)) for file, changes in parts.items() if changes)
        return replace(self, own=(*self.own, *sections))

    def dump(self, path: str | Path, comment: str) -> None:
        """Write it as a ``recipe.yaml``; sections of one file become one."""
        content: dict[str, Any] = {"base": list(self.base)}
        for section in self.own:
            before = content.setdefault(section.file, {})
            for key, value in section.layer.changes.items():
                before.pop(key, None)  # what is changed twice applies last
                before[key] = value
        dump_yaml({key: value for key, value in content.items() if value}, path, comment)

    @property
    def files(self) -> list[str]:
        """The config files that it makes, by name."""
        return list(dict.fromkeys(section.file for section in self.sections if section.file != _SHARED))

    def config(self, file: str) -> Recipe:
        """``train`` or ``inference``, with the origin of every value.

        Raises:
            ConfigError: a layer changes what those before it do not hold.
        """
        found = Recipe.of(*(section.layer for section in self.sections if section.file in (file, _SHARED)))
        if file == "inference" and found.tree.get(_MIRRORED, ()) is None:
            reason = {_MIRRORED: "those of the training"}
            found = found.over(Layer({_MIRRORED: self._trained_axes}, "plan", reasons=reason))
        return found

    @property
    def _trained_axes(self) -> list[int]:
        return list(trained_mirror_axes(self.config("train").tree) or ())

    def overlay(self, file: str) -> dict[str, Any]:
        """An overlay: config id -> value; a later section's ``a::b`` goes into the ``a`` of an earlier one, its ``~a``
        takes that away.
        """
        content: dict[str, Any] = {}
        for section in self._of(file):
            for key, value in section.layer.changes.items():
                sign, id_ = ("~", key[1:]) if key.startswith("~") else ("", key)
                above = next((known for known in content if id_.startswith(f"{known}::")), None)
                if above is not None:
                    inside = {f"{sign}above::{id_.removeprefix(f'{above}::')}": value}
                    content[above] = Recipe(Tree(above=content[above])).over(Layer(inside, "overlay")).value("above")
                elif sign:
                    content.pop(id_, None)
                else:
                    content[key] = value
        if content.get(_VALIDATED, ()) is None:
            origin = self.config("train").origin(_VALIDATED)
            del content[_VALIDATED]
            content |= {} if origin and origin.kind == "user" else {_VALIDATED: self._trained_axes}
        return content

    def about(self, file: str) -> str:
        """The comment of a file."""
        return next((section.about for section in reversed(self._of(file)) if section.about), "")

    def _of(self, file: str) -> list[Section]:
        return [section for section in self.sections if section.file == file]

    def write(self, bundle: str | Path, title: str) -> None:
        """Write ``configs/*.yaml`` and ``LICENSE`` of a bundle.

        Raises:
            ConfigError: as ``config``.
        """
        configs = Path(bundle) / "configs"
        trees = {file: dict(self.config(file).tree) for file in _WHOLE if file in self.files}
        if "inference" in trees:
            trees["inference"] = _with_axes(trees["inference"], trees["train"])
        for file in self.files:
            if file in _WHOLE:
                tree = dict(sorted(trees[file].items(), key=lambda item: _is_wiring(item[1])))  # settings come first
                dump_yaml(tree, configs / f"{file}.yaml", f"{title}: {self.about(file)}")
            else:
                dump_yaml(self.overlay(file), configs / f"{file}.yaml", self.about(file))
        shutil.copyfile(_LICENSE, Path(bundle) / "LICENSE")


@dataclass(frozen=True)
class BuildSettings:
    """Which bundles are built.

    Attributes:
        bundle: folder of a bundle, or name of one of medseg's own (default: all of those).
        output: new folder for a copy of the bundle with its recipe, to be changed (default: the configs are written
            beside the recipe).
    """

    bundle: str | None = field(default=None, metadata={"positional": "NAME|DIR"})
    output: Folder | None = None


@takes(BuildSettings)
def build(settings: BuildSettings) -> list[Path]:
    """Write the configs of a bundle from its recipe.yaml.

    Returns:
        The folders of the bundles.

    Raises:
        ModelError: there is no such bundle, or it has no recipe.
        ConfigError: the recipe cannot be read, the output exists, or the bundle is part of an installed medseg.
    """
    folders = recipe_folders(settings.bundle)
    if settings.output is not None:
        return [_build_copy(folders, Path(settings.output))]
    if installed := [folder.name for folder in folders if is_installed(folder)]:
        raise ConfigError(
            f"{installed[0]} is part of the installed medseg, which is not written into. Name a new folder for a copy "
            "of it with --output."
        )
    return [build_bundle(folder) for folder in folders]


def _build_copy(folders: Sequence[Path], target: Path) -> Path:
    if len(folders) != 1:
        raise ConfigError("--output is for a copy of one bundle; name the bundle.")
    if target.exists():
        raise ConfigError(f"--output {target} exists already; name a new folder.")
    copy_texts(folders[0], target)
    shutil.copyfile(folders[0] / RECIPE, target / RECIPE)
    return build_bundle(target)


def build_bundle(folder: str | Path) -> Path:
    """Materialise the configs of a bundle beside its ``recipe.yaml``; returns its folder.

    Raises:
        ModelError: the folder has no recipe.
        ConfigError, DataError: as ``BundleRecipe``.
    """
    root = Path(folder)
    if not (root / RECIPE).is_file():
        raise ModelError(f"{root} has no {RECIPE}; expected a bundle's folder. Write one, or use `medseg new-bundle`.")
    meta = read_table(root / "configs" / "metadata.json", "metadata; restore it")
    BundleRecipe.read(root / RECIPE).write(root, title_of(meta))
    return root


def title_of(metadata: Mapping[str, Any]) -> str:
    """What the configs of a bundle begin with."""
    return f"{metadata.get('name')} ({'; '.join(metadata.get('references', []))})".removesuffix(" ()")


def recipe_folders(name: str | None = None) -> list[Path]:
    """The folders of bundles with recipes: a folder, one of medseg's own by its name, or all of those.

    Raises:
        ModelError: there is none of this name.
    """
    shipped = shipped_bundles()
    if name is None:
        return list(shipped.values())
    folder = find_bundle(name)
    if not folder.is_dir():
        raise ModelError(f"No bundle '{name}'.{nearest(name, shipped)} Name its folder, or one of medseg's bundles.")
    return [folder]


def base_file(name: str) -> Path | None:
    """The file of a recipe that others stand on; ``None`` where there is none."""
    paths = (folder / f"{name}.yaml" for folder in (_BASE, _NAMED))
    return next((path for path in paths if path.is_file()), None)


def named_recipes() -> list[str]:
    """What ``--recipe`` may name."""
    return sorted(path.stem for path in _NAMED.glob("*.yaml"))


def _of_base(names: Sequence[str], done: set[str]) -> Iterator[Section]:
    """The sections of recipes of ``bundle/base`` and of what these stand on, each recipe once."""
    for name in names:
        path = base_file(name)
        if path is None:
            known = sorted(file.stem for folder in (_BASE, _NAMED) for file in folder.glob("*.yaml"))
            raise ConfigError(f"No base '{name}' for a recipe.{nearest(name, known)} Known: {', '.join(known)}.")
        if name not in done:
            done.add(name)
            recipe = BundleRecipe.read(path, "base")
            yield from (*_of_base(recipe.base, done), *recipe.own)


def _with_axes(inference: Mapping[str, Any], train: Mapping[str, Any]) -> dict[str, Any]:
    """Inference knows the axes that training mirrors, since a packaged bundle may have no ``train.yaml``."""
    axes = trained_mirror_axes(train)
    kept = {key: value for key, value in inference.items() if key != TRAINED_AXES}
    return dict(inference) if axes is None else {TRAINED_AXES: list(axes), **kept}


def _is_wiring(value: Any) -> bool:
    """Whether a value holds components or refers to other ids."""
    if isinstance(value, Mapping):
        return "_target_" in value or any(map(_is_wiring, value.values()))
    if isinstance(value, list):
        return any(map(_is_wiring, value))
    return isinstance(value, str) and value.startswith("@")
