"""The facts of a run as groups of name and text: network, data, training, and the machine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medseg.errors import MedsegError
from medseg.reports.record import RunRecord
from medseg.weights import load_file

__all__ = ["setting_groups"]

_BUFFERS = ("running_mean", "running_var", "num_batches_tracked")  # of batch norm: saved, but not trained


def setting_groups(record: RunRecord) -> dict[str, dict[str, str]]:
    """Group -> name -> value; a value that the run does not record is empty."""
    get = record.setting
    network = get("network_def", {})
    arguments = {k: v for k, v in network.items() if k != "_target_"} if isinstance(network, Mapping) else {}
    facts = record.facts
    return {
        "Network": {
            "class": str(get("network_def::_target_", "")),
            "parameters": _parameters(record.folder / "models" / "model.pt"),
            **{str(name): text(value) for name, value in arguments.items()},
            "window (ROI)": _by(get("roi_size")) + " voxels" if get("roi_size") else "",
            "overlap of windows": text(get("overlap")),
        },
        "Data": {
            "data set": record.dataset,
            "description": text(record.table.get("description")),
            "licence": text(record.table.get("licence", record.table.get("license"))),
            "fold": text(get("fold")),
            "training cases": _number_of(facts.get("training_cases")),
            "validation cases": _number_of(facts.get("validation_cases")),
            "channels": ", ".join(record.channels),
            "labels": ", ".join(record.label_space.labels),
            "spacing": f"{_by(get('preprocess::spacing'))} mm" if get("preprocess::spacing") else "as stored",
            "normalisation": "; ".join(_scheme(item) for item in get("preprocess::normalization", ())),
            "crop to non-zero": text(get("preprocess::crop_foreground")),
        },
        "Training": {
            "epochs": _epochs(record),
            "batch size": text(get("batch_size")),
            "passes over the cases per epoch": text(get("repeats")),
            "optimiser": _class(get("optimizer::_target_")),
            "learning rate": text(get("learning_rate")),
            "schedule": text(get("schedule")),
            "weight decay": text(get("weight_decay")),
            "loss": _class(get("loss::_target_")),
            "averaged weights": text(get("ema_decay")),
            "precision": text(get("precision")),
            "augmentation": "; ".join(f"{k} {text(v)}" for k, v in (get("augment") or {}).items()),
            "time": _span(facts.get("training_seconds")),
            **_effort(facts),
            "started": text(facts.get("started")),
            "last change": text(facts.get("updated")),
        },
        "Machine and versions": {
            "device": text(facts.get("device")),
            "seed": text(facts.get("seed", get("seed"))),
            "CPU threads": text(facts.get("threads")),
            "Python": text(facts.get("python")),
            **{str(name): str(version) for name, version in facts.get("versions", {}).items()},
        },
    }


def text(value: Any) -> str:
    """A setting as a reader wants it; ``None`` is empty."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(text(item) for item in value) if value else "none"
    return str(value)


def _by(values: Any) -> str:
    return " × ".join(f"{v:g}" if isinstance(v, (int, float)) else str(v) for v in values or ())


def _class(target: Any) -> str:
    return str(target).rsplit(".", 1)[-1] if target else ""


def _number_of(items: Any) -> str:
    return str(len(items)) if isinstance(items, list) else ""


def _scheme(scheme: Any) -> str:
    if not isinstance(scheme, Mapping):
        return str(scheme)
    if scheme.get("kind") == "fixed":
        clip, center = (scheme.get("lower"), scheme.get("upper")), (scheme.get("mean"), scheme.get("std"))
        return f"clip to {clip[0]:g} … {clip[1]:g}, minus {center[0]:g}, over {center[1]:g}"
    return "z-score per case" + (" over non-zero voxels" if scheme.get("nonzero") else "")


def _epochs(record: RunRecord) -> str:
    done, planned = record.facts.get("epochs_done", len(record.curves["epoch"])), record.setting("epochs")
    if record.setting("max_minutes") is not None:
        return f"{done}, as many as {record.setting('max_minutes'):g} minutes gave time for"
    return f"{done} of {planned}" if planned not in (None, done) else str(done)


def _effort(facts: Mapping[str, Any]) -> dict[str, str]:
    """What the training took, of runs that record it."""
    if "schedule_completed" not in facts:
        return {}
    completed = "completed" if facts["schedule_completed"] else "cut before its end"
    return {
        "iterations": str(facts["iterations"]),
        "CPU time": _span(facts["cpu_seconds"]),
        "validations": str(facts["validations"]),
        "learning-rate schedule": completed,
    }


def _span(seconds: Any) -> str:
    if not isinstance(seconds, (int, float)):
        return ""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _parameters(path: Path) -> str:
    """The number of trained values in a file of weights."""
    try:
        state = load_file(path)
    except (MedsegError, OSError):
        return ""
    tensors = {k: v for k, v in state.items() if hasattr(v, "numel") and k.rsplit(".", 1)[-1] not in _BUFFERS}
    return f"{sum(v.numel() for v in tensors.values()):,}".replace(",", " ")
