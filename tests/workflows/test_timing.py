"""What a validation costs is found out from small cases, and one that is too long goes over fewer."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml

from medseg.data import EpochSampler
from medseg.engines.run_facts import RunFacts, read_facts
from medseg.engines.validation_cost import case_seconds, validation_seconds
from medseg.workflows.timing import fit_validation

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
def evaluator(monkeypatch: pytest.MonkeyPatch) -> Any:
    """An evaluator of ``Cases``."""
    clock = Clock()
    monkeypatch.setattr("medseg.engines.validation_cost.time.perf_counter", clock)

    def evaluate(engine: Any, batch: Any) -> None:
        clock.now += 0.1 * batch["image"].shape[-1]

    state = SimpleNamespace(device=torch.device("cpu"), batch=None)
    return SimpleNamespace(data_loader=SimpleNamespace(dataset=Cases(clock)), state=state, _iteration=evaluate)


def test_the_cost_of_large_cases_is_told_from_small_ones(evaluator: Any) -> None:
    costs = case_seconds(evaluator, most=8.0)  # too little to try the large one
    assert costs[:3] == pytest.approx([1.61] * 3) and costs[3] == pytest.approx(16 * 1.61)


def test_a_validation_costs_its_cases(evaluator: Any) -> None:
    assert validation_seconds(evaluator, 60.0) == pytest.approx(3 * 1.61 + 25.61)
    evaluator.data_loader.sampler = EpochSampler([0, 3], even_divisible=False, num_replicas=1, rank=0)
    assert validation_seconds(evaluator, 60.0) == pytest.approx(1.61 + 25.61)
    evaluator.data_loader = None
    assert validation_seconds(evaluator, 60.0) == 0


@pytest.mark.parametrize(("seconds", "cases"), [(600, None), (90, 1), (40, 1)])
def test_a_long_validation_goes_over_fewer_cases(evaluator: Any, tmp_path: Path, seconds: int, cases: int) -> None:
    """Of all cases it takes 30.6 s, of one case per data set 27.4 s."""
    path = tmp_path / "configs" / "train.yaml"
    path.parent.mkdir()
    parser = SimpleNamespace(get_parsed_content=lambda name: evaluator, get=lambda: yaml.safe_load(path.read_text()))
    workflow: Any = SimpleNamespace(parser=parser)
    path.write_text(yaml.safe_dump({"epochs": 1}))
    assert fit_validation(workflow, tmp_path, seconds, RunFacts()) == (RunFacts(), False)  # has no such setting
    path.write_text(yaml.safe_dump({"epochs": 1, "validation_cases": None}))
    facts, changed = fit_validation(workflow, tmp_path, seconds, RunFacts(seed=7))
    assert changed == (cases is not None) and facts == read_facts(tmp_path)
    assert facts.fitted_to_time and facts.seed == 7
    assert yaml.safe_load(path.read_text()) == {"epochs": 1, "validation_cases": cases}
