"""The start with one's own folder: what it holds, its datalist, and the next commands with their time and memory."""

from __future__ import annotations

import math
import os
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medseg.bundle.draft import Draft
from medseg.bundle.parts import device as choose_device
from medseg.bundle.plan_layer import LIGHT, check_recipe
from medseg.data import CaseFacts, Datalist, Plan, read_datalist
from medseg.data.findings import by
from medseg.data.make_datalist import MakeDatalistSettings, make_datalist
from medseg.data.plan_grid import check_configuration
from medseg.engines.log import span
from medseg.settings import File, Folder, Names, takes
from medseg.workflows.benchmark_steps import Candidate, Conditions, peak_memory, times
from medseg.workflows.checks import check_cases
from medseg.workflows.new_bundle import PlanRequest, planned_network

__all__ = ["Cost", "InitSettings", "init"]

_NETWORK = {2: "qtseg", 3: "DynUNet"}  # for 2D images, for volumes
_READING = 0.5  # s per case: reading, resampling and writing; of volumes of 100 MB it is more


@dataclass(frozen=True)
class InitSettings:
    """Which folder is looked at.

    Attributes:
        folder: images and labels: MSD task, nnU-Net raw data, BIDS, or two folders.
        output: datalist to write (default: datalist.json in the folder).
        network: network of the commands that are shown (default: DynUNet, or qtseg for 2D images).
        recipe: named training of the commands that are shown: light, standard or nnunet.
        configuration: nnU-Net's 2d, 3d_fullres or 3d_lowres for the commands that are shown.
        modality: names of the channels, such as CT or T1,FLAIR.
        label_names: names of the values 0, 1, …, such as background,liver.
        subject_pattern: regular expression for the subject in a case's name, such as '^(sub-[0-9]+)' (default: a
            guess).
        device: cpu or cuda, where it will train (default: a GPU where there is one).
        overwrite: new datalist in the place of an existing one.
    """

    folder: Folder = field(metadata={"positional": "DIR"})
    _: KW_ONLY
    output: File | None = None
    network: str | None = None
    recipe: str = "light"
    configuration: str | None = None
    modality: Names = ()
    label_names: Names = ()
    subject_pattern: str | None = None
    device: str | None = None
    overwrite: bool = False


@dataclass(frozen=True)
class Cost:
    """What a training with the plan will take on this machine, from a step that was measured.

    Attributes:
        steps: number of steps of the whole training.
        step: seconds of one.
        patches: number of patches of a validation case.
        patch: seconds of the forward pass of one.
        validations: number of cases that are validated in the whole training.
        memory: bytes of a training step; ``None`` where the system does not say.
        cache: bytes of the prepared cases.
        mirrors: number of mirror images of a patch that are averaged once the network is trained, itself included.
    """

    steps: int
    step: float
    patches: int
    patch: float
    validations: int
    memory: int | None
    cache: int
    mirrors: int = 1

    @property
    def case(self) -> float:
        """Seconds of segmenting one case."""
        return _READING + self.patches * self.patch * self.mirrors

    @property
    def training(self) -> float:
        """Seconds of the training with its validations."""
        return self.steps * self.step + self.validations * self.patches * self.patch

    @property
    def room(self) -> str:
        """Memory in words."""
        return "" if self.memory is None else f" and {(self.memory + self.cache) / 2**30:.1f} GiB"


@takes(InitSettings)
def init(settings: InitSettings) -> list[str]:
    """Look at a folder of images and labels, write its datalist, and say what it holds and what to run next.

    Every case is read once. The time and memory of the next commands follow from a few steps that are measured.

    Returns:
        Lines: what was understood, and three commands.

    Raises:
        ConfigError: the datalist exists, or the folder's layout is not known.
        DataError: a case cannot be used; with the table of all problems.
    """
    check_recipe(settings.recipe)
    check_configuration(settings.configuration)
    path = Path(settings.output) if settings.output is not None else Path(settings.folder) / "datalist.json"
    made = make_datalist.of(
        MakeDatalistSettings(
            path,
            folder=settings.folder,
            modality=settings.modality,
            label_names=settings.label_names,
            subject_pattern=settings.subject_pattern,
            overwrite=settings.overwrite,
        )
    )
    datalist = read_datalist(path)
    fold = 0 if datalist.folds() else None
    training, validation = datalist.split(fold)
    facts = check_cases(training + validation, datalist, training=training, fold=fold)
    notes = [*made.notes, *(f"warning: {warning}" for warning in made.warnings)]
    lines = [*notes, *_understood(datalist, facts), f"datalist: {path}", "next:"]
    device = choose_device(settings.device)
    network = settings.network or _NETWORK[len(facts[0].shape)]
    asked = PlanRequest(network, device.type, {}, recipe=settings.recipe, configuration=settings.configuration)
    plan, arguments = planned_network(asked, datalist, facts, len(training))
    draft = Draft.planned(network, arguments, datalist, plan, settings.recipe)
    mirrors = 2 ** len(draft.recipe.config("inference").tree["mirror_axes"])
    cost = _cost(
        Candidate(network, network, arguments), plan, draft.train.tree, device, (len(training), len(validation))
    )
    cost = replace(cost, mirrors=mirrors)
    words = network if settings.recipe == LIGHT else f"{network} --recipe {settings.recipe}"
    words += "" if settings.configuration is None else f" --configuration {settings.configuration}"
    return [*lines, *_next(path, words, fold, cost, device, datalist)]


