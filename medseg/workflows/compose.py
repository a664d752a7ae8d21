"""Bundle + overlays + overrides -> MONAI ``ConfigWorkflow``, with everything refused that ``config_check`` refuses."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml
from monai.bundle import ConfigParser, ConfigWorkflow
from monai.bundle.utils import merge_kv

from medseg.errors import ConfigError, ModelError, nearest, unwrapped
from medseg.workflows.config_check import check_config, check_overrides
from medseg.workflows.trust import require_trust

__all__ = [
    "TASKS",
    "changed_configs",
    "config_files",
    "load_workflow",
    "merged_config",
    "parse_assignments",
    "with_changes",
]

# Both configs have these ids, each with its own value.
_OWN_OF_INFERENCE = ("imports", "bundle_root", "output_dir", "ckpt_path", "initialize", "run", "finalize")
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
    for candidate in (Path(name), *(configs / f"{name}{suffix}" for suffix in ("", ".yaml", ".yml", ".json"))):
        if candidate.is_file():
            return candidate
    known = sorted(p.stem for p in configs.glob("*.yaml")) if configs.is_dir() else []
    raise ModelError(
        f"{configs.parent} has no config '{name}'.{nearest(name, known)} Expected a bundle with configs/{name}.yaml."
    )


def merged_config(files: Sequence[Path]) -> dict[str, Any]:
    """The content of several config files merged by MONAI's rules, unresolved.

    Raises:
        ConfigError: not valid YAML, a duplicate key, or a tag that would build Python objects, with file and line; a
        misspelt key.
    """
    for file in files:
        _refuse_bad_yaml(file)
    merged: dict[str, Any] = {}
    for file in files:
        try:
            merged = with_changes(merged, ConfigParser.load_config_file(str(file)))
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise ConfigError(
                f"{file}: an entry patches something that {', '.join(f.name for f in files)} do not hold ({error}); "
                "check its id."
            ) from error
    return merged


def with_changes(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """``changes``, config id -> value, over ``base`` by MONAI's rules (``a::b`` patches, ``+a`` extends)."""
    parser = ConfigParser(deepcopy(dict(base)))
    for key, value in changes.items():
        merge_kv(parser, key, value)
    return {key: value for key, value in parser.get().items() if key != "_meta_"}


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
    files = config_files(bundle, "train", overlays)
    train = merged_config(files)
    require_trust(train, files)  # the check below imports what the config names
    check_overrides(train, overrides, _names(files))
    result = {"train": with_changes(train, overrides)}
    check_config(result["train"], _names(files))
    try:
        inference = merged_config(config_files(bundle, "infer"))
    except ModelError:  # a bundle may be for training alone
        return result
    for changes in (*(ConfigParser.load_config_file(str(file)) for file in files[1:]), overrides):
        shared = {k: v for k, v in changes.items() if _top(k) in inference and _top(k) not in _OWN_OF_INFERENCE}
        inference = with_changes(inference, shared)
    return result | {"inference": inference}


def _top(key: str) -> str:
    return key.lstrip("+").replace("#", "::").partition("::")[0]


def _names(files: Sequence[Path]) -> str:
    return " + ".join(file.name for file in files)


def _refuse_bad_yaml(path: Path) -> None:
    try:
        node = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ConfigError(f"{path}{where}: not valid YAML ({getattr(error, 'problem', error)}).") from error
    if not isinstance(node, yaml.MappingNode):
        raise ConfigError(f"{path} is no mapping; expected 'key: value' lines.")
    _walk_yaml(node, path)


def _walk_yaml(node: yaml.Node, path: Path) -> None:
    if node.tag.startswith("tag:yaml.org,2002:python"):
        raise ConfigError(f"{path}, line {node.start_mark.line + 1}: '{node.tag}' would build Python objects; refused.")
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if key.value in seen:
                raise ConfigError(f"{path}, line {key.start_mark.line + 1}: key '{key.value}' appears twice; keep one.")
            seen.add(key.value)
            _walk_yaml(value, path)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _walk_yaml(item, path)


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
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError(
                f"--set {key}: {text!r} is not a valid value ({getattr(error, 'problem', error)})."
            ) from error
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


class Workflow(ConfigWorkflow):
    """A ``ConfigWorkflow`` whose parser lets our own errors through."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.parser = _Parser(self.parser.get())


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
        ConfigError: the config or an override holds what ``config_check`` refuses.
        ModelError: the folder is no bundle, or its config would run foreign code (``medseg.workflows.trust``).
    """
    files = config_files(bundle, task, overlays)
    config = merged_config(files)
    meta = Path(bundle) / "configs" / "metadata.json"
    described = {"_meta_": ConfigParser.load_config_file(str(meta))} if meta.is_file() else {}  # resolved by tools too
    require_trust(config | described, [*files, meta] if described else files)
    overrides = {"bundle_root": str(Path(bundle).resolve())} | dict(overrides or {})
    check_overrides(config, overrides, _names(files))
    check_config(with_changes(config, overrides), _names(files))
    logging.getLogger("monai.bundle.workflows").setLevel(logging.ERROR)  # it warns of every missing logging.conf
    workflow = Workflow(
        config_file=[str(file) for file in files],
        meta_file=str(meta) if meta.is_file() else None,
        logging_file=False,
        workflow_type="infer" if task in ("infer", "ensemble") else "train",
        **overrides,
    )
    workflow.initialize()
    workflow.parser.ref_resolver.resolved_content.update(built or {})
    return workflow
