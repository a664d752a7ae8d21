"""The settings of a training, said from its final config: each with its value, and where it came from.

The printed plan, a bundle's README and the report all take their lines from here, so that they cannot differ from what
runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medseg.errors import DataError
from medseg.networks.catalog import own_network
from medseg.storage import read_table
from medseg.transforms.augmentations import describe_augmentation, trained_mirror_axes

__all__ = ["ORIGINS", "SET", "Setting", "by", "read_origins", "reasons_in", "settings_of", "shown"]

_COMPONENTS = ("_target_", "_desc_", "_disabled_", "_requires_", "_mode_")
# Config id -> group of the report, name in it, and the component's argument that it sets, which is what runs.
_PLAIN = {
    "preprocess::longest": ("Data", "longer side in pixels", ""),
    "preprocess::scale": ("Data", "fraction of the voxels per axis", ""),
    "preprocess::crop_foreground": ("Data", "crop to non-zero", ""),
    "preprocess::cubic": ("Data", "cubic resampling", ""),
    "preprocess::color": ("Data", "grey images become RGB", ""),
    "fold": ("Data", "fold", ""),
    "recipe": ("Training", "recipe", ""),
    "configuration": ("Training", "configuration", ""),
    "overlap": ("Network", "overlap of patches", "validate::inferer::overlap"),
    "validate::inferer::mirror_axes": ("Network", "axes mirrored while validating", ""),
    "epochs": ("Training", "planned epochs", "train::trainer::max_epochs"),
    "max_minutes": ("Training", "time limit in minutes", ""),
    "clock": ("Training", "clock of the time limit", ""),
    "validations": ("Training", "validations within the time limit", ""),
    "validation_cases": (
        "Training",
        "validation cases of each data set while training",
        "validate::dataloader::per_dataset",
    ),
    "iterations": ("Training", "iterations per epoch", "train::dataloader::iterations"),
    "batch_size": ("Training", "batch size", "train::dataloader::batch_size"),
    "repeats": ("Training", "passes over the cases per epoch", "train::dataset::repeats"),
    "accumulation_steps": ("Training", "batches per step", "train::trainer::accumulation_steps"),
    "val_interval": ("Training", "epochs per validation", ""),
    "early_stop": ("Training", "validations without progress before stopping", ""),
    "learning_rate": ("Training", "learning rate", "optimizer::lr"),
    "schedule": ("Training", "schedule", "lr_scheduler::name"),
    "weight_decay": ("Training", "weight decay", "optimizer::weight_decay"),
    "clip_norm": ("Training", "largest norm of gradients", "train::trainer::clip_norm"),
    "ema_decay": ("Training", "averaged weights", ""),
    "average::ramp": ("Training", "decay of the averages rises", ""),
    "precision": ("Training", "precision", "train::trainer::precision"),
    "foreground": ("Training", "share of patches around a label", "augment::foreground"),
    "augment::balance": ("Training", "patches around a label are balanced over", ""),
    "train::trainer::head_weights": ("Training", "weights of several heads", ""),
    "checkpoint::select": ("Training", "weights kept", ""),
    "augment_on_device": (
        "Training",
        "random changes of whole batches on the device",
        "train::preprocessing::augment_on_device",
    ),
    "cache": ("Training", "cache", "train::dataset::kind"),
    "seed": ("Training", "seed", ""),
}
SET = "set by you"
ORIGINS = "configs/origin.json"  # in a run: id -> where its value comes from, and why
_MISSING = object()


@dataclass(frozen=True)
class Setting:
    """One setting of a training.

    Attributes:
        id: in the config, such as ``preprocess::spacing``.
        group: ``Network``, ``Data`` or ``Training``.
        name: for a reader of the report.
        value: as a string; empty where the config has none.
        reason: why it is so, or who set it.
    """

    id: str
    group: str
    name: str
    value: str
    reason: str = ""

    def line(self) -> str:
        """Id, value and reason in columns."""
        return f"{self.id:<28} {self.value:<32} {self.reason}".rstrip()


def settings_of(config: Mapping[str, Any], reasons: Mapping[str, str] | None = None) -> list[Setting]:
    """The settings of a train.yaml, in the order of its use.

    Args:
        config: its content, unresolved.
        reasons: config id -> why; one of ``preprocess`` also stands for what is below it. An id that is listed nowhere
            else gets a line of its own.
    """
    given = dict(reasons or {})
    found: list[Setting] = []
    named: set[str] = set()  # ids that a row speaks for
    for ids, group, name, value in _rows(config):
        named |= {"::".join(id_.split("::")[:depth]) for id_ in ids for depth in range(1, id_.count("::") + 2)}
        reason = next(filter(None, (_reason(id_, given) for id_ in reversed(ids))), "")
        found.append(Setting(ids[0], group, name, value or ("none" if reason == SET else ""), reason))
    for id_, reason in given.items():
        if id_ not in named and not id_.startswith("augment::"):
            value = shown(_find(config, id_))
            found.append(Setting(id_, "Training", id_, value or "none" if reason == SET else value, reason))
    return found


def read_origins(run: str | Path) -> dict[str, tuple[str, str]]:
    """Id of a value in a run's ``train.yaml`` -> where it comes from, and why; empty for other bundles."""
    path = Path(run) / ORIGINS
    try:
        content = read_table(path, "origins of values") if path.is_file() else {}
    except DataError:  # for display alone
        return {}
    return {id_: (str(found[0]), str(found[1])) for id_, found in content.items() if _is_pair(found)}


