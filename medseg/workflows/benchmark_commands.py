"""What whole commands cost above their network alone: CPU seconds, wall seconds and memory, on generated volumes.

A command runs as a process of its own, by turns with its network on as many patches (or training steps) of the same
shape, and with the import of torch, which no command can do without.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import nibabel
import numpy as np
import torch
from monai.losses import DeepSupervisionLoss
from torch.utils.benchmark import set_torch_threads

from medseg.bundle.arguments import argument_prefix
from medseg.bundle.compose import resolve, start
from medseg.bundle.folder import Bundle
from medseg.bundle.plan_layer import LIGHT
from medseg.bundle.trust import remember_own
from medseg.data.plan_grid import SLICES, with_slice
from medseg.engines.trainer import heads_of
from medseg.errors import ResourceError
from medseg.inferers import SlidingWindow
from medseg.networks import create_network, network_target
from medseg.storage import write_json
from medseg.weights import save_file
from medseg.workflows.benchmark_result import CommandFigures, ProcessCost
from medseg.workflows.new_bundle import new_bundle

__all__ = [
    "Work",
    "command_figures",
    "command_words",
    "default_work",
    "importing",
    "network_alone",
    "prepare",
    "process_cost",
]

logger = logging.getLogger("medseg")

_MODULES = {"infer": "prediction", "validate": "validation", "train": "training"}
_PATCH = (64, 64, 64)
_OVERLAP = 0.5
_ITERATIONS = 8  # of an epoch, where training is measured
_LAYER = {"kernel_size": 1, "conv_only": True}
_SAMPLE = 0.02  # seconds between two looks at the memory of the processes
_PROC = Path("/proc")


@dataclass(frozen=True)
class Work:
    """One row: a command on one volume (training: on the patches of one).

    Attributes:
        network: name of the network, MONAI class or dotted path.
        size: size of the volume, in voxels of 1 mm.
        classes: number of labels, background included.
        arguments: constructor arguments of the network.
        overlap: overlap of neighbouring patches, as a fraction.
        empty: share of the volume that is constant.
        recipe: named training.
        configuration: nnU-Net's, as of `medseg train`.
    """

    network: str
    size: tuple[int, ...]
    classes: int
    arguments: Mapping[str, Any] = field(default_factory=dict)
    overlap: float = _OVERLAP
    empty: float = 0.0
    recipe: str = LIGHT
    configuration: str | None = None

    @property
    def name(self) -> str:
        """What the table calls it."""
        empty = f", {self.empty:.0%} empty" if self.empty else ""
        recipe = f", recipe {self.recipe}" if self.recipe != LIGHT else ""
        name = f"{self.network}, {' × '.join(map(str, self.size))}, {self.classes} classes{empty}{recipe}"
        return name if self.configuration is None else f"{name}, configuration {self.configuration}"


def default_work(name: str) -> list[Work]:
    """What is measured of a command where no size is given."""
    usual = Work("SegResNet", (160, 160, 120) if name != "train" else (96, 96, 96), 4)
    if name != "infer":
        return [usual]
    many = Work("monai.networks.blocks.Convolution", (128, 128, 128), 105, _LAYER)
    return [usual, many, Work("SegResNet", (160, 160, 160), 4, overlap=0.7, empty=0.94)]


def command_figures(name: str, work: Work, threads: int, repeats: int) -> CommandFigures:
    """Medians over the turns.

    Args:
        name: infer, validate or train.
        work: what it does.
        threads: number of CPU threads.
        repeats: number of turns.

    Raises:
        ResourceError: the system does not tell what processes cost, or a process failed.
    """
    if not _PROC.joinpath("self", "task").is_dir():
        raise ResourceError("This system does not tell what processes cost; Linux does. Measure commands there.")
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    with TemporaryDirectory(prefix="medseg_benchmark_") as folder:
        with _quiet():
            bundle = prepare(Path(folder), work)
        whole, alone, imports = [], [], []
        for turn in range(repeats):
            words = command_words(name, bundle, turn)
            steps: list[Callable[[], None]] = [
                lambda words=words: whole.append(process_cost(words, environment)),  # type: ignore[misc]
                lambda: alone.append(_in_fresh_process(name, bundle, work, threads)),
                lambda: imports.append(process_cost(importing("torch"), environment)),
            ]
            for step in steps[:: 1 if turn % 2 == 0 else -1]:
                step()
    median = statistics.median
    return CommandFigures(
        name=f"{name}: {work.name}",
        patches=alone[0][0],
        command=ProcessCost(
            median(one.cpu_seconds for one in whole),
            median(one.wall_seconds for one in whole),
            median(one.peak_bytes for one in whole),
        ),
        network_seconds=median(seconds for _, seconds in alone),
        import_seconds=median(one.cpu_seconds for one in imports),
        start_bytes=process_cost(importing(f"medseg.workflows.{_MODULES[name]}"), environment).peak_bytes,
        volume_bytes=4 * math.prod(work.size),
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the plan of a bundle that nobody will see."""
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def importing(module: str) -> list[str]:
    """The command line of a process that imports a module as a command does, and nothing else."""
    lean = "from medseg import lean\nlean.import_monai_lean()\nwith lean.imports_uncollected(): "
    return [sys.executable, "-c", f"{'' if module == 'torch' else lean}import {module}"]


def command_words(name: str, bundle: Path, turn: int) -> list[str]:
    """The command line; each turn writes into a folder of its own, or writes all again."""
    folder = bundle.parent
    words = [sys.executable, "-m", "medseg.cli", name, "--device", "cpu"]
    if name == "infer":
        return [*words, "--run", str(bundle), "--output", str(folder / f"maps_{turn}"), str(folder / "image_1.nii.gz")]
    if name == "validate":
        return [*words, "--run", str(bundle)]
    listed = ["--json_list", str(folder / "list.json"), "--output", str(folder / f"run_{turn}")]
    return [*words, "--bundle", str(bundle), *listed, "--epochs", "1"]


