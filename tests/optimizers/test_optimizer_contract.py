"""Every schedule and every optimiser of the package is held to the contract. Planted faults are noticed."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import optimizer_contract as contract
import pytest
import torch
from torch.optim import Optimizer

import medseg.optimizers
from medseg.optimizers import Lamb
from medseg.optimizers.schedules import SCHEDULES, ScheduleSettings

OPTIMIZERS = [
    cls
    for name in medseg.optimizers.__all__
    if inspect.isclass(cls := getattr(medseg.optimizers, name)) and issubclass(cls, Optimizer)
]


@pytest.mark.parametrize("check", contract.SCHEDULE_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules(name: str, check: Callable[[str], Iterator[str]]) -> None:
    assert list(check(name)) == []


@pytest.mark.parametrize("check", contract.OPTIMIZER_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("cls", OPTIMIZERS)
def test_optimizers(cls: type[Optimizer], check: Callable[[type[Optimizer]], Iterator[str]]) -> None:
    assert list(check(cls)) == []


# ---------------------------------------------------------------------- planted faults
def below_zero(step: float, of: ScheduleSettings) -> float:
    return 1 - 1.5 * step / of.steps


def never_full(step: float, of: ScheduleSettings) -> float:
    return 0.5


def whole_steps_only(step: float, of: ScheduleSettings) -> float:
    return 1.0 if step == int(step) else float("nan")


class Remembering:
    """Depends on what was asked before, which no state dict knows."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, step: float, of: ScheduleSettings) -> float:
        self.calls += 1
        return 1 / self.calls


@pytest.mark.parametrize(
    ("check", "shape"),
    [
        (contract.rates_in_range, below_zero),
        (contract.rates_in_range, never_full),
        (contract.moved_by_time, whole_steps_only),
        (contract.moved_by_time, Remembering()),
        (contract.resumed_schedule, Remembering()),
    ],
)
def test_a_planted_fault_of_a_schedule_is_noticed(check: Any, shape: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SCHEDULES, "planted", shape)
    assert list(check("planted"))


class Ascends(torch.optim.SGD):
    def __init__(self, params: Any, lr: float) -> None:
        super().__init__(params, lr, maximize=True)


class Forgets(Lamb):
    def state_dict(self) -> Any:
        state = super().state_dict()
        return {**state, "state": {key: {**own, "step": torch.zeros(())} for key, own in state["state"].items()}}


@pytest.mark.parametrize(("check", "cls"), [(contract.descends, Ascends), (contract.resumed_optimizer, Forgets)])
def test_a_planted_fault_of_an_optimizer_is_noticed(check: Any, cls: type[Optimizer]) -> None:
    assert list(check(cls))
