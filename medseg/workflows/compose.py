"""Bundle + overrides -> MONAI ``ConfigWorkflow``, with every unknown key refused.

MONAI accepts an unknown override silently; a typing error would then train with the default.
"""

from __future__ import annotations

import contextlib
import inspect
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from monai.bundle import ConfigParser, ConfigWorkflow

from medseg.errors import ConfigError, ModelError, nearest, unwrapped

__all__ = [
    "TASKS",
    "check_overrides",
    "check_roi",
    "config_files",
    "load_workflow",
    "merged_config",
    "parse_assignments",
]

_ENTRY_POINTS = ("imports", "bundle_root", "train", "validate", "initialize", "run", "finalize", "evaluator", "device")
TASKS = {"train": ("train",), "evaluate": ("train", "evaluate"), "infer": ("inference",)}


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
    parser = ConfigParser()
    parser.read_config([str(file) for file in files])
    config = {key: value for key, value in parser.get().items() if key != "_meta_"}
    _refuse_misspelt(config, files)
    return config


def _refuse_misspelt(config: Mapping[str, Any], files: Sequence[Path]) -> None:
    """Refuse a top-level key that nothing refers to and that is nearly one that is referred to."""
    text = "\n".join(file.read_text(encoding="utf-8") for file in files)
    used = {*re.findall(r"@([A-Za-z_]\w*)", text), *_ENTRY_POINTS}
    for key in config:
        if key not in used and nearest(key, used, 0.8):
            where = " or ".join(file.name for file in files)
            raise ConfigError(f"Unknown key '{key}' in {where}.{nearest(key, used)} Rename or remove it.")


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


def check_overrides(config: Mapping[str, Any], overrides: Mapping[str, Any], where: str = "train.yaml") -> None:
    """Refuse overrides of ids that the config does not have and its components do not take, and values of another kind.

    Raises:
        ConfigError: naming the nearest id.
    """
    ids = set(_ids(config))
    for key, value in overrides.items():
        if key in ids:
            _check_type(key, _lookup(config, key), value)
            continue
        parent, _, leaf = key.rpartition("::")
        component = _lookup(config, parent) if parent in ids else None
        if not isinstance(component, Mapping) or "_target_" not in component:
            hint = nearest(key, ids) or f" Top-level keys: {', '.join(config)}."
            raise ConfigError(f"Unknown key '{key}' in {where}.{hint}")
        arguments = _arguments(component)
        if arguments is not None and not {leaf, "**"} & arguments:
            target = component["_target_"]
            raise ConfigError(f"'{parent}' ({target}) has no argument '{leaf}'.{nearest(leaf, arguments)}")


def _ids(value: Any, prefix: str = "") -> Iterable[str]:
    items: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, Mapping):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    for key, item in items:
        name = f"{prefix}::{key}" if prefix else str(key)
        yield name
        yield from _ids(item, name)


def _lookup(config: Any, key: str) -> Any:
    for part in key.split("::"):
        config = config[int(part)] if isinstance(config, list) else config[part]
    return config


def _arguments(component: Mapping[str, Any]) -> set[str] | None:
    """The arguments of a component's target, ``**`` among them if any name is taken; ``None`` if it cannot be told."""
    from monai.bundle.config_item import ConfigComponent

    try:
        target = ConfigComponent(dict(component)).resolve_module_name()
        target = ConfigParser({"x": {"_target_": target, "_mode_": "callable"}}).get_parsed_content("x")
        while hasattr(target, "func"):
            target = target.func
        found: set[str] = {"_disabled_", "_requires_", "_mode_", "_desc_"}
        classes = inspect.getmro(target)[:-1] if inspect.isclass(target) else (target,)
        for cls in classes:
            signature = inspect.signature(cls.__init__ if inspect.isclass(cls) else cls)  # type: ignore[misc]
            parameters = signature.parameters.values()
            found |= {p.name for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)} - {"self"}
            if not any(p.kind is p.VAR_KEYWORD for p in parameters):
                return found
        return found | {"**"}
    except Exception:  # a target that cannot be inspected will speak for itself when it is built
        return None


_POSITIVE_INTEGERS = ("epochs", "batch_size", "val_interval", "repeats", "accumulation_steps")


def _check_type(key: str, current: Any, value: Any) -> None:
    """The kind of value must stay: a number for a number, a list for a list; null and expressions fit everywhere."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if key in _POSITIVE_INTEGERS and not (number and isinstance(value, int) and value > 0):
        raise ConfigError(f"{key}: expected a positive integer, got {value!r}.")
    if key == "learning_rate" and not (number and 0 < value < math.inf):
        raise ConfigError(f"{key}: expected a positive number, got {value!r}.")
    if key == "overlap" and not (number and 0 <= value < 1):
        raise ConfigError(f"{key}: expected a number of at least 0 and below 1, got {value!r}; 0.5 is usual.")
    if key == "roi_size" and isinstance(current, list):
        check_roi(value, len(current), current)
    if value is None or current is None or (isinstance(value, str) and value[:1] in "$@%"):
        return
    if isinstance(current, str) and current[:1] in "$@%":
        return
    kinds: tuple[tuple[type | tuple[type, ...], str], ...] = (
        (bool, "true or false"),
        ((int, float), "a number"),
        (str, "text"),
        (list, "a list"),
        (dict, "a mapping"),
    )
    for kind, name in kinds:
        if isinstance(current, kind):
            if not isinstance(value, kind) or (kind == (int, float) and isinstance(value, bool)):
                raise ConfigError(f"{key}: expected {name}, got {value!r}.")
            return


def check_roi(roi_size: Any, dims: int, usual: Sequence[int] = ()) -> None:
    """Refuse a window that is not ``dims`` positive integers.

    Raises:
        ConfigError: naming a valid one.
    """
    given = list(roi_size) if isinstance(roi_size, (list, tuple)) else [roi_size]
    sound = all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in given)
    if sound and len(given) == dims:
        return
    fallback = [*usual, *[32] * dims]
    whole = [n if isinstance(n, int) and n > 0 else fallback[i] for i, n in enumerate(given[:dims])]
    example = whole + [whole[-1] if sound else fallback[i] for i in range(len(whole), dims)]
    raise ConfigError(f"roi_size: expected {dims} positive integers, got {roi_size!r}; {example} is valid.")


def load_workflow(
    bundle: str | Path, task: str, overrides: Mapping[str, Any] | None = None, overlays: Sequence[str] = ()
) -> ConfigWorkflow:
    """A bundle's workflow for ``train``, ``evaluate`` or ``infer``, initialised.

    Raises:
        ConfigError: unknown keys in the overrides.
        ModelError: the folder is no bundle.
    """
    files = config_files(bundle, task, overlays)
    config = merged_config(files)
    overrides = dict(overrides or {})
    check_overrides(config, overrides, " or ".join(file.name for file in files))
    meta = Path(bundle) / "configs" / "metadata.json"
    workflow = ConfigWorkflow(
        config_file=[str(file) for file in files],
        meta_file=str(meta) if meta.is_file() else None,
        logging_file=False,
        workflow_type="infer" if task == "infer" else "train",
        **({"bundle_root": str(Path(bundle).resolve())} | overrides),
    )
    with unwrapped():
        workflow.initialize()
    return workflow
