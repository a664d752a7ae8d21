"""What weights have seen stays known through the trainings that start from them."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from brightness import write_cases

import medseg
from medseg.data import read_datalist
from medseg.data.fingerprint import DataFingerprint
from medseg.engines.run_facts import read_facts
from medseg.errors import ConfigError
from medseg.workflows.ensemble import ensemble
from medseg.workflows.resolution import resolution

_QUICK: dict[str, Any] = {"epochs": 1, "device": "cpu", "tracker": "none"}
_SMALL = {"repeats": 1, "roi_size": [16, 16], "network_def::channels": [4, 8], "network_def::strides": [2]}
_PLANNED: dict[str, Any] = _QUICK | {"network": "UNet", "overrides": _SMALL}
_WARNED = "have seen 2 of its 2 validation cases"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four cases in two folds."""
    return write_cases(tmp_path_factory.mktemp("data"), dims=2, validation=4, folds=2)


@pytest.fixture(scope="module")
def source(data: Path) -> Path:
    """The run of the second fold, which has seen the validation cases of the first."""
    return medseg.train(output=data.parent / "cv" / "fold1", json_list=data, fold=1, **_PLANNED)


def test_a_run_knows_all_that_its_weights_have_seen(
    source: Path, data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    images = {c: files[:-1] for c, files in DataFingerprint.of(read_datalist(data).sections["training"]).cases.items()}
    trained = read_facts(source)
    assert trained.seen_images == {image for c in trained.training_cases or () for image in images[c]}
    with caplog.at_level(logging.WARNING, "medseg"):
        clean = medseg.train(output=tmp_path / "clean", json_list=data, fold=1, transfer=source, **_PLANNED)
        assert _WARNED not in caplog.text and medseg.evaluate(clean, device="cpu").facts.biases == []
        run = medseg.train(output=tmp_path / "run", json_list=data, fold=0, transfer=source, **_PLANNED)
        assert f"{source}, from which this training starts, {_WARNED}" in caplog.text
    assert read_facts(run).seen_images == {image for of_case in images.values() for image in of_case}
    biased = "was trained on 2 of these 2 cases: the scores are optimistically biased."
    assert medseg.evaluate(run, device="cpu").facts.biases == [f"The run {biased}"]
    caplog.clear()
    # Weights that were trained again on the other cases alone have still seen these.
    again = medseg.train(output=tmp_path / "again", json_list=data, fold=1, transfer=run, **_PLANNED)
    assert _WARNED in caplog.text
    joined = ensemble([clean, again], tmp_path / "joined", device="cpu")
    assert joined is not None and joined.facts.biases == [f"again {biased}"]
    assert read_facts(tmp_path / "joined").seen_images == read_facts(run).seen_images
    found = resolution([again], tmp_path / "sizes", sizes=[1.0], device="cpu")
    assert "again was trained on 2 of the 2 cases: its scores are biased." in found.warnings
    copied: dict[str, Any] = _QUICK | {"json_list": data, "fold": 1, "bundle": clean, "output": tmp_path / "copy"}
    with pytest.raises(ConfigError, match="began with the weights of another training, which its configs do not hold"):
        medseg.train(**copied)
    medseg.train(**copied, transfer=clean / "models" / "initial.pt", dry_run=True)
    medseg.train(**copied, overrides={"initial::path": None}, dry_run=True)


@pytest.mark.parametrize("way", ["a file", "a file in the config"])
def test_files_of_a_run_are_its_weights(
    source: Path, data: Path, tmp_path: Path, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    weights = source / "models" / "model.pt"
    told: dict[str, Any] = {
        "a file": _PLANNED | {"transfer": weights},
        "a file in the config": _QUICK | {"bundle": source, "overrides": {"initial::path": str(weights)}},
    }[way]
    with caplog.at_level(logging.WARNING, "medseg"):
        medseg.train(output=tmp_path / "run", json_list=data, fold=0, dry_run=True, **told)
    assert f"{source}, from which this training starts, {_WARNED}" in caplog.text
