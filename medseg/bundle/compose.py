"""Bundle + overlays + overrides -> MONAI ``ConfigWorkflow``, with everything refused that ``config_check`` refuses."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from monai.bundle import BundleWorkflow, ConfigParser, ConfigWorkflow
from monai.bundle.utils import merge_kv

from medseg.bundle.config_check import check_arguments, check_config, check_overrides
from medseg.bundle.own_words import user_speaks
from medseg.bundle.trust import judged, require_own_folder
from medseg.errors import ConfigError, DataError, ModelError, nearest
from medseg.faults import unwrapped
from medseg.storage import as_formed, parse_yaml, read_yaml

__all__ = [
    "TASKS",
    "Workflow",
    "bundle_tree",
    "changed_configs",
    "config_files",
    "load_workflow",
    "merged_config",
    "parse_assignments",
    "used_config",
    "with_changes",
]

# Both configs have these ids, each with its own value.
_OWN_OF_INFERENCE = ("imports", "bundle_root", "output_dir", "ckpt_path", "initialize", "run", "finalize")
_FORM = {
    **dict.fromkeys(("labels?", "network_def?", "preprocess?"), dict),
    "roi_size?": ([int], str),  # or an expression
}
TASKS = {
    "train": ("train",),
    "evaluate": ("train", "evaluate"),
    "infer": ("inference",),
    "ensemble": ("inference", "ensemble"),
}


def config_files(bundle: str | Path, task: str, overlays: Sequence[str] = ()) -> list[Path]:
    """The config files of a task in merging order; overlays are names in ``configs/`` or paths.

    Raises:
        ModelError: the folder is no bundle, or a file is missing.
    """
    configs = Path(bundle) / "configs"
    return [_config(configs, name) for name in (*TASKS[task], *overlays)]


def _config(configs: Path, name: str) -> Path:
    for candidate in (*(configs / f"{name}{suffix}" for suffix in ("", ".yaml", ".yml", ".json")), Path(name)):
        if candidate.is_file():
            return candidate
    known = sorted(p.stem for p in configs.glob("*.yaml")) if configs.is_dir() else []
    fold = next((path.parents[1] for path in sorted(configs.parent.glob("fold*/configs/train.yaml"))), None)
    hint = f" It holds folds: name one, such as {fold}, or join them with `medseg ensemble`." if fold else ""
    expected = f"Expected a bundle with configs/{name}.yaml.{hint}"
    raise ModelError(f"{configs.parent} has no config '{name}'.{nearest(name, known)} {expected}")


def merged_config(files: Sequence[Path], *, patches: bool = False) -> dict[str, Any]:
    """The content of several config files merged by MONAI's rules, unresolved.

    ``patches``: that of one file as it stands, with its ``a::b`` and ``+a``.

    Raises:
        ConfigError: not valid YAML, a duplicate key, or a tag that would build Python objects, with file and line; a
        misspelt key.
    """
    if patches:
        return read_yaml(files[0])
    merged: dict[str, Any] = {}
    for file in files:
        changes = read_yaml(file)
        odd = next((key for key in changes if not isinstance(key, str) or not key.strip("+~:# ")), None)
        if odd is not None:
            raise ConfigError(f"{file}: {odd!r} is not a valid key; expected the name of an id. Rename it.")
        try:
            merged = with_changes(merged, changes)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise ConfigError(
                f"{file}: an entry patches something that {', '.join(f.name for f in files)} do not hold ({error}); "
                "check its id."
            ) from error
    return _Config(merged, " + ".join(map(str, files)))


class _Config(dict[str, Any]):
    """A merged config; what it lacks is a fault of its files.

    Raises:
        ConfigError: an entry that every config of medseg has is missing, or of another kind.
    """

    def __init__(self, content: Mapping[str, Any], where: str) -> None:
        super().__init__(content)
        self.where = where
        try:
            as_formed(content, _FORM, f"{where} is damaged", "restore it, or make the bundle again")
        except DataError as error:
            raise ConfigError(str(error)) from error

    def __missing__(self, key: str) -> Any:
        raise ConfigError(f"{self.where} has no '{key}', which configs of medseg have; restore it, or name another.")


def with_changes(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """``changes``, config id -> value, over ``base`` by MONAI's rules (``a::b`` patches, ``+a`` extends)."""
    parser = ConfigParser(deepcopy(dict(base)))
    for key, value in changes.items():
        merge_kv(parser, key, value)
    return dict(parser.get())


