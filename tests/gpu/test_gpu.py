"""On a GPU: agreement with the CPU, training, resuming, compiling, and that a command ends. ``pytest -m gpu``"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import agreement
import pytest
import torch

from medseg.networks import catalog
from medseg.networks.kernels.float32 import full_float32
from medseg.transforms import batch_changes

GPU = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")]
ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _same_bits() -> Iterator[None]:
    """Full float32 and deterministic kernels, where there are some."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32, torch.backends.cudnn.deterministic
    full_float32()
    torch.backends.cudnn.deterministic = True
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32, torch.backends.cudnn.deterministic = before


@pytest.mark.parametrize("check", [agreement.forward, agreement.gradients, agreement.step], ids=lambda c: c.__name__)
@pytest.mark.parametrize("name", catalog())
@pytest.mark.parametrize("device", [pytest.param("cuda", marks=GPU)])
def test_network(name: str, check: object, device: str) -> None:
    assert list(check(name, device)) == []  # type: ignore[operator]


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=GPU)])
def test_fp16_and_resume(device: str) -> None:
    assert list(agreement.step("vnet_ds", device, "fp16")) == []
    assert list(agreement.resumed("ssh_unet", device)) == []  # a GPU has no trilinear gradient with equal bits


@pytest.mark.parametrize("device", [pytest.param("cuda", marks=GPU)])
def test_compile(device: str) -> None:
    assert list(agreement.compiled("hnoseg_xs", device)) == []


@pytest.mark.parametrize("recipe", ["light", "nnunet"])
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=GPU)])
def test_augmentation(recipe: str, device: str) -> None:
    assert list(agreement.augmented(recipe, device)) == []


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="torch sees fewer than two GPUs")
def test_two_gpus(tmp_path: Path) -> None:
    """Two processes with NCCL train, share the validation cases, and end."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))

    def medseg(*arguments: str, processes: int = 1) -> None:
        start = [
            *["-m", "torch.distributed.run", "--standalone", "--nproc_per_node"],
            str(processes),
            "-m",
            "medseg.cli",
        ]
        command = [sys.executable, *(start if processes > 1 else start[-2:]), *arguments]
        subprocess.run(command, check=True, cwd=tmp_path, timeout=90, env=os.environ | {"PYTHONPATH": path})

    medseg("phantom", "--cases", "4", "--output", "data")
    medseg("train", "--network=SegResNet", "--json_list=data/dataset.json", "--fold=0", "--epochs=1", "--output=run",
           "--set=roi_size=[32,32,16]", "--set=repeats=2", "--set=val_interval=1", processes=2)  # fmt: skip
    facts = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (facts["status"], facts["processes"], facts["iterations"]) == ("finished", 2, 1)


@pytest.mark.parametrize("device", [pytest.param("cuda", marks=GPU)])
def test_commands_end(device: str, tmp_path: Path) -> None:
    """Training with worker processes, validation and inference, each a process that has to end by itself."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))

    def medseg(*arguments: str) -> None:
        command = [sys.executable, "-m", "medseg.cli", *arguments]
        subprocess.run(command, check=True, cwd=tmp_path, timeout=60, env=os.environ | {"PYTHONPATH": path})

    medseg("phantom", "--cases", "4", "--output", "data")
    sets = ("--set", "roi_size=[32,32,16]", "--set", "repeats=1", "--set", "num_workers=2")
    medseg("train", "--network", "SegResNet", "--json_list", "data/dataset.json", "--fold", "0", "--epochs", "1",
           "--device", device, "--output", "run", *sets)  # fmt: skip
    medseg("validate", "--run", "run", "--device", device)
    images = sorted((tmp_path / "data" / "imagesTs").iterdir())
    medseg("infer", "--run", "run", "--device", device, "--output", "out", str(images[0]))
    assert list((tmp_path / "out").glob("*.nii.gz"))


# ---------------------------------------------------------------------- planted faults, with a CPU on both sides
@pytest.mark.parametrize("check", [agreement.forward, agreement.gradients], ids=lambda c: c.__name__)
def test_agreement_is_found_and_a_fault_noticed(check: object, monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(check("ssh_unet", "cpu")) == []  # type: ignore[operator]
    original = agreement.pair

    def faulty(name: str, device: str) -> tuple[torch.nn.Module, torch.nn.Module, torch.Tensor]:
        net, other, x = original(name, device)
        with torch.no_grad():
            other.input_block.conv1.weight.add_(0.2)
        return net, other, x

    monkeypatch.setattr(agreement, "pair", faulty)
    assert list(check("ssh_unet", "cpu"))  # type: ignore[operator]


def test_a_wrong_place_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    grid = batch_changes.affine_grid
    monkeypatch.setattr(batch_changes, "affine_grid", lambda *how: grid(*how) + 0.05)
    assert len(list(agreement.augmented("light", "cpu"))) == 2


def test_a_step_that_changes_nothing_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda self: None)
    assert list(agreement.step("vnet_ds", "cpu")) == ["a step in bf16 changed nothing"]


def test_all_tests_of_a_gpu_are_here() -> None:
    """``pytest -m gpu`` reads no other folder (``tests/conftest.py``)."""
    mark = ".".join(("pytest", "mark", "gpu"))
    assert [path for path in (ROOT / "tests").rglob("*.py") if mark in path.read_text(encoding="utf-8")] == [
        Path(__file__)
    ]
