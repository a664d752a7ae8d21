"""A training of given length ends in time, uses it, and finds out what large validation cases will cost."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml

from medseg.workflows import measuring
from medseg.workflows.timing import _plan, fit_epochs

SIZES = {"small": [16, 16, 16], "large": [256]}  # voxels of cases by data set


class Clock:
    """Seconds that pass by what is done, not by themselves."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class Cases:
    """Validation cases that take 0.01 s to read and a tenth of a second per voxel."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.data = [{"case_id": f"{n}{i}", "dataset": n} for n, sizes in SIZES.items() for i in range(len(sizes))]
        self.sizes = [size for sizes in SIZES.values() for size in sizes]

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        self.clock.now += 0.01
        return {"image": torch.zeros(1, self.sizes[index])}


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any]:
    """A trainer whose steps take half a second, 10 per epoch, and an evaluator of ``Cases``."""
    clock = Clock()
    for name in ("medseg.workflows.timing.time.monotonic", "medseg.workflows.measuring.time.perf_counter"):
        monkeypatch.setattr(name, clock)

    def evaluate(engine: Any, batch: Any) -> None:
        clock.now += 0.1 * batch["image"].shape[-1]

    def step(engine: Any, batch: Any) -> None:
        clock.now += 0.5

    state = SimpleNamespace(device=torch.device("cpu"), batch=None, iteration=0, epoch_length=10)
    loader = SimpleNamespace(dataset=Cases(clock))
    evaluator = SimpleNamespace(data_loader=loader, state=state, _iteration=evaluate)
    return SimpleNamespace(data_loader=range(10), network=None, state=state, _iteration=step), evaluator


def fitted(engines: tuple[Any, Any], run: Path, seconds: float, **config: Any) -> dict[str, Any]:
    (run / "configs").mkdir(parents=True)
    (run / "configs" / "train.yaml").write_text(yaml.safe_dump({"epochs": 1, "val_interval": 1, **config}))
    parts = dict(zip(("train::trainer", "validate::evaluator"), engines, strict=True))
    fit_epochs(SimpleNamespace(parser=SimpleNamespace(get_parsed_content=parts.__getitem__)), run, seconds)
    return yaml.safe_load((run / "configs" / "train.yaml").read_text())


def test_the_cost_of_large_cases_is_told_from_small_ones(engines: Any) -> None:
    costs = measuring.case_seconds(engines[1], most=8.0)  # too little to try the large one
    assert costs[:3] == pytest.approx([1.61] * 3) and costs[3] == pytest.approx(16 * 1.61)
    assert measuring.step_seconds(engines[0], most=60.0) == pytest.approx(0.5)


@pytest.mark.parametrize(("seconds", "cases", "validated"), [(600, None, True), (90, 1, True), (40, 1, False)])
def test_validation_takes_its_share(engines: Any, tmp_path: Path, seconds: int, cases: int, validated: bool) -> None:
    """A validation takes 30.6 s, of one case per data set 27.4 s."""
    config = fitted(engines, tmp_path / "run", seconds, validation_cases=None, iterations=10)
    assert config["validation_cases"] == cases
    rounds = config["epochs"] // config["val_interval"]
    assert (rounds > 0) == validated
    spent = 0.5 * config["epochs"] * config["iterations"] + rounds * (27.4 if cases else 30.6)
    assert 0.6 * seconds < spent < seconds


def test_one_case_per_data_set_is_the_least(engines: Any, tmp_path: Path) -> None:
    cases = engines[1].data_loader.dataset
    cases.data, cases.sizes = [cases.data[0], cases.data[3]], [16, 256]
    config = fitted(engines, tmp_path / "run", 90, validation_cases=None, iterations=10)
    assert config["validation_cases"] is None and config["val_interval"] == config["epochs"]


def test_an_epoch_longer_than_the_time_becomes_shorter(engines: Any, tmp_path: Path) -> None:
    engines[1].data_loader = None
    config = fitted(engines, tmp_path / "run", 4.0, iterations=10)
    assert config["epochs"] == 1 and 3 <= config["iterations"] <= 6
    assert fitted(engines, tmp_path / "other", 4.0).keys() == {"epochs", "val_interval"}


@pytest.mark.parametrize("left", [50.0, 333.0, 4000.0])
@pytest.mark.parametrize("validation", [0.0, 1.0, 30.0])
def test_the_last_epoch_is_validated(left: float, validation: float) -> None:
    epochs, interval = _plan(left, epoch=7.0, validation=validation)
    assert epochs % interval == 0 and epochs // interval <= 20
    spent = 7.0 * epochs + epochs // interval * validation
    assert spent <= left and spent + 7.0 > 0.9 * left
