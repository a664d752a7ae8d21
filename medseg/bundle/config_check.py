"""What a config may hold: known keys, arguments that components take, references that exist, values in their range.

MONAI accepts an unknown key silently and reports a wrong argument only where the component is built; a typing error
would train with the default, or stop a run after the data are cached.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from monai.bundle import ReferenceResolver
from monai.bundle.config_item import ComponentLocator, ConfigComponent
from monai.utils.module import instantiate

from medseg.errors import ConfigError, nearest

__all__ = [
    "RANGES",
    "check_arguments",
    "check_config",
    "check_overrides",
    "check_ranges",
    "check_roi",
    "component_locator",
]

# Top-level ids with a meaning of their own; any other one must be referred to by something.
_ENTRIES = ("imports", "bundle_root", "dataset_dir", "initialize", "run", "finalize", "train", "validate", "evaluator")
_COMPONENT_KEYS = {"_target_", "_disabled_", "_requires_", "_mode_", "_desc_"}


def check_config(config: Mapping[str, Any], where: str) -> None:
    """Refuse a merged config with a misspelt key, a reference to nothing, or a value out of range; nothing is imported.

    Args:
        config: the merged content, unresolved.
        where: the files, for the sentence.

    Raises:
        ConfigError: naming the key and the nearest valid one.
    """
    ids = dict(_walk(config))
    used = {reference: name for name, value in ids.items() for reference in _references(value)}
    known = {*_ENTRIES, *(reference.partition("::")[0] for reference in used)}
    for key in config:
        if key not in known and difflib.get_close_matches(key, known, n=1, cutoff=0.8):
            raise ConfigError(f"Unknown key '{key}' in {where}.{nearest(key, known)}")
    for reference, name in used.items():
        if reference not in ids and not reference.startswith("_meta_"):
            raise ConfigError(
                f"{where}: '{name}' refers to '@{reference}', which is not there.{nearest(reference, ids)}"
            )
    for name, value in ids.items():
        if isinstance(value, str) and "#" in value and not _is_expression(value):
            raise ConfigError(f"{name}: '{value}' holds '#', which MONAI reads as '::'; rename the file or folder.")
    check_ranges(ids)


def check_arguments(config: Mapping[str, Any]) -> None:
    """Refuse arguments that a component does not take; components are imported, so the config was judged before.

    Raises:
        ConfigError: naming the argument and the nearest valid one.
    """
    for name, value in _walk(config):
        if isinstance(value, Mapping) and "_target_" in value:
            for argument in value:
                _check_argument(name, value, argument)


def check_overrides(config: Mapping[str, Any], overrides: Mapping[str, Any], where: str = "the config") -> None:
    """Refuse overrides of ids that the config does not have, and values of another kind; nothing is imported.

    Raises:
        ConfigError: naming the nearest id.
    """
    ids = dict(_walk(config))
    for key, value in overrides.items():
        if key.startswith(("+", "~")):
            continue  # ``Recipe.over`` tells of what is not there, or is not extended like that
        if key == "roi_size" and isinstance(ids.get(key), list) and not _is_expression(value):
            check_roi(value, len(ids[key]), ids[key])
        check_ranges({key: value})
        if key in ids:
            _check_kind(key, _resolved(ids, key), value)
            continue
        parent = key.rpartition("::")[0]
        component = ids.get(parent)
        if not isinstance(component, Mapping) or "_target_" not in component:
            hint = nearest(key, ids) or f" Top-level keys: {', '.join(config)}."
            raise ConfigError(f"Unknown key '{key}' in {where}.{hint}")
        # Whether the component takes it, ``check_arguments`` tells of the merged tree, once that was judged.


# ---------------------------------------------------------------------- ids and references
def _walk(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every id below ``value`` with its content."""
    items: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, Mapping):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    for key, item in items:
        name = f"{prefix}::{key}" if prefix else str(key)
        yield name, item
        yield from _walk(item, name)