def _is_pair(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2


def reasons_in(reasons: Mapping[str, str]) -> dict[str, str]:
    """Reasons of single values joined where all that an id holds has the same one; id -> reason.

    Args:
        reasons: id of each value -> why it is so; empty where that is not known.
    """
    below: dict[str, set[str]] = {}
    for id_, reason in reasons.items():
        parts = id_.split("::")
        for end in range(1, len(parts) + 1):
            below.setdefault("::".join(parts[:end]), set()).add(reason)
    joined = {id_: next(iter(found)) for id_, found in below.items() if len(found) == 1}
    return {id_: why for id_, why in joined.items() if "" not in below[id_] and not _has_above(id_, joined)}


def _has_above(id_: str, joined: Mapping[str, str]) -> bool:
    return "::" in id_ and id_.rpartition("::")[0] in joined


def _rows(config: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], str, str, str]]:
    """Ids, group, name and value of each."""

    def at(id_: str) -> Any:
        return _find(config, id_)

    network = at("network_def")
    given = network if isinstance(network, Mapping) else {}
    arguments = own_network(given)
    place = "network_def" if arguments is given else "network_def::network"
    yield (f"{place}::_target_", "network_def::_target_"), "Network", "class", str(arguments.get("_target_", ""))
    for name, value in arguments.items():
        if name not in _COMPONENTS:
            yield (f"{place}::{name}",), "Network", str(name), shown(value)
    if arguments is not given:
        yield ("network_def::axis",), "Network", "slices across axis", shown(given.get("axis"))
    yield ("roi_size",), "Network", "patch size (ROI)", f"{by(at('roi_size'))} voxels" if at("roi_size") else ""
    spacing = at("preprocess::spacing")
    yield ("preprocess::spacing",), "Data", "spacing", f"{by(spacing)} mm" if spacing else "as stored"
    yield ("preprocess::normalization",), "Data", "normalisation", _normalization(at("preprocess::normalization"))
    window = at("preprocess::window")
    if window is not None:
        yield ("preprocess::window",), "Data", "intensity window", f"{by(window, ' … ')} to 0 … 1"
    for id_, (group, name, used) in _PLAIN.items():
        value = _find(config, used or id_, _MISSING)
        yield (id_, used) if used else (id_,), group, name, shown(_find(config, id_) if value is _MISSING else value)
    yield ("optimizer",), "Training", "optimiser", _optimizer(at("optimizer"))
    loss = _class(at("loss::_target_")) + (" over the batch" if at("loss::batch") is True else "")
    yield ("loss", "train::trainer::loss_function"), "Training", "loss", loss
    yield from _augmentation(config)
    yield ("device",), "Training", "device", _device(at("device"))


