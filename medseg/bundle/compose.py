"""Bundle, overlays and what a command is told -> one tree that is checked and judged, and MONAI's workflow of it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from monai.bundle import BundleWorkflow, ConfigParser, ConfigWorkflow

from medseg.bundle.config_check import check_arguments, check_config, check_overrides
from medseg.bundle.folder import Bundle
from medseg.bundle.recipe import FILES, Layer, Recipe
from medseg.bundle.trust import judged, require_own_folder
from medseg.data.run_settings import SET
from medseg.errors import ConfigError
from medseg.faults import unwrapped
from medseg.storage import parse_yaml

__all__ = [
    "Workflow",
    "amended",
    "checked",
    "command",
    "derived",
    "load_workflow",
    "parse_assignments",
    "resolve",
    "start",
    "user",
]


def user(overrides: Mapping[str, Any] | None) -> Layer:
    """What the user says (``--set``): config id -> value."""
    changes = dict(overrides or {})
    return Layer(changes, "user", "--set", reasons=dict.fromkeys(changes, SET))


def command(changes: Mapping[str, Any], reason: str = "") -> Layer:
    """What a command sets itself, such as places that its options name: config id -> value."""
    return Layer(dict(changes), "command", reasons=dict.fromkeys(changes, reason))


def derived(changes: Mapping[str, Any], place: str) -> Layer:
    """What a command takes from a file (``place``), which is judged like the file: config id -> value."""
    return Layer(dict(changes), "bundle", place)


def resolve(bundle: Bundle | str | Path, task: str, *layers: Layer, overlays: Sequence[str] = ()) -> Recipe:
    """The one tree that a task of ``TASKS`` is: config files, overlays and further layers merged, checked and judged.

    Raises:
        ConfigError: the config or a layer holds what ``config_check`` refuses.
        ModelError: the folder is not a bundle, or its config would run foreign code (``medseg.bundle.trust``).
    """
    folder = Bundle.at(bundle)
    require_own_folder(folder.root)
    recipe = folder.recipe(task, overlays)
    meta = _with_channels(folder.metadata or recipe.tree.get("_meta_") or {})
    described = Layer({"_meta_": meta}, "bundle", f"{folder}/configs/metadata.json", folder.metadata_lines)
    return checked(_over(recipe, layers).over(command({"bundle_root": str(folder.root)})).over(described))


def _with_channels(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Metadata with the id by which configs ask for the names of the channels, empty where they do not say."""
    content = found = deepcopy(dict(metadata))
    for key in ("network_data_format", "inputs", "image", "channel_def"):
        if not isinstance(found.get(key), dict):
            found[key] = {}
        found = found[key]
    return content


def checked(recipe: Recipe) -> Recipe:
    """The recipe, if its ids are known, it is judged, and its components take their arguments.

    What it names is imported for the last of these, so it is judged before.

    Raises:
        ConfigError, ModelError: as ``resolve``.
    """
    check_config(recipe.tree, _names(recipe))
    recipe = judged(recipe)
    check_arguments(recipe.tree)
    return recipe


def _over(recipe: Recipe, layers: Iterable[Layer]) -> Recipe:
    for layer in layers:
        if layer.kind not in FILES:
            check_overrides(recipe.tree, layer.changes, _names(recipe))
        recipe = recipe.over(layer)
    return recipe


def amended(recipe: Recipe, *layers: Layer) -> Recipe:
    """A resolved recipe with further layers, checked and judged again.

    Raises:
        ConfigError, ModelError: as ``resolve``.
    """
    return checked(_over(recipe, layers)) if any(layer.changes for layer in layers) else recipe


def _names(recipe: Recipe) -> str:
    return " + ".join(Path(place).name for place in recipe.tree.where.split(" + ")) or "the config"


def parse_assignments(assignments: Iterable[str]) -> dict[str, Any]:
    """``["learning_rate=0.001", "train::trainer::clip_norm=null"]`` -> overrides, values read as YAML.

    Raises:
        ConfigError: no ``=``, or a value that is not valid YAML.
    """
    overrides = {}
    for assignment in assignments:
        key, separator, text = assignment.partition("=")
        if not separator or not key:
            raise ConfigError(
                f"--set {assignment!r} is not an assignment; expected id=value, for example learning_rate=0.001."
            )
        value = parse_yaml(text, f"--set {key}")
        if isinstance(value, str):
            with contextlib.suppress(ValueError):
                value = float(value)  # YAML 1.1 reads 1e-3 as text
        overrides[key.replace("#", "::")] = value
    return overrides


class _Parser(ConfigParser):
    """MONAI wraps every error inside a component into a RuntimeError; here our own come out as they are."""

    def get_parsed_content(self, id: str = "", **kwargs: Any) -> Any:
        with unwrapped():
            return super().get_parsed_content(id, **kwargs)

    def parse(self, reset: bool = True) -> None:
        """MONAI's parsing replaces macros and relative ids; the tree that was judged has none left.

        Raises:
            AssertionError: what would be evaluated is not what was judged.
        """
        before = deepcopy(self.get())
        super().parse(reset)
        if self.get() != before:
            raise AssertionError("the config changed between its judgement and its evaluation")


class Workflow(ConfigWorkflow):
    """MONAI's workflow of a tree that was judged, and nothing else: no file is read, of the bundle's or of the current
    folder's, and the bundle's folder stays off Python's import path.
    """

    def __init__(self, tree: Mapping[str, Any], kind: str) -> None:
        """
        Args:
            tree: that of ``resolve``, with ``_meta_``.
            kind: ``train`` or ``infer``, whose properties MONAI's tools ask for.
        """
        BundleWorkflow.__init__(self, workflow_type=kind)  # that of ConfigWorkflow reads files
        self.parser = _Parser(deepcopy(dict(tree)))
        self.config_root_path = Path(str(tree.get("bundle_root", "."))) / "configs"
        self.init_id, self.run_id, self.final_id = "initialize", "run", "finalize"
        self._is_initialized = False

    def run(self) -> Any:
        return self._run_expr(self.run_id)  # MONAI's puts the bundle's folder on sys.path before


def start(recipe: Recipe, task: str, built: Mapping[str, Any] | None = None) -> Workflow:
    """The workflow of a recipe for a task of ``TASKS``, initialised.

    ``built``: ids with objects that exist already, such as data sets whose caches are filled.
    """
    workflow = Workflow(recipe.tree, "infer" if task in ("infer", "ensemble") else "train")
    workflow.initialize()
    workflow.parser.ref_resolver.resolved_content.update(built or {})
    return workflow


def load_workflow(
    bundle: Bundle | str | Path,
    task: str,
    overrides: Mapping[str, Any] | None = None,
    overlays: Sequence[str] = (),
    built: Mapping[str, Any] | None = None,
) -> Workflow:
    """``start`` of ``resolve`` with what the user overrides.

    Raises:
        ConfigError, ModelError: as ``resolve``.
    """
    return start(resolve(bundle, task, user(overrides), overlays=overlays), task, built)
