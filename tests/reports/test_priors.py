"""Similarity of priors: known vectors, an order that joins alike ones, and a picture of a bundle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from medseg.errors import ConfigError, ModelError
from medseg.reports.priors import prior_similarity, similar_order, write_prior_picture
from medseg.weights import save_file

STATE = {
    "a.priors.task": torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 0.0], [-1.0, 0.0]]),  # the last is the null task
    "b.priors.task": torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]),
    "a.priors.modality": torch.ones(2, 10, 2),
    "b.priors.modality": torch.ones(2, 10, 2),
}


def test_mean_cosine_over_scales() -> None:
    found = prior_similarity(STATE, "task", [0, 1, 2, -1])
    assert np.allclose(found[0], [1, 0.5, 1, -0.5]) and np.allclose(found, found.T)
    assert prior_similarity(STATE, "modality", [0, -1]) == pytest.approx(np.ones((2, 2)))
    with pytest.raises(ModelError, match="have 3 task priors, the label table names id 3"):
        prior_similarity(STATE, "task", [3])
    with pytest.raises(ModelError, match="hold no priors"):
        prior_similarity({"x": torch.ones(1)}, "task", [0])


def test_alike_rows_are_neighbours() -> None:
    vectors = np.array([[1, 0], [0, 1], [1, 0.1], [0.1, 1]]) / np.array([[1], [1], [1.005], [1.005]])
    order = similar_order(vectors @ vectors.T)
    assert {order.index(0), order.index(2)} in ({0, 1}, {2, 3})


def test_picture(tmp_path: Path) -> None:
    labels = {"tasks": {"x": 0, "y": 2}, "modalities": {"ct": 0}, "datasets": {"d": {"labels": {"x": 1, "y": 2}}}}
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "inference.yaml").write_text(yaml.safe_dump({"labels": labels}))
    with pytest.raises(ModelError, match=r"model\.pt not found"):
        write_prior_picture(tmp_path, tmp_path / "p.png")
    (tmp_path / "models").mkdir()
    save_file(STATE, tmp_path / "models" / "model.pt")
    with Image.open(write_prior_picture(tmp_path, tmp_path / "new" / "p.png")) as picture:
        assert len(np.unique(np.asarray(picture.convert("RGB")).reshape(-1, 3), axis=0)) > 50
    with pytest.raises(ConfigError, match="expected an image file"):
        write_prior_picture(tmp_path, tmp_path / "p.txt")