@user_speaks("overrides")
def changed_configs(
    bundle: str | Path, overlays: Sequence[str] = (), overrides: Mapping[str, Any] | None = None
) -> dict[str, dict[str, Any]]:
    """``train`` and ``inference`` config of a bundle with overlays and overrides applied to both.

    What inference shares with training (network, window, preprocessing, labels) must change in both; entries whose
    top-level id inference does not have concern training alone.

    Raises:
        ConfigError: an override or an overlay names what the config does not have.
    """
    overrides = dict(overrides or {})
    require_own_folder(Path(bundle))
    files = config_files(bundle, "train", overlays)
    layers = [merged_config([file], patches=True) for file in files[1:]]
    result = {"train": _changed(merged_config(files), overrides, files)}
    try:
        files = config_files(bundle, "infer")
    except ModelError:  # a bundle may be for training alone
        return result
    inference = merged_config(files)
    for changes in (*layers, overrides):
        shared = {k: v for k, v in changes.items() if _top(k) in inference and _top(k) not in _OWN_OF_INFERENCE}
        inference = with_changes(inference, shared)
    judged(inference, files)
    return result | {"inference": inference}


def _changed(config: Mapping[str, Any], overrides: Mapping[str, Any], files: Sequence[Path]) -> dict[str, Any]:
    """A config with overrides, checked; what it names is imported for the check, so it is judged before."""
    check_overrides(config, overrides, _names(files))
    changed = with_changes(config, overrides)
    check_config(changed, _names(files))
    judged(changed, files)
    check_arguments(changed)
    return changed


def used_config(
    bundle: str | Path, task: str, overrides: Mapping[str, Any] | None = None, overlays: Sequence[str] = ()
) -> dict[str, Any]:
    """The merged config of a task with overlays and overrides, unresolved, once it is trusted and its ids are known.

    Raises:
        ConfigError: an override names what the config does not have.
        ModelError: the folder is not a bundle, or its config would run foreign code.
    """
    require_own_folder(Path(bundle))
    files = config_files(bundle, task, overlays)
    return _changed(merged_config(files), overrides or {}, files)


def _top(key: str) -> str:
    return key.lstrip("+").replace("#", "::").partition("::")[0]


def _names(files: Sequence[Path]) -> str:
    return " + ".join(file.name for file in files)


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
                f"--set {assignment!r} is no assignment; expected id=value, for example learning_rate=0.001."
            )
        value = parse_yaml(text, f"--set {key}")
        if isinstance(value, str):
            with contextlib.suppress(ValueError):
                value = float(value)  # YAML 1.1 reads 1e-3 as text
        overrides[key.replace("#", "::")] = value
    return overrides


class _Parser(ConfigParser):
    """MONAI wraps every error inside a component or an expression such as ``$@train::trainer.run()`` into a
    RuntimeError; here our own come out as they are.
    """

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
            tree: what ``judged`` returns, with ``_meta_``.
            kind: ``train`` or ``infer``, whose properties MONAI's tools ask for.
        """
        BundleWorkflow.__init__(self, workflow_type=kind)  # that of ConfigWorkflow reads files
        self.parser = _Parser(deepcopy(dict(tree)))
        self.config_root_path = Path(str(tree.get("bundle_root", "."))) / "configs"
        self.init_id, self.run_id, self.final_id = "initialize", "run", "finalize"
        self._is_initialized = False

    def run(self) -> Any:
        return self._run_expr(self.run_id)  # MONAI's puts the bundle's folder on sys.path before


def bundle_tree(
    bundle: str | Path, task: str, overrides: Mapping[str, Any] | None = None, overlays: Sequence[str] = ()
) -> dict[str, Any]:
    """The one tree that a task of ``TASKS`` is: config files, overlays and overrides merged, checked and judged.

    Raises:
        ConfigError: the config or an override holds what ``config_check`` refuses.
        ModelError: the folder is not a bundle, or its config would run foreign code (``medseg.bundle.trust``).
    """
    root = Path(bundle).resolve()
    require_own_folder(root)
    files = config_files(bundle, task, overlays)
    config = merged_config(files)
    meta = root / "configs" / "metadata.json"
    described = {"_meta_": merged_config([meta], patches=True)} if meta.is_file() else {}  # resolved by tools too
    check_overrides(config, overrides or {}, _names(files))
    changed = with_changes(config, {"bundle_root": str(root)} | dict(overrides or {}))
    check_config(changed, _names(files))
    tree = judged({"_meta_": {}} | changed | described, [*files, meta] if described else files)
    check_arguments(tree)
    return tree


def load_workflow(
    bundle: str | Path,
    task: str,
    overrides: Mapping[str, Any] | None = None,
    overlays: Sequence[str] = (),
    built: Mapping[str, Any] | None = None,
) -> Workflow:
    """A bundle's workflow for a task of ``TASKS``, initialised.

    ``built``: ids with objects that exist already, such as data sets whose caches are filled.

    Raises:
        ConfigError, ModelError: as ``bundle_tree``.
    """
    tree = bundle_tree(bundle, task, overrides, overlays)
    workflow = Workflow(tree, "infer" if task in ("infer", "ensemble") else "train")
    workflow.initialize()
    workflow.parser.ref_resolver.resolved_content.update(built or {})
    return workflow
