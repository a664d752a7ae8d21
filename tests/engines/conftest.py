"""Tiny NIfTI cases and a training that takes a second, for the tests of the engines."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch

# A network with dropout and batch norm: what a resume must get right beside the weights.
NETWORK = {
    "network_def::init_filters": 4,
    "network_def::blocks_down": [1, 1],
    "network_def::blocks_up": [1],
    "network_def::dropout_prob": 0.3,
    "network_def::norm": "BATCH",
}
SETTINGS: dict[str, Any] = NETWORK | {
    "roi_size": [16, 16, 16],
    "batch_size": 1,
    "repeats": 1,
    "val_interval": 1,
    "cache": "plain",
}


def write_case(folder: Path, name: str, rng: np.random.Generator) -> dict[str, str]:
    """A noisy volume of 18 x 16 x 14 voxels with a bright box (1) and a dark one (2)."""
    label = np.zeros((18, 16, 14), dtype=np.uint8)
    corner = rng.integers(1, 5, size=3)
    label[tuple(slice(c, c + 6) for c in corner)] = 1
    label[12:16, 10:14, 8:12] = 2
    image = (rng.normal(size=label.shape) + 3.0 * (label == 1) - 3.0 * (label == 2)).astype(np.float32)
    affine = np.diag([1.0, 1.0, 1.2, 1.0])
    for kind, array in (("image", image), ("label", label)):
        nibabel.save(nibabel.Nifti1Image(array, affine), folder / f"{name}_{kind}.nii.gz")
    return {"image": f"{name}_image.nii.gz", "label": f"{name}_label.nii.gz"}


@pytest.fixture(scope="session")
def datalist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four training and two validation cases."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(7)
    table = {
        "name": "tiny",
        "modality": {"0": "MR"},
        "labels": {"0": "background", "1": "box", "2": "cube"},
        "training": [write_case(folder, f"t{i}", rng) for i in range(4)],
        "validation": [write_case(folder, f"v{i}", rng) for i in range(2)],
    }
    path = folder / "datalist.json"
    path.write_text(json.dumps(table))
    return path


@pytest.fixture(scope="session")
def settings() -> dict[str, Any]:
    """The settings that every tiny training has, by config id."""
    return dict(SETTINGS)


@pytest.fixture(scope="session")
def tiny_train(datalist: Path) -> Callable[..., Path]:
    """``tiny_train(output, epochs=3, **settings)``: train in this process; more settings by config id."""
    from medseg.workflows.training import train

    def run(output: Path, epochs: int | None = 3, settings: dict[str, Any] | None = None, **arguments: Any) -> Path:
        return train(
            output=output,
            json_list=datalist,
            network="SegResNet",
            epochs=epochs,
            device="cpu",
            overrides=SETTINGS | (settings or {}),
            **arguments,
        )

    return run


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Equal numbers need equal thread counts."""
    torch.set_num_threads(1)
