"""What a machine offers to medseg, what is wrong with it, what will be slow and why, and a self-test."""

from __future__ import annotations

import logging
import os
import platform
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

import medseg
from medseg.data.phantom import write_phantom
from medseg.data.plan import available_gib
from medseg.engines.ranks import cores
from medseg.settings import Folder, takes
from medseg.workflows.run import load
from medseg.workflows.training import train

__all__ = ["DoctorSettings", "Symptom", "doctor"]

# Versions that the tests were run with, as in constraints.txt; a test holds them equal.
TESTED = {"torch": "2.13.0", "monai": "1.6.1", "pytorch-ignite": "0.5.5", "nibabel": "5.4.2", "SimpleITK": "2.5.7"}
TESTED |= {"numpy": "2.4.6", "scipy": "1.17.1", "scikit-image": "0.26.0"}
_EXTRAS = {"onnx": "export", "onnxscript": "export", "onnxruntime": "export", "pydicom": "dicom"}
_LEAST_DISK, _LEAST_SHARED, _LEAST_MEMORY = 10, 2, 8  # GiB: a run with its cache; loader processes; a 3D training
_GPU_MEMORY = 10  # GiB that published 3D networks take with their patches
_NORMAL = 30  # s of the self-test on two idle cores, with some room


@dataclass(frozen=True)
class DoctorSettings:
    """What is examined.

    Attributes:
        report: report for an issue, in Markdown, without names of the machine and of folders.
        folder: folder whose disk is looked at.
        no_test: skip the self-test.
    """

    report: bool = False
    folder: Folder = "."
    no_test: bool = False


@dataclass(frozen=True)
class Symptom:
    """One thing that was looked at.

    Attributes:
        name: what it is.
        value: what was found.
        verdict: ``ok``, ``slow`` or ``wrong``.
        advice: why it matters and what to do; empty where it is ok.
    """

    name: str
    value: str
    verdict: str = "ok"
    advice: str = ""


@takes(DoctorSettings)
def doctor(settings: DoctorSettings) -> list[Symptom]:
    """Examine the environment, and say what is wrong, what will be slow and why; a self-test trains for seconds.

    Nothing is sent and nothing is written but into a temporary folder.
    """
    found = [*_software(), *_processor(), *_gpu(), *_room(Path(settings.folder))]
    return found if settings.no_test else [*found, _self_test()]


def _software() -> Iterator[Symptom]:
    yield Symptom("medseg", medseg.__version__)
    yield Symptom("Python", platform.python_version())
    yield Symptom("system", f"{platform.system()} {platform.release().partition('-')[0]}, {platform.machine()}")
    for name, tested in TESTED.items():
        yield _package(name, tested)
    there = [name for name in _EXTRAS if _installed(name)]
    yield Symptom("extras", ", ".join(f"{name} {_installed(name)}" for name in there) or "none")


def _package(name: str, tested: str) -> Symptom:
    found = _installed(name)
    if found is None:
        return Symptom(name, "not found", "wrong", f"medseg needs it; install {name}=={tested}")
    plain = found.partition("+")[0]  # 2.13.0+cpu is torch's way to say how it was built
    if _release(plain)[:2] == _release(tested)[:2]:
        return Symptom(name, found)
    return Symptom(name, found, "ok", f"tested with {tested}; if something fails, try that")


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _release(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", text)[:3])


def _processor() -> Iterator[Symptom]:
    usable, threads = cores(), torch.get_num_threads()
    yield Symptom("CPU cores", str(usable))
    few = "fewer than the cores: convolutions wait; unset OMP_NUM_THREADS, or give the other cores to other folds"
    yield Symptom("threads of torch", str(threads), *(("slow", few) if threads < usable else ()))
    if hasattr(os, "getloadavg"):
        load = os.getloadavg()[0]
        busy = f"other programs use the {usable} cores: training takes about {load / usable + 1:.0f} times as long"
        yield Symptom("load", f"{load:.1f}", *(("slow", busy) if load > usable / 2 else ()))


def _gpu() -> Iterator[Symptom]:
    if not torch.cuda.is_available():
        built = torch.version.cuda or torch.version.hip
        why = "torch sees none; check the driver" if built else "this torch is built for CPUs; install one for your GPU"
        slow = f"{why}. On a CPU medseg plans small networks; published sizes take days"
        yield Symptom("GPU", "none", "slow", slow)
        return
    for number in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(number)
        free, total = (size / 2**30 for size in torch.cuda.mem_get_info(number))
        value = f"{about.name}, {free:.1f} of {total:.1f} GiB free, compute capability {about.major}.{about.minor}"
        if free < _GPU_MEMORY:
            advice = f"published 3D networks take about {_GPU_MEMORY} GiB; set a smaller roi_size or batch_size"
            yield Symptom(f"GPU {number}", value, "slow", advice)
        elif about.major < 8:
            yield Symptom(f"GPU {number}", value, "slow", "it has no bf16; plans take fp16")
        else:
            yield Symptom(f"GPU {number}", value)


def _room(folder: Path) -> Iterator[Symptom]:
    memory = available_gib()
    advice = "volumes will be cached on disk, and large patches refused; close other programs"
    yield Symptom("free memory", f"{memory:.1f} GiB", *(("slow", advice) if memory < _LEAST_MEMORY else ()))
    disk = shutil.disk_usage(folder).free / 2**30
    advice = "a run with its cache may need more; choose another --output"
    yield Symptom("free disk", f"{disk:.1f} GiB", *(("slow", advice) if disk < _LEAST_DISK else ()))
    shared = Path("/dev/shm")
    if shared.is_dir():
        size = shutil.disk_usage(shared).free / 2**30
        advice = "loader processes hand over cases there; in a container give --shm-size, or --set num_workers=0"
        yield Symptom("shared memory", f"{size:.1f} GiB", *(("slow", advice) if size < _LEAST_SHARED else ()))


def _self_test() -> Symptom:
    """Data, training, weights and a prediction, each once."""
    began, logger = time.monotonic(), logging.getLogger("medseg")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            listed = write_phantom(output=folder / "data", cases=2)
            run = folder / "run"
            overrides = {"roi_size": [32, 32, 16], "repeats": 1, "num_workers": 0}
            train(network="UNet", json_list=listed, fold=0, output=run, epochs=1, overrides=overrides)
            image = next((folder / "data" / "imagesTs").iterdir())
            load(run).predict(image)
    except Exception as error:
        return Symptom(
            "self-test",
            f"{type(error).__name__}: {_plain(str(error))}",
            "wrong",
            "report it with `medseg doctor --report`",
        )
    finally:
        logger.setLevel(level)
    seconds = time.monotonic() - began
    slow = ("slow", f"usually below {_NORMAL} s: see load and threads") if seconds > _NORMAL else ()
    return Symptom("self-test", f"trained and segmented in {seconds:.0f} s", *slow)


def _plain(text: str) -> str:
    """A message's first line without paths."""
    return re.sub(r"\S*[/\\]\S*", "…", text.partition("\n")[0])
