"""What a run did: ``run.json``, with its one reader and its one writer."""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_type_hints

import torch

from medseg.data.fingerprint import DataFingerprint
from medseg.storage import as_table, read_table, write_json
from medseg.version import __version__

__all__ = ["RunFacts", "read_facts", "write_facts"]

_LIBRARIES = ("torch", "monai", "numpy", "pytorch-ignite")


@dataclass(frozen=True)
class RunFacts:
    """The facts of a run or an ensemble; ``None`` where one is not recorded.

    Attributes:
        status: state of the training, ``started`` or ``finished``.
        started, updated: times of the first and the last change.
        versions: name of a library -> its version.
        python: version of Python.
        device: device of the training.
        gpu_bytes: memory of the GPU that was free when the training was planned.
        threads: number of CPU threads of torch.
        processes: number of processes of the training, each with batches of its own.
        seed: random seed.
        data: hashes of the files of its cases.
        training_cases, validation_cases: ids of the cases.
        earlier_images: hashes of the images that the weights it started from had seen; of an ensemble, of all members.
        fitted_to_time: whether the number of validation cases was fitted to a time limit.
        epochs_done: number of epochs.
        iterations: number of batches of each process.
        training_seconds: time from the first iteration to the last, validations included.
        cpu_seconds: CPU time of the processes and their loader workers.
        validations: number of validations that gave a score.
        schedule_completed: whether the learning rate came to the end of its schedule.
        energy_joules: energy of the machine's processors during the training, whoever used them.
        training_peak_bytes: largest memory of the training process, or of its GPU.
        patch_by_patch: whether the GPU had no room for a batch, so that its patches went through the network one by
            one, with the same loss and gradients.
        network: class of the network.
        parameters: number of its parameters.
        multiply_adds_per_window: number of multiply-adds of a forward pass over one patch.
        multiply_adds_without: operators that are not counted in it.
        mean_dice: mean Dice of the validation cases; NaN where it is undefined.
        seconds_per_case: median time of inference of a case.
        windows_per_case, multiply_adds_per_case: mean numbers of patches and multiply-adds of a case.
        peak_memory_bytes: largest memory above the level before the case.
        measured_on: machine and number of threads that these figures were measured with.
        predictions: number of predictions of an ensemble.
        background_predictions: ids of cases whose prediction is background throughout.
    """

    status: str | None = None
    started: str | None = None
    updated: str | None = None
    versions: Mapping[str, str] | None = None
    python: str | None = None
    device: str | None = None
    gpu_bytes: int | None = None
    threads: int | None = None
    processes: int | None = None
    seed: int | None = None
    data: DataFingerprint | None = None
    training_cases: tuple[str, ...] | None = None
    validation_cases: tuple[str, ...] | None = None
    earlier_images: tuple[str, ...] | None = None
    fitted_to_time: bool | None = None
    epochs_done: int | None = None
    iterations: int | None = None
    training_seconds: float | None = None
    cpu_seconds: float | None = None
    validations: int | None = None
    schedule_completed: bool | None = None
    energy_joules: float | None = None
    training_peak_bytes: int | None = None
    patch_by_patch: bool | None = None
    network: str | None = None
    parameters: int | None = None
    multiply_adds_per_window: int | None = None
    multiply_adds_without: tuple[str, ...] | None = None
    mean_dice: float | None = None
    seconds_per_case: float | None = None
    windows_per_case: float | None = None
    multiply_adds_per_case: int | None = None
    peak_memory_bytes: int | None = None
    measured_on: str | None = None
    predictions: int | None = None
    background_predictions: tuple[str, ...] | None = None

    def __or__(self, later: RunFacts) -> RunFacts:
        """These facts, with the later ones in their place where both are recorded."""
        return replace(self, **as_table(later))

    @property
    def seen_images(self) -> set[str]:
        """Hashes of the images that its weights have seen, in its training and in those before it."""
        known = {} if self.data is None else self.data.cases
        own = {image for case in self.training_cases or () for image in known.get(case, ())[:-1]}
        return own | set(self.earlier_images or ())

    @classmethod
    def from_dict(cls, table: Mapping[str, Any]) -> RunFacts:
        """From the content of a ``run.json``, of earlier versions too."""
        known = {name: table[name] for name in _FORM if table.get(name) is not None}
        known |= {name: tuple(value) for name, value in known.items() if isinstance(value, list)}
        known["data"] = DataFingerprint.from_table(table.get("data"))
        if "mean_dice" in table:
            known.setdefault("mean_dice", math.nan)
        if {"fitted_epochs", "fitted_validation_cases"} & set(table):  # of earlier versions
            known["fitted_to_time"] = True
        return cls(**known)

    def to_dict(self) -> dict[str, Any]:
        """For JSON: what is recorded."""
        table = as_table(self)
        if self.data is not None:
            table["data"] = self.data.to_table()
        return table


def _form_of(hint: Any) -> Any:
    """What a field looks like in JSON."""
    (kind,) = (kind for kind in get_args(hint) if kind is not NoneType)
    others = {tuple[str, ...]: [str], Mapping[str, str]: {str: str}, DataFingerprint: dict}
    return others.get(kind, kind)


_FORM = {name: _form_of(hint) for name, hint in get_type_hints(RunFacts).items()}


def read_facts(run: str | Path) -> RunFacts:
    """The facts of a folder, none where it has no ``run.json``.

    Raises:
        DataError: it is damaged.
    """
    path = Path(run) / "run.json"
    if not path.is_file():
        return RunFacts()
    form = {f"{name}?": (kind, None) for name, kind in _FORM.items()}
    return RunFacts.from_dict(read_table(path, "the facts that medseg wrote; restore it, or remove it", form))


def write_facts(run: str | Path, facts: RunFacts, known: RunFacts | None = None) -> RunFacts:
    """Add facts to those of a folder, with the versions and the machine of this process.

    Args:
        run: the folder.
        facts: what is added.
        known: facts that the folder has, where the caller has read them.

    Returns:
        All facts of the folder.
    """
    here = RunFacts(
        versions={"medseg": __version__} | {name: version(name) for name in _LIBRARIES},
        python=platform.python_version(),
        threads=torch.get_num_threads(),
        updated=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    )
    whole = (read_facts(run) if known is None else known) | here | facts
    write_json(Path(run) / "run.json", whole.to_dict())
    return whole