_MIRRORING = ("flip_axes", "augment::mirror_axes", "augment::flip_axes")  # the recipe's own first


def _augmentation(config: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], str, str, str]]:
    if not isinstance(_find(config, "train::preprocessing"), Mapping):
        return
    axes, steps = trained_mirror_axes(config), describe_augmentation(config)
    mirrored = "as the config says" if axes is None else ", ".join(map(str, axes)) or "none"
    mirroring = [id_ for id_ in _MIRRORING if _find(config, id_, _MISSING) is not _MISSING]
    yield tuple(mirroring or _MIRRORING[-1:]), "Training", "mirrored axes", mirrored
    for number, step in enumerate(steps if steps is not None else ["as the config says"], 1):
        ids = ("augment", "train::preprocessing") if number == 1 else (f"augment ({number})",)  # the reason once
        yield ids, "Training", f"augmentation {number}", step


def _reason(id_: str, reasons: Mapping[str, str]) -> str:
    """Of an id, or of what it is part of; of augmentation also what was set below it."""
    parts = id_.split("::")
    for depth in range(len(parts), 0, -1):
        above = "::".join(parts[:depth])
        if above in reasons:
            return reasons[above]
    if id_ == "augment":
        below = {key: reason for key, reason in reasons.items() if key.startswith("augment::")}
        return "; ".join(f"{key.partition('::')[2]}: {reason}" for key, reason in below.items() if reason == SET)
    return ""


def _find(config: Mapping[str, Any], id_: str, default: Any = None) -> Any:
    """A value of the config; plain references to other ids are followed."""
    value: Any = config
    for key in id_.split("::"):
        if isinstance(value, list) and key.isdigit() and int(key) < len(value):
            value = value[int(key)]
        elif isinstance(value, Mapping) and key in value:
            value = value[key]
        else:
            return default
    if isinstance(value, str) and value.startswith("@") and value[1:] != id_:
        return _find(config, value[1:], default)
    return value


# ---------------------------------------------------------------------- values in words
def shown(value: Any) -> str:
    """A value as a reader wants it; ``None`` is empty."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(f"[{shown(v)}]" if isinstance(v, (list, tuple)) else shown(v) for v in value) or "none"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {shown(item)}" for key, item in value.items()) or "none"
    return str(value)


def by(values: Any, sign: str = " × ") -> str:
    """``24 × 32 × 24``."""
    return sign.join(f"{v:g}" if isinstance(v, (int, float)) else str(v) for v in values or ())


def _normalization(schemes: Any) -> str:
    if isinstance(schemes, Mapping):  # by modality
        return "; ".join(f"{name}: {_normalization(found)}" for name, found in schemes.items())
    return "; ".join(_scheme(scheme) for scheme in schemes or ())


def _scheme(scheme: Any) -> str:
    if not isinstance(scheme, Mapping):
        return str(scheme)
    if scheme.get("kind") == "fixed":
        lower, upper, mean, std = (shown(scheme.get(key)) for key in ("lower", "upper", "mean", "std"))
        return f"clip to {lower} … {upper}, minus {mean}, over {std}"
    others = [f"{key} {shown(value)}" for key, value in scheme.items() if key not in ("kind", "nonzero")]
    return ", ".join(["z-score per case" + (" over non-zero voxels" if scheme.get("nonzero") else ""), *others])


def _class(target: Any) -> str:
    return str(target).rsplit(".", 1)[-1] if target else ""


def _optimizer(component: Any) -> str:
    """The optimiser's class, of a wrapped one with the wrapper's name."""
    if not isinstance(component, Mapping):
        return ""
    inside = _optimizer(component.get("optimizer"))
    name = _class(component.get("_target_"))
    if momentum := component.get("momentum"):
        name += f" with {'Nesterov ' if component.get('nesterov') is True else ''}momentum {shown(momentum)}"
    return f"{inside}, {name.replace('_', ' ')}" if inside else name


def _device(value: Any) -> str:
    return shown(value.get("name")) or "a GPU where there is one" if isinstance(value, Mapping) else shown(value)
