"""The same training under torchrun: two processes on the CPU."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from medseg.weights import load_file


def torchrun(datalist: Path, run: Path, settings: dict[str, Any], epochs: int = 2) -> subprocess.CompletedProcess:
    script = run.parent / "start.py"
    script.write_text(
        "from medseg.cli import main\n"
        f"raise SystemExit(main({[f'--json_list={datalist}', f'--output={run}', '--network=SegResNet', f'--epochs={epochs}', '--device=cpu', *[f'--set={k}={v}' for k, v in settings.items()]]!r}, 'train'))\n"
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", str(script)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=180, check=False)


@pytest.mark.slow
def test_two_processes(datalist: Path, settings: dict[str, Any], tmp_path: Path) -> None:
    """Two cases for validation on two ranks, averaged weights, batch norm; then two more epochs of the same run."""
    run = tmp_path / "run"
    result = torchrun(datalist, run, settings | {"ema_decay": 0.8})
    assert result.returncode == 0, result.stderr
    with (run / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["iteration"] for row in rows] == ["2", "4"]  # four cases, two ranks
    state = load_file(run / "checkpoints" / "last.pt")
    assert not any(key.startswith("module.") for key in state["network"])
    assert result.stderr.count("epoch 2/2") == 1  # one process speaks
    assert float(rows[-1]["mean_dice"]) == pytest.approx(max(state["best_metric"], float(rows[-1]["mean_dice"])))