def _is_expression(value: Any) -> bool:
    return isinstance(value, str) and value[:1] in ("$", "@", "%")


def _references(value: Any) -> list[str]:
    """The ids that a string refers to; relative ones (``@::x``) are left to MONAI."""
    if not isinstance(value, str) or value.startswith("%"):
        return []
    return [ref.rstrip(":") for ref in ReferenceResolver.match_refs_pattern(value) if ref and not ref.startswith(":")]


def _resolved(ids: Mapping[str, Any], key: str) -> Any:
    """The value of an id, through plain references such as ``"@epochs"``."""
    seen = set()
    value = ids[key]
    while isinstance(value, str) and value.startswith("@") and value[1:] in ids and value not in seen:
        seen.add(value)
        value = ids[value[1:]]
    return value


# ---------------------------------------------------------------------- components
def _check_argument(name: str, component: Mapping[str, Any], argument: str) -> None:
    target = component["_target_"]
    arguments = _arguments(target) if isinstance(target, str) else None
    if arguments is None or {argument, "**"} & arguments or argument in _COMPONENT_KEYS:
        return
    raise ConfigError(f"'{name}' ({target}) has no argument '{argument}'.{nearest(argument, arguments)}")


@cache
def component_locator() -> ComponentLocator:
    """MONAI's table of its components by bare name; it takes a second to make."""
    return ComponentLocator()


@cache
def _arguments(target: str) -> frozenset[str] | None:
    """The arguments of a component, ``**`` among them if any name is taken; ``None`` if it cannot be told.

    Raises:
        ConfigError: the module exists and has no such component.
    """
    if _is_expression(target):
        return None
    _refuse_unknown_target(target)
    try:
        path = ConfigComponent({"_target_": target}, locator=component_locator()).resolve_module_name()
        found = instantiate(str(path), "callable")
        while hasattr(found, "func"):
            found = found.func
        names: set[str] = set()
        for cls in inspect.getmro(found)[:-1] if inspect.isclass(found) else (found,):
            signature = inspect.signature(cls.__init__ if inspect.isclass(cls) else cls)
            parameters = signature.parameters.values()
            names |= {p.name for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)} - {"self"}
            if not any(p.kind is p.VAR_KEYWORD for p in parameters):
                return frozenset(names)
        return frozenset({*names, "**"})
    except Exception:  # a target that cannot be inspected will speak for itself when it is built
        return None


def _refuse_unknown_target(target: str) -> None:
    module_name, _, name = target.rpartition(".")
    if not module_name and component_locator().get_component_module_name(target) is None:
        known = component_locator()._components_table or ()
        raise ConfigError(f"No component '{target}' in MONAI.{nearest(name, known)} Others need their dotted path.")
    try:
        module = importlib.import_module(module_name) if module_name else None
    except ImportError:  # a method of a class, or a module of the bundle's own
        return
    if module is not None and not hasattr(module, name):
        raise ConfigError(f"No component '{target}'.{nearest(name, dir(module))}")


# ---------------------------------------------------------------------- values
def _whole(low: int) -> Callable[[Any], bool]:
    return lambda v: isinstance(v, int) and not isinstance(v, bool) and v >= low


def _number(low: float, high: float = math.inf, *, open_low: bool = False) -> Callable[[Any], bool]:
    def fits(v: Any) -> bool:
        plain = isinstance(v, (int, float)) and not isinstance(v, bool) and math.isfinite(v)
        return plain and (low < v if open_low else low <= v) and v < high

    return fits


