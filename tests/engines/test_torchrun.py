"""The same training under torchrun: two processes on the CPU."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from medseg.weights import load_file, load_weights
from medseg.workflows.compose import load_workflow

_START = """
import sys
from medseg.cli import main
sys.exit(main(sys.argv[1:], "train"))
"""


def torchrun(datalist: Path, run: Path, settings: dict[str, Any]) -> subprocess.CompletedProcess:
    script = run.parent / "start.py"
    script.write_text(_START)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command += [str(script), "--network=SegResNet", f"--json_list={datalist}", f"--output={run}", "--device=cpu"]
    command += ["--epochs=2", *(f"--set={key}={value}" for key, value in settings.items())]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=180, check=False)


@pytest.mark.slow
def test_two_processes(datalist: Path, settings: dict[str, Any], tmp_path: Path) -> None:
    """Averaged weights and batch norm, one validation case per rank; the first rank alone writes and speaks."""
    run = tmp_path / "run"
    result = torchrun(datalist, run, settings | {"ema_decay": 0.8})
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