def _in_fresh_process(name: str, bundle: Path, work: Work, threads: int) -> tuple[int, float]:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(network_alone, name, bundle, work, threads).result()


def network_alone(name: str, bundle: Path, work: Work, threads: int) -> tuple[int, float]:
    """Number of patches that a command runs, and CPU seconds of the network alone on as many of their shape."""
    parser = start(resolve(Bundle(bundle), "train"), "train").parser
    network, roi = parser.get_parsed_content("network"), parser["roi_size"]
    network.train(name == "train")
    window: SlidingWindow = parser.get_parsed_content("validate::inferer")
    at_once = parser["batch_size"] if name == "train" else window.at_once(network, torch.device("cpu"))
    patches = _ITERATIONS * at_once if name == "train" else len(window.places(work.size, roi))
    loss, optimizer = parser.get_parsed_content("loss"), parser.get_parsed_content("optimizer")
    images = torch.randn(at_once, 1, *roi)
    labels = torch.randint(0, work.classes, images.shape)
    with set_torch_threads(threads), torch.set_grad_enabled(name == "train"):
        began = time.process_time()
        for _ in range(math.ceil(patches / at_once)):
            output = network(images)
            if name == "train":
                optimizer.zero_grad()
                heads = heads_of(output, images.dim())
                value = loss(heads[0], labels) if len(heads) == 1 else DeepSupervisionLoss(loss)(heads, labels.float())
                value.backward()
                optimizer.step()
        return patches, time.process_time() - began


def process_cost(words: Sequence[str], environment: Mapping[str, str]) -> ProcessCost:
    """What a process and those that it starts cost; pages that they share count for each of them.

    Raises:
        ResourceError: it fails, with the last line that it said.
    """
    began, peak = time.perf_counter(), 0
    with TemporaryDirectory() as folder, (Path(folder) / "said").open("w+b") as said:
        process = subprocess.Popen(words, stdout=said, stderr=said, env=dict(environment))
        while True:
            ended, status, usage = os.wait4(process.pid, os.WNOHANG)
            if ended:
                break
            peak = max(peak, _peak_of(process.pid))
            time.sleep(_SAMPLE)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            said.seek(0)
            last = said.read().decode(errors="replace").strip().splitlines()[-1:]
            raise ResourceError(
                f"'{' '.join(words)}' ended with status {process.returncode} ({' '.join(last)}); it was to be "
                "measured. Use a smaller size, or another network."
            )
    return ProcessCost(usage.ru_utime + usage.ru_stime, time.perf_counter() - began, peak)


def _peak_of(pid: int) -> int:
    """Largest resident bytes so far of a process and of all that run below it; 0 of one that has ended.

    What the system tells of ended processes (``ru_maxrss``) will not do: it counts from before the program's start.
    """
    try:
        lines = (_PROC / str(pid) / "status").read_text().splitlines()
        own = next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), 0)
        tasks = [(task / "children").read_text() for task in (_PROC / str(pid) / "task").iterdir()]
    except OSError:
        return 0
    return own + sum(_peak_of(int(child)) for text in tasks for child in text.split())


def prepare(folder: Path, work: Work) -> Path:
    """A datalist of two generated cases, and a bundle for it with random weights."""
    for number in range(2):
        image, label = _volume(work, number)
        nibabel.save(nibabel.Nifti1Image(image, np.eye(4)), folder / f"image_{number}.nii.gz")
        nibabel.save(nibabel.Nifti1Image(label, np.eye(4)), folder / f"label_{number}.nii.gz")
    entries = [{"image": f"image_{number}.nii.gz", "label": f"label_{number}.nii.gz"} for number in range(2)]
    labels = {"background": 0} | {f"label {number}": number for number in range(1, work.classes)}
    datalist = {"name": "generated", "modality": {"0": "CT"}, "labels": labels}
    write_json(folder / "list.json", datalist | {"training": entries[:1], "validation": entries[1:]})
    changes = {f"{argument_prefix(work.configuration)}{key}": value for key, value in work.arguments.items()}
    roi_size = with_slice(_PATCH[:2], 2) if work.configuration == SLICES else _PATCH
    changes |= {"roi_size": list(roi_size), "overlap": work.overlap, "repeats": 2 * _ITERATIONS}
    bundle = folder / "bundle"
    new_bundle(
        network=work.network,
        json_list=folder / "list.json",
        output=bundle,
        device="cpu",
        recipe=work.recipe,
        configuration=work.configuration,
        overrides=changes,
    )
    definition = dict(resolve(Bundle(bundle), "infer").tree["network_def"])
    torch.manual_seed(0)
    save_file(create_network(definition.pop("_target_"), **definition).state_dict(), bundle / "models" / "model.pt")
    remember_own({"network_def::_target_": network_target(work.network)})
    return bundle


def _volume(work: Work, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Noisy tissue in a corner of air, int16, and its label map: all labels, one behind the other."""
    draw = np.random.default_rng(seed)
    share = (1 - work.empty) ** (1 / len(work.size))
    inner = [max(1, round(n * share)) for n in work.size]
    box = tuple(map(slice, inner))
    image, label = np.full(work.size, -1000, np.int16), np.zeros(work.size, np.uint8)
    bands = ((np.arange(inner[0]) + seed) * work.classes // inner[0] % work.classes).reshape(
        -1, *[1] * (len(inner) - 1)
    )
    label[box] = bands
    image[box] = 10 * bands + draw.integers(-40, 40, inner)
    return image, label
