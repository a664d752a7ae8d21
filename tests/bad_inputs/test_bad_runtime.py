"""While running (numbers 63 and 68 of the matrix), and cases that fail in inference."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch

from medseg.bundle.compose import command
from medseg.bundle.draft import Draft
from medseg.data import PlanSettings, inspect_cases, make_plan, read_datalist
from medseg.engines import SegmentationTrainer
from medseg.networks import create_network
from medseg.weights import save_file

_UNET = {"spatial_dims": 3, "in_channels": 1, "out_channels": 2, "channels": [4, 8], "strides": [2]}


@pytest.fixture
def bundle(study: Any) -> Path:
    """A bundle of a tiny U-Net with random weights."""
    path = study.write([study.case("a"), study.case("b")], validation=[study.case("v")])
    datalist = read_datalist(path)
    facts = inspect_cases(datalist.sections["training"], datalist.label_space, datalist.channels)
    plan = make_plan(datalist, facts, PlanSettings(roi_size=(8, 8, 8)))
    draft = Draft.planned("UNet", _UNET, datalist, plan).over(command({"epochs": 2, "repeats": 4}))
    folder = draft.write(study.folder / "bundle")
    torch.manual_seed(0)
    save_file(create_network("UNet", **_UNET).state_dict(), folder / "models" / "model.pt")
    return folder


def _train(study: Any, bundle: Path, *options: Any) -> Any:
    return study.run(
        "train", "--bundle", bundle, "--json_list", study.folder / "list.json", "--device", "cpu",
        "--output", study.folder / "run", *options,
    )  # fmt: skip


def test_63_loss_that_is_not_finite(study: Any, bundle: Path) -> None:
    result = _train(study, bundle, "--set", "learning_rate=1.0e+30", "--epochs", 9)
    assert result.status == 4, result.err
    assert "The loss was not finite in 10 steps in a row (cases " in result.err
    assert any(f"cases {ids}, " in result.err for ids in ("a", "b", "a, b", "b, a"))
    assert "last finite gradient norm " in result.err
    assert "the last good checkpoint is kept. Lower the learning rate or check these cases." in result.err


def test_68_interrupt_saves_the_state(study: Any, bundle: Path, monkeypatch: Any) -> None:
    iterate = SegmentationTrainer._iteration
    before = signal.getsignal(signal.SIGINT)  # a shell ignores it for jobs in the background

    def interrupted(self: Any, engine: Any, batch: Any) -> Any:
        if self.state.iteration == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return iterate(self, engine, batch)

    monkeypatch.setattr(SegmentationTrainer, "_iteration", interrupted)
    result = _train(study, bundle)
    assert result.status == 130
    assert "stopped in epoch 1, iteration 3; the state is saved, rerun the same command to resume" in result.log
    state = torch.load(study.folder / "run" / "checkpoints" / "last.pt", weights_only=True)
    assert state["iteration"] == 3
    assert signal.getsignal(signal.SIGINT) is before


def test_inference_leaves_broken_cases_out(study: Any, bundle: Path) -> None:
    images = study.folder / "neue Bilder"
    images.mkdir()
    affine = np.diag([-0.5, 2, 3, 1])
    affine[:3, 3] = 7
    study.image("neue Bilder/Bäuch 1 ü.nii.gz", (9, 11, 13), affine)
    study.image("neue Bilder/whole.nii.gz")
    (images / "cut.nii.gz").write_bytes((images / "whole.nii.gz").read_bytes()[:300])
    study.image("neue Bilder/flat.nii.gz", (20, 20))
    study.image("neue Bilder/two.nii.gz", (12, 10, 8, 2))
    arguments = ["infer", images, "--bundle", bundle, "--device", "cpu", "--output", study.folder / "out"]
    result = study.run(*arguments)
    assert result.status == 6
    assert f"3 of 5 cases failed, listed in {study.folder / 'out' / 'failures.json'}" in result.err
    failures = json.loads((study.folder / "out" / "failures.json").read_text(encoding="utf-8"))
    assert set(failures) == {"cut", "flat", "two"}
    assert "is cut short or damaged: the compressed data end after" in failures["cut"]
    assert failures["flat"] == "model expects 3 spatial axes, flat has 2. Use a model with spatial_dims 2."
    assert failures["two"].startswith("model expects 1 channels, two has 2. Give one file per channel")
    made = nibabel.load(study.folder / "out" / "Bäuch 1 ü.nii.gz")
    assert made.shape == (9, 11, 13)
    np.testing.assert_allclose(made.affine, affine)
    assert set(np.unique(made.dataobj)) <= {0, 1}

    # The same command does what is left, once the files are mended.
    before = (study.folder / "out" / "whole.nii.gz").stat().st_mtime_ns
    study.image("neue Bilder/cut.nii.gz")
    (images / "flat.nii.gz").unlink()
    (images / "two.nii.gz").unlink()
    assert study.run(*arguments).status == 0
    kept = json.loads((study.folder / "out" / "failures.json").read_text(encoding="utf-8"))
    assert kept == {case: failures[case] for case in ("flat", "two")}  # of cases that were not asked for
    assert (study.folder / "out" / "whole.nii.gz").stat().st_mtime_ns == before


def test_inference_without_weights_or_with_those_of_another_network(study: Any, bundle: Path) -> None:
    image = study.folder / study.image("x.nii.gz")
    arguments = ["infer", image, "--bundle", bundle, "--device", "cpu", "--output", study.folder / "out"]
    save_file({"swin.weight": torch.zeros(2)}, bundle / "models" / "model.pt")
    result = study.run(*arguments)
    assert result.status == 4
    assert "has keys like 'swin.weight'; network UNet matches 0 of " in result.err
    (bundle / "models" / "model.pt").unlink()
    result = study.run(*arguments)
    assert result.status == 4
    assert f"No weights at {bundle / 'models' / 'model.pt'}" in result.err
