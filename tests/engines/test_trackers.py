"""Trackers: what they keep stays in the run's folder, and a package that is missing is named before training."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from medseg.engines import log_file, trackers
from medseg.engines.log_file import show_log
from medseg.engines.overlay_image import overlay_image
from medseg.engines.trackers import check_tracker, make_tracker
from medseg.errors import ConfigError

PIXELS = np.zeros((8, 8, 3), np.uint8)


def fill(name: str, folder: Path) -> None:
    tracker = make_tracker(name, folder, 1)
    tracker.settings({"Training/epochs": "2"})
    tracker.scalars({"loss": 1.0, "dice/left lung (all)": 0.5}, 1)
    tracker.image("validation", PIXELS, 1)
    tracker.flush()
    tracker.close()


def test_none_keeps_nothing(tmp_path: Path) -> None:
    fill("none", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_tensorboard(tmp_path: Path) -> None:
    fill("tensorboard", tmp_path)
    (file,) = (tmp_path / "tensorboard").glob("events*")
    assert b"Training/epochs" in file.read_bytes()


def test_mlflow_keeps_a_run_in_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for _ in range(2):  # a resumed training goes into the same run
        fill("mlflow", tmp_path)
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
    (run,) = client.search_runs([client.get_experiment_by_name("medseg").experiment_id])
    assert run.data.metrics == {"loss": 1.0, "dice/left lung _all_": 0.5}
    assert run.data.params == {"Training/epochs": "2"}
    assert list((tmp_path / "mlflow").rglob("*.png"))


def test_wandb_is_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    for _ in range(2):  # a resumed training goes on under the same id
        fill("wandb", tmp_path)
    first, second = (tmp_path / "wandb").glob("offline-run-*/*.wandb")
    assert first.name == second.name and first.parent != second.parent
    assert not any(path.is_symlink() for path in tmp_path.rglob("*"))  # a run with links that lead out is refused


def test_a_tracker_that_cannot_work_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install medseg\[wandb\]"):
        check_tracker("wandb")
    with pytest.raises(ConfigError, match="Did you mean 'mlflow'"):
        check_tracker("mlflw")


def test_an_overlay_shows_the_patients_right_on_the_left() -> None:
    label = torch.zeros(1, 6, 8, 4)
    label[0, 5, :, 2] = 1  # LPS: the last index along the first axis is the patient's left
    affine = torch.diag(torch.tensor([-1.0, -1.0, 2.0, 1.0], dtype=torch.float64))
    lps = {"image": MetaTensor(torch.rand(1, 6, 8, 4), affine=affine), "label": label, "pred": label * 0}
    pixels = overlay_image(lps)
    assert pixels is not None and pixels.shape == (384, 2 * 288, 3)
    colored = np.ptp(pixels[:, :288].astype(int), axis=-1).max(axis=0)  # grey where there is no label
    assert colored[-20:].min() > 0 and colored[:200].max() == 0
    assert np.ptp(pixels[:, 288:].astype(int), axis=-1).max() == 0


def test_an_overlay_of_a_colour_image_and_of_several_maps() -> None:
    label = torch.ones(1, 10, 20)
    pixels = overlay_image({"image": torch.rand(3, 10, 20), "label": label, "pred": label})
    assert pixels is not None and pixels.shape == (192, 768, 3)
    assert overlay_image({"image": torch.rand(1, 10, 20), "label": torch.ones(2, 10, 20), "pred": label}) is None


def test_an_overlay_of_regions_shows_the_smaller_within_the_larger() -> None:
    regions = torch.zeros(2, 4, 8)
    regions[0, :, 4:6], regions[1, :, 2:] = 1, 1
    pixels = overlay_image({"image": torch.zeros(1, 4, 8), "label": regions, "pred": regions})
    assert pixels is not None
    assert len({tuple(pixels[90, column]) for column in (24, 120, 216, 360)}) == 3  # none, larger, smaller, larger


def test_lines_are_seen_where_nobody_set_up_a_log(monkeypatch: pytest.MonkeyPatch) -> None:
    log = logging.Logger("stock")  # as under MONAI's own command
    monkeypatch.setattr(log_file, "logger", log)
    show_log()
    show_log()
    assert len(log.handlers) == 1 and log.isEnabledFor(logging.INFO)
