"""LAMB: the published updates, clipping, state, refusals."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from full_set import FULL_SET

from medseg.errors import ConfigError
from medseg.optimizers import Lamb

FIXTURES = FULL_SET / "hermes"


@pytest.mark.usefixtures("full_set")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ["lamb_a", "lamb_wd005"])
def test_steps_of_the_original(name: str, dtype: torch.dtype) -> None:
    facts = json.loads((FIXTURES / f"{name}.json").read_text())
    arrays = {key: torch.from_numpy(value) for key, value in np.load(FIXTURES / f"{name}.npz").items()}
    count = sum(key.startswith("p0/") for key in arrays)
    parameters = [torch.nn.Parameter(arrays[f"p0/{i}"].to(dtype)) for i in range(count)]
    options = {key: facts[key] for key in ("lr", "betas", "eps", "weight_decay", "max_grad_norm")}
    optimizer = Lamb(parameters, **options)
    for step in range(1, 6):
        for i, p in enumerate(parameters):
            p.grad = arrays[f"g{step}/{i}"].to(dtype)
        optimizer.step()
        for i, p in enumerate(parameters):
            torch.testing.assert_close(p.detach().double(), arrays[f"p{step}/{i}"], rtol=0, atol=1e-6)


def quadratic(steps: int, **options: Any) -> tuple[torch.nn.Parameter, Lamb]:
    p = torch.nn.Parameter(torch.tensor([3.0, -4.0]))
    optimizer = Lamb([p], **{"lr": 0.1, "weight_decay": 0.01, **options})
    for _ in range(steps):
        run(p, optimizer)
    return p, optimizer


def run(p: torch.nn.Parameter, optimizer: Lamb) -> None:
    optimizer.zero_grad()
    p.square().sum().backward()
    optimizer.step()


def test_first_step_is_the_tensors_length_times_the_rate() -> None:
    p, _ = quadratic(1)
    assert float((p.detach() - torch.tensor([3.0, -4.0])).norm()) == pytest.approx(0.5)  # |p| = 5, lr = 0.1


def test_without_decay_it_is_adam() -> None:
    p, _ = quadratic(5, weight_decay=0.0, max_grad_norm=None, eps=1e-8)
    q = torch.nn.Parameter(torch.tensor([3.0, -4.0]))
    adam = torch.optim.Adam([q], lr=0.1)
    for _ in range(5):
        adam.zero_grad()
        q.square().sum().backward()
        adam.step()
    torch.testing.assert_close(p, q)


def test_clipping_is_over_all_groups() -> None:
    a, b = torch.nn.Parameter(torch.ones(1)), torch.nn.Parameter(torch.ones(1))
    optimizer = Lamb([{"params": [a]}, {"params": [b]}], max_grad_norm=0.5)
    a.grad, b.grad = torch.tensor([3.0]), torch.tensor([4.0])
    optimizer.step()
    moments = [float(optimizer.state[p]["exp_avg"]) for p in (a, b)]
    assert moments == pytest.approx([0.1 * 0.3, 0.1 * 0.4])


@pytest.mark.parametrize("options", [{"lr": -1.0}, {"betas": (0.9, 1.0)}, {"max_grad_norm": float("nan")}])
def test_refusals(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="expected"):
        Lamb([torch.nn.Parameter(torch.zeros(1))], **options)
