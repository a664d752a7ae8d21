"""``medseg prepare``: the list, a module's own options, the summary, and folders that cannot be used."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest

from medseg.cli import main
from medseg.datasets import datasets

ROOT = Path(__file__).parents[2]


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """A Decathlon task of four cases."""
    root = tmp_path / "raw"
    for folder in ("imagesTr", "labelsTr"):
        (root / folder).mkdir(parents=True)
        for number in range(4):
            voxels = np.zeros((4, 4, 4), np.uint8)
            nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), root / folder / f"t_{number}.nii.gz")
    entries = [{"image": f"imagesTr/t_{n}.nii.gz", "label": f"labelsTr/t_{n}.nii.gz"} for n in range(4)]
    table = {"name": "T", "modality": {"0": "CT"}, "labels": {"0": "background", "1": "liver"}, "training": entries}
    (root / "dataset.json").write_text(json.dumps(table))
    return root


def test_the_list_names_every_data_set_without_torch(capsys):
    code = "import sys; from medseg.cli import main; main(['prepare', '--list']); assert 'torch' not in sys.modules"
    shown = subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, capture_output=True, text=True).stdout
    for name, facts in datasets().items():
        assert f"{name}: {facts.title}" in shown
        assert facts.terms.split()[0] in shown
    assert "--task 1, " in shown and "--num_folds 0" in shown and "--no-crop" in shown
    assert main(["prepare", "btcv", "--list"]) == 0
    assert capsys.readouterr().out.startswith("btcv: BTCV\n")


def test_a_modules_own_options_are_options_of_the_command(raw, tmp_path, capsys):
    command = ["prepare", "msd", "--raw", str(raw), "--out", str(tmp_path / "out")]
    assert main([*command, "--num_folds", "2"]) == 0
    shown = capsys.readouterr().out
    assert "4 training in 2 folds cases; CT; 1 labels" in shown
    assert f"--data_dir {raw}" in shown
    for arguments, sentence in (
        ([*command, "--seed", "one"], "invalid int value: 'one'"),
        ([*command, "--task", "2"], "unrecognized arguments: --task"),
        (["networks", "--task", "2"], "unrecognized arguments: --task"),
    ):
        with pytest.raises(SystemExit, match="2"):
            main(arguments)
        assert sentence in capsys.readouterr().err


def test_the_help_of_a_module(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["prepare", "chaos", "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "--raw DIR" in shown and "options of chaos" in shown
    assert "--modality M MR or CT (default MR)" in shown
    assert "--crop, --no-crop to the labels and 20 voxels around them" in shown
    with pytest.raises(SystemExit, match="0"):
        main(["prepare", "--help"])
    assert "--modality" not in capsys.readouterr().out


def test_what_cannot_be_used_is_refused(raw, tmp_path, capsys):
    for arguments, status, sentence in (
        (["mds", "--raw", "x", "--out", "y"], 2, "Did you mean 'msd'"),
        (["btcv"], 2, "needs --raw"),
        (["btcv", "--raw", str(tmp_path / "none"), "--out", str(tmp_path / "out")], 2, "not found"),
        (["msd", "--raw", str(raw), "--out", str(raw / "out")], 2, "stays as it is"),
        (["btcv", "--raw", str(raw), "--out", str(tmp_path / "out")], 3, "80 of 80 files"),
    ):
        assert main(["prepare", *arguments]) == status
        assert sentence in capsys.readouterr().err