def _list_of(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda v: isinstance(v, (list, tuple)) and len(v) in (2, 3) and all(_is_expression(n) or fits(n) for n in v)


def _one_of(*names: str) -> tuple[Callable[[Any], bool], str]:
    return (lambda v: v in names), f"one of {', '.join(names)}"


_POSITIVE = (_whole(1), "a positive integer")
_COUNT = (_whole(0), "an integer from 0 on")
_ABOVE_0 = (_number(0, open_low=True), "a positive number")
# Last part of an id -> whether a value fits, and what is expected. Null is for the component to judge.
RANGES: dict[str, tuple[Callable[[Any], bool], str]] = {
    **dict.fromkeys(
        ("epochs", "max_epochs", "batch_size", "val_interval", "repeats", "early_stop", "longest"), _POSITIVE
    ),
    **dict.fromkeys(("iterations", "validation_cases"), _POSITIVE),
    **dict.fromkeys(("accumulation_steps", "samples_per_case", "sw_batch_size"), _POSITIVE),
    **dict.fromkeys(("seed", "fold", "num_validations"), _COUNT),
    "clock": _one_of("wall", "cpu"),
    "num_workers": (lambda v: _whole(0)(v) and v <= 256, "an integer from 0 to 256"),
    **dict.fromkeys(("learning_rate", "clip_norm", "max_minutes"), _ABOVE_0),
    "weight_decay": (_number(0), "a number from 0 on"),
    "tolerance": (_number(0), "a length in mm from 0 on"),
    "foreground": (lambda v: _number(0)(v) and v <= 1, "a share from 0 to 1, for example 0.33"),
    "overlap": (_number(0, 1), "a number from 0 to below 1, for example 0.5"),
    "ema_decay": (_number(0, 1, open_low=True), "a number between 0 and 1, for example 0.999"),
    "roi_size": (_list_of(_whole(1)), "one positive integer per axis, for example [96, 96, 96]"),
    "spacing": (_list_of(_number(0, open_low=True)), "one number above 0 per axis, in mm"),
    "precision": _one_of("fp32", "bf16", "fp16", "auto"),
    "cache": _one_of("cache", "device", "persistent", "smart", "plain"),
    "schedule": _one_of("cosine", "poly", "exp_poly", "step", "constant"),
}
# Mappings and components without which no config works.
_NEEDED = {"network_def", "labels", "label_space", "preprocess", "augment", "loss", "optimizer", "train", "validate"}
_NEEDED |= {"checkpoint", "train::trainer", "train::dataset", "train::dataloader", "validate::evaluator", "evaluator"}
_FOREIGN = ("network_def", "labels")  # names below these belong to the network and to the data


def check_ranges(values: Mapping[str, Any]) -> None:
    """Refuse values of medseg's own ids that are of the wrong type or out of range.

    Raises:
        ConfigError: naming the id, the expectation and the value.
    """
    for key, value in values.items():
        root, leaf = key.partition("::")[0], key.rpartition("::")[2]
        if leaf not in RANGES or root in _FOREIGN or value is None or _is_expression(value):
            continue
        fits, expected = RANGES[leaf]
        if not isinstance(value, Mapping) and not fits(value):
            raise ConfigError(f"{key}: expected {expected}, got {value!r}.")


def check_roi(roi_size: Any, dims: int, usual: Sequence[int] = ()) -> None:
    """Refuse a patch that is not ``dims`` positive integers.

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


def _check_kind(key: str, current: Any, value: Any) -> None:
    """The kind of value must stay: a number for a number, a list for a list; null and what is computed fit anywhere."""
    component = [isinstance(v, Mapping) and "_target_" in v for v in (value, current)]
    if isinstance(current, Mapping) and value is None and key in _NEEDED:
        raise ConfigError(f"{key}: expected a mapping, got null. Leave it out.")
    if component[1] and key in _NEEDED and not (component[0] or _is_expression(value)):
        raise ConfigError(f"{key}: expected a component, a mapping with '_target_', got {value!r}.")
    if value is None or current is None or any(component) or _is_expression(value) or _is_expression(current):
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
            break
    if key.rpartition("::")[2] in ("roi_size", "spacing") and len(value) != len(current):
        axes = len(current)
        raise ConfigError(f"{key}: {value} has {len(value)} axes, expected {axes}; for example {current}.")
