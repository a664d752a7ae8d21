"""The facts of a run as groups of name and value: network, data, training, and the machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from medseg.data.run_settings import SET, settings_of, shown
from medseg.engines.log import span
from medseg.engines.run_facts import RunFacts
from medseg.errors import MedsegError
from medseg.reports.record import RunRecord
from medseg.weights import load_file

__all__ = ["setting_groups"]

_BUFFERS = ("running_mean", "running_var", "num_batches_tracked")  # of batch norm: saved, but not trained


def setting_groups(record: RunRecord) -> dict[str, dict[str, str]]:
    """Group -> name -> value; a value that the run does not record is empty."""
    facts = record.facts
    said: dict[str, dict[str, str]] = {"Network": {}, "Data": {}, "Training": {}}
    for setting in settings_of(record.config, record.reasons):
        mark = f" ({SET})" if setting.reason == SET else ""
        said[setting.group][setting.name] = setting.value + mark if setting.value else ""
    return {
        "Network": {"parameters": _parameters(record.folder / "models" / "model.pt"), **said["Network"]},
        "Data": {
            "data set": record.dataset,
            "description": shown(record.table.get("description")),
            "licence": shown(record.table.get("licence", record.table.get("license"))),
            "training cases": _number_of(facts.training_cases),
            "validation cases": _number_of(facts.validation_cases),
            "channels": ", ".join(record.channels),
            "labels": ", ".join(record.label_space.labels),
            **said["Data"],
        },
        "Training": {
            "epochs": _epochs(record),
            **said["Training"],
            "time": _duration(facts.training_seconds),
            **_effort(facts),
            "started": shown(facts.started),
            "last change": shown(facts.updated),
        },
        "Machine and versions": {
            "device": shown(facts.device),
            "CPU threads": shown(facts.threads),
            "Python": shown(facts.python),
            **(facts.versions or {}),
        },
    }


def _number_of(items: Sequence[str] | None) -> str:
    return "" if items is None else str(len(items))


def _epochs(record: RunRecord) -> str:
    done, planned = record.facts.epochs_done, record.setting("epochs")
    if done is None:
        done = len(record.curves.epochs["epoch"]) if record.curves else 0
    if record.setting("max_minutes") is not None:
        return f"{done}, as many as {record.setting('max_minutes'):g} minutes gave time for"
    return f"{done} of {planned}" if planned not in (None, done) else str(done)


def _effort(facts: RunFacts) -> dict[str, str]:
    """What the training took, of runs that record it."""
    schedule = {True: "completed", False: "cut before its end", None: ""}
    return {
        "iterations": shown(facts.iterations),
        "CPU time": _duration(facts.cpu_seconds),
        "validations": shown(facts.validations),
        "learning-rate schedule": schedule[facts.schedule_completed],
    }


def _duration(seconds: float | None) -> str:
    return "" if seconds is None else span(seconds)


def _parameters(path: Path) -> str:
    """The number of trained values in a file of weights."""
    try:
        state = load_file(path)
    except (MedsegError, OSError):
        return ""
    tensors = {k: v for k, v in state.items() if hasattr(v, "numel") and k.rsplit(".", 1)[-1] not in _BUFFERS}
    return f"{sum(v.numel() for v in tensors.values()):,}".replace(",", " ")
