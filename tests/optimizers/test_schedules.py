"""Learning-rate schedules at known points, and from a state dict."""

from __future__ import annotations

import json

import pytest
import torch
from full_set import FULL_SET

from medseg.errors import ConfigError
from medseg.optimizers import make_schedule


def rates(name: str, steps: int = 100, **options: float) -> list[float]:
    """The learning rate of each of ``steps`` steps, and the one after the last."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    schedule = make_schedule(optimizer, name, steps=steps, **options)
    values = []
    for _ in range(steps + 1):
        values.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return values


def test_cosine() -> None:
    values = rates("cosine", warmup=0.0)
    assert values[0] == 2.0 and values[50] == pytest.approx(1.0) and values[100] == pytest.approx(0.0)
    assert values[25] == pytest.approx(1 + 0.5**0.5)


def test_poly_is_nnunets() -> None:
    values = rates("poly", warmup=0.0)
    assert values[0] == 2.0 and values[50] == pytest.approx(2 * 0.5**0.9) and values[100] == 0.0


def test_warmup_rises_linearly() -> None:
    values = rates("cosine", warmup=0.1)
    assert values[:10] == pytest.approx([2 * (i + 1) / 11 for i in range(10)])
    assert values[10] == 2.0


def test_step_falls_at_each_third() -> None:
    """100 is no multiple of 3: the last third must reach to the end."""
    values = rates("step")
    assert values[33] == 2.0 and values[34] == pytest.approx(0.2)
    assert values[66] == pytest.approx(0.2) and values[67] == pytest.approx(0.02) == values[99]


FIXTURES = FULL_SET / "hermes"


@pytest.mark.usefixtures("full_set")
@pytest.mark.parametrize(("name", "warmup"), [("hermes_resunet", 5 / 200), ("hermes_medformer", 0.0)])
def test_exp_poly_is_the_published_table(name: str, warmup: float) -> None:
    table = json.loads((FIXTURES / "schedules.json").read_text())["lr_per_epoch"][name]
    assert len(table) == 200
    values = rates("exp_poly", 200, warmup=warmup)
    assert [value / 1000 for value in values[:200]] == pytest.approx(table, rel=1e-9)
    assert values[200] == 0


def test_step_of_given_length_with_a_floor() -> None:
    """QTSeg's: half every 50 epochs, not below 1e-5 of a start at 1e-3."""
    values = rates("step", 350, every=50, gamma=0.5, floor=0.04)
    assert values[49] == 2.0 and values[50] == 1.0 and values[149] == 0.5 and values[299] == pytest.approx(0.0625)
    assert values[300] == 0.04 == values[350]


def test_poly_that_starts_late() -> None:
    """QTSeg's: the second epoch still has the full rate."""
    values = rates("poly", warmup=0.0, hold=1, floor=0.1)
    assert values[:2] == [2.0, 2.0] and values[2] == pytest.approx(2 * 0.99**0.9)
    assert values[51] == pytest.approx(2 * 0.5**0.9) and values[100] == 0.1


def test_cosine_to_an_end_is_torchs_with_a_least_rate() -> None:
    """The neural operators': 5e-3 to 1e-3 over all iterations, which torch writes as one period of warm restarts."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, T_0=100, eta_min=0.4)
    expected = []
    for _ in range(100):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    values = rates("cosine", warmup=0.0, end=0.4)
    assert values[:100] == pytest.approx(expected) and values[100] == pytest.approx(0.4)


def test_constant() -> None:
    assert set(rates("constant")) == {2.0}


def test_unknown() -> None:
    with pytest.raises(ConfigError, match="'cosin' is not a valid schedule. Did you mean 'cosine'"):
        rates("cosin")
    with pytest.raises(ConfigError, match="no setting 'warm_up'.* Did you mean 'warmup'"):
        rates("cosine", warm_up=0.1)
