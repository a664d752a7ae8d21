"""Every command's process ends soon after its last line, with loader workers too, and after errors and signals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

_SOON = 30.0  # seconds on a busy machine; an idle one takes one or two
_NETWORK = '''
import os, signal, time
from torch import nn

class Threshold(nn.Module):
    """One convolution, which does what CALL says at the fifth patch of a training."""
    calls = 0

    def __init__(self, spatial_dims, in_channels, out_channels):
        super().__init__()
        self.layer = nn.Conv3d(in_channels, out_channels, 1)

    def forward(self, x):
        Threshold.calls += self.training
        if Threshold.calls == 5 and self.training:
            exec(os.environ.get("CALL", ""))
        return self.layer(x)
'''


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    (folder / "processes_net.py").write_text(_NETWORK)
    rng = np.random.default_rng(3)
    cases = []
    for number in range(4):
        label = np.zeros((12, 12, 12), np.uint8)
        label[3:8, 4:9, 2:7] = 1
        image = (label * 3 + rng.normal(size=label.shape)).astype(np.float32)
        names = {kind: f"{kind}{number}.nii.gz" for kind in ("image", "label")}
        for name, array in zip(names.values(), (image, label), strict=True):
            nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), folder / name)
        cases.append(names | {"fold": number % 2})
    table = {"name": "d", "modality": {"0": "MR"}, "labels": {"0": "background", "1": "box"}, "training": cases}
    (folder / "list.json").write_text(json.dumps(table))
    return folder


def run(data: Path, *arguments: Any, call: str = "") -> tuple[int, str]:
    """Exit status and output of a command, which must end soon after its last line, and leave no process."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(data), "CALL": call}
    process = subprocess.Popen(
        [sys.executable, "-m", *map(str, arguments)], env=environment, cwd=data, text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    lines = []
    assert process.stdout is not None
    try:
        deadline = time.monotonic() + 150
        for line in process.stdout:  # until the workers have closed it, too
            lines.append(line)
            last = time.monotonic()
            assert last < deadline
            if line.startswith(("run: ", "error: ", "stopped ")):
                break
        rest = process.communicate(timeout=_SOON)[0]
    except subprocess.TimeoutExpired:
        pytest.fail(f"still there {_SOON:g} s after: {lines[-1]}")
    finally:
        with_group = os.getpgid(process.pid) if process.poll() is None else None
        if with_group is not None:
            os.killpg(with_group, signal.SIGKILL)
    return process.returncode, "".join(lines) + rest


def train(data: Path, output: Path, *options: str, workers: int = 2, call: str = "") -> tuple[int, str]:
    command = ["medseg.cli", "train", "--network=processes_net.Threshold", "--json_list=list.json", "--fold=0"]
    sets = {"num_workers": workers, "cache": "plain", "roi_size": [8, 8, 8], "batch_size": 1, "repeats": 4}
    command += [f"--output={output}", "--device=cpu", *(f"--set={key}={value}" for key, value in sets.items())]
    return run(data, *command, *(options or ("--epochs=2",)), call=call)


@pytest.mark.slow
def test_training_ends_by_itself(data: Path, tmp_path: Path) -> None:
    """By epochs, by time, by MONAI's own command on the run, and a validation with workers that stay."""
    folder = tmp_path / "run"
    status, out = train(data, folder, workers=2)
    assert status == 0 and "run: " in out, out
    status, out = train(data, tmp_path / "timed", "--max_minutes=0.05", workers=4)
    assert status == 0 and "run: " in out, out
    assert json.loads((tmp_path / "timed" / "run.json").read_text())["validations"] >= 1
    loader = "validate::dataloader"
    options = (f"--set={loader}::num_workers=2", f"--set={loader}::persistent_workers=true")
    status, out = run(data, "medseg.cli", "validate", "--run", folder, *options)
    assert status == 0, out
    files = (f"--config_file={folder}/configs/train.yaml", f"--bundle_root={folder}", "--epochs=3")
    status, out = run(data, "monai.bundle", "run", *files)
    assert status == 0, out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("call", "workers", "status"),
    [
        ("raise RuntimeError('no')", 2, None),
        ("os.killpg(0, signal.SIGINT)", 2, 130),
        ("os.killpg(0, signal.SIGTERM)", 4, 143),
    ],
)
def test_training_ends_after_errors_and_signals(
    data: Path, tmp_path: Path, call: str, workers: int, status: int | None
) -> None:
    """The whole group gets the signal, as from a terminal or a scheduler; the state is saved, and the lock is gone."""
    found, out = train(data, tmp_path / "run", "--epochs=30", workers=workers, call=call)
    assert found == status or (status is None and found not in (0, 130, 143)), out
    assert not (tmp_path / "run" / ".medseg.lock").exists()
    if status is not None:
        assert "the state is saved" in out and (tmp_path / "run" / "checkpoints" / "last.pt").is_file()
