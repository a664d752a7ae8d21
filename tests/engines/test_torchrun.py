"""The same training, validation and inference under torchrun: two processes on the CPU."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch

from medseg.bundle.compose import load_workflow
from medseg.cli import main
from medseg.weights import load_file, load_weights, read_state_dict

_START = """
import sys
from medseg.cli import main
sys.exit(main(sys.argv[1:]))
"""


def torchrun(folder: Path, *arguments: object, processes: int = 2) -> subprocess.CompletedProcess:
    script = folder / "start.py"
    script.write_text(_START)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    command += ["--", script]  # or torchrun takes --run for an abbreviation of its own options
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    arguments = (*map(str, command), *map(str, arguments), "--device=cpu")
    return subprocess.run(arguments, env=environment, capture_output=True, text=True, timeout=180, check=False)


def train_arguments(datalist: Path, run: Path, settings: dict[str, Any]) -> list[str]:
    arguments = ["train", "--network=SegResNet", f"--json_list={datalist}", f"--output={run}", "--epochs=2"]
    return [*arguments, *(f"--set={key}={value}" for key, value in settings.items())]


@pytest.mark.slow
def test_two_processes(datalist: Path, settings: dict[str, Any], tmp_path: Path) -> None:
    """Averaged weights and batch norm, one validation case per rank; the first rank alone writes and speaks."""
    run = tmp_path / "run"
    result = torchrun(tmp_path, *train_arguments(datalist, run, settings | {"ema_decay": 0.8}))
    assert result.returncode == 0, result.stderr
    with (run / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["iteration"] for row in rows] == ["2", "4"]  # four training cases, two ranks
    state = load_file(run / "checkpoints" / "last.pt")
    assert not any(key.startswith("module.") for key in state["network"])
    assert result.stderr.count("epoch 2/2") == 1

    # What the two ranks gathered is the score that one process gives to the saved weights.
    best = load_file(run / "checkpoints" / "best.pt")
    workflow = load_workflow(run, "train", {"device": "cpu"})
    evaluator = workflow.parser.get_parsed_content("validate::evaluator")
    load_weights(evaluator.network, run / "checkpoints" / "best.pt")
    evaluator.run()
    assert evaluator.state.metrics["mean_dice"] == pytest.approx(best["metric"], abs=1e-12)
    assert f"{best['metric']:.6f}" == rows[best["epoch"] - 1]["mean_dice"]


@pytest.mark.slow
def test_two_processes_take_the_steps_of_one_with_twice_the_batch(
    datalist: Path, settings: dict[str, Any], tmp_path: Path
) -> None:
    """Cases, their augmentation and the averaged gradients are the same; dropout and batch norm would not be."""
    plain = settings | {"network_def::dropout_prob": "null", "network_def::norm": "INSTANCE", "val_interval": 2}
    result = torchrun(tmp_path, *train_arguments(datalist, tmp_path / "two", plain))
    assert result.returncode == 0, result.stderr
    assert main([*train_arguments(datalist, tmp_path / "one", plain | {"batch_size": 2}), "--device=cpu"]) == 0
    two, one = (read_state_dict(tmp_path / name / "checkpoints" / "last.pt") for name in ("two", "one"))
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-4, atol=1e-6, msg=lambda text, n=name: f"{n}: {text}")


@pytest.mark.slow
def test_validation_and_inference_of_two_processes_are_those_of_one(
    datalist: Path, tiny_train: Any, tmp_path: Path
) -> None:
    run = tiny_train(tmp_path / "run", epochs=1)
    assert main(["validate", "--run", str(run), "--device=cpu"]) == 0
    alone = json.loads((run / "metrics.json").read_text())
    result = torchrun(tmp_path, "validate", "--run", run)
    assert result.returncode == 0, result.stderr
    together = json.loads((run / "metrics.json").read_text())
    assert together["cases"] == alone["cases"] and together["mean_dice"] == alone["mean_dice"]

    infer = ["infer", "--run", run, "--json_list", datalist, "--section", "training"]
    assert main([*map(str, infer), "--output", str(tmp_path / "one"), "--device=cpu"]) == 0
    result = torchrun(tmp_path, *infer, "--output", tmp_path / "two")
    assert result.returncode == 0, result.stderr
    names = sorted(path.name for path in (tmp_path / "one").glob("*.nii.gz"))
    assert len(names) == 4 and names == sorted(path.name for path in (tmp_path / "two").glob("*.nii.gz"))
    for name in names:
        one, two = (np.asarray(nibabel.load(tmp_path / k / name).dataobj) for k in ("one", "two"))
        assert np.array_equal(one, two), name