def _understood(datalist: Datalist, facts: Sequence[CaseFacts]) -> Iterator[str]:
    counts = ", ".join(f"{len(cases)} {section}" for section, cases in datalist.sections.items() if cases)
    subjects = {case.group for case in datalist.sections["training"]}
    folds = f"{len(datalist.folds())} folds" if datalist.folds() else "no folds"
    kind = "2D images" if len(facts[0].shape) == 2 else "volumes"
    channels = ", ".join(datalist.channels) or "channels without a name: taken for MR, say --modality if they are not"
    yield f"{datalist.name}: {kind} ({channels}); {counts} cases; {len(subjects)} subjects, {folds}"
    yield f"sizes: {_range([case.shape for case in facts])} {'pixels' if kind == '2D images' else 'voxels'}"
    if not all(case.picture for case in facts):
        yield f"spacing: {_range([case.spacing for case in facts])} mm"
    for name, values in (
        datalist.label_space.fragment().values.items() if len(datalist.label_space.fragments) == 1 else ()
    ):
        found = sum(any(case.label_counts.get(int(value), 0) for value in values) for case in facts)
        yield f"label {name}: value {', '.join(f'{value:g}' for value in values)}, in {found} of {len(facts)} cases"


def _range(shapes: Sequence[Sequence[float]]) -> str:
    low, high = by(np.min(shapes, axis=0)), by(np.max(shapes, axis=0))
    return low if low == high else f"{low} to {high}"


def _cost(candidate: Candidate, plan: Plan, tree: dict[str, Any], device: torch.device, cases: tuple[int, int]) -> Cost:
    """Measured in a few steps.

    Args:
        cases: numbers of training and validation cases.
    """
    batch = plan.batch_size * plan.samples_per_case
    conditions = Conditions(
        size=plan.seen().roi_size,
        in_channels=plan.in_channels,
        out_channels=plan.out_channels,
        batch_size=batch,
        device=str(device),
        threads=torch.get_num_threads(),
        precision=tree["precision"],
    )
    (step, _), (forward, _) = (times([candidate], conditions, name, 1)[0] for name in ("train", "forward"))
    stride = [max(1, size * (1 - tree.get("overlap", 0.0))) for size in plan.roi_size]
    sizes = zip(plan.median_shape, plan.roi_size, stride, strict=True)
    epochs = tree["epochs"]
    return Cost(
        steps=epochs * max(1, cases[0] * plan.repeats // plan.batch_size),
        step=step.median,
        patches=math.prod(1 + max(0, math.ceil((whole - patch) / each)) for whole, patch, each in sizes),
        patch=forward.median / batch,
        validations=cases[1] * (epochs // tree["val_interval"]),
        memory=peak_memory(candidate, conditions, "train"),
        cache=int(plan.cache_gib * 2**30) if plan.cache != "persistent" else 0,
    )


def _next(
    path: Path, network: str, fold: int | None, cost: Cost, device: torch.device, datalist: Datalist
) -> Iterator[str]:
    chosen = "" if fold is None else f" --fold {fold}"
    threads = torch.get_num_threads()
    where = "the GPU" if device.type == "cuda" else f"the CPU with {threads} thread{'s' if threads > 1 else ''}"
    listed, cases = shlex.quote(str(path)), len(datalist.split(fold)[1])
    patches = f"{cost.patches} patch{'es' if cost.patches > 1 else ''}"
    yield f"  medseg train --network {network} --json_list {listed}{chosen} --output runs/first"
    yield f"      about {span(cost.training)}{cost.room} on {where}: {cost.steps} steps of {cost.step:.2g} s{_busy()}"
    yield "  medseg validate --run runs/first"
    yield f"      about {span(cases * cost.case)}: {cases} cases of {patches}"
    images = f"--json_list {listed}" if datalist.sections["test"] else "IMAGE"
    yield f"  medseg infer --run runs/first --output segmented {images}"
    yield f"      about {span(cost.case)} per case"


def _busy() -> str:
    """What a load says of a measurement."""
    busy = hasattr(os, "getloadavg") and os.getloadavg()[0] > (os.cpu_count() or 1)
    return ", measured while other programs use the CPU" if busy else ""
