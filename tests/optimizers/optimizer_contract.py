"""What every schedule and optimiser of the package promises: checks that take one, and say what it breaks."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch.optim import Optimizer

from medseg.optimizers import Schedule, make_schedule

STEPS = 30
RATE = 2.0


def scheduled(name: str) -> tuple[Optimizer, Schedule]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=RATE)
    return optimizer, make_schedule(optimizer, name, steps=STEPS, warmup=0.2)


def rates(optimizer: Optimizer, schedule: Schedule, count: int) -> list[float]:
    """The learning rates of the next ``count`` steps."""
    values = []
    for _ in range(count):
        values.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return values


def through_a_file(content: Any) -> Any:
    file = io.BytesIO()
    torch.save(content, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


# ---------------------------------------------------------------------- schedules
def rates_in_range(name: str) -> Iterator[str]:
    """Finite, never negative, never above the first rate that was asked for, and positive until the last step."""
    values = rates(*scheduled(name), STEPS + 1)
    if not all(math.isfinite(value) and -1e-12 <= value <= RATE + 1e-12 for value in values):
        yield f"its rates are {min(values)} to {max(values)}"
    if not min(values[:-1]) > 0 or max(values) < 0.9 * RATE:
        yield "it does not train: a rate is 0 before the end, or the full rate is never reached"


def moved_by_time(name: str) -> Iterator[str]:
    """``move_to`` a share of the whole gives the rate that steps give there; places between are taken too."""
    stepped = rates(*scheduled(name), STEPS + 1)
    optimizer, schedule = scheduled(name)
    for step in (0, 3, 6, 17, STEPS):
        schedule.move_to(step / STEPS)
        if not math.isclose(optimizer.param_groups[0]["lr"], stepped[step], rel_tol=1e-9, abs_tol=1e-12):
            yield f"moved to step {step} its rate is {optimizer.param_groups[0]['lr']}, stepped {stepped[step]}"
        schedule.move_to((step + 0.5) / STEPS)
        if not math.isfinite(optimizer.param_groups[0]["lr"]):
            yield f"between steps {step} and {step + 1} its rate is not finite"


def resumed_schedule(name: str) -> Iterator[str]:
    """From a file of its state it continues with the same rates."""
    expected = rates(*scheduled(name), STEPS)
    optimizer, schedule = scheduled(name)
    rates(optimizer, schedule, 12)
    states = through_a_file([optimizer.state_dict(), schedule.state_dict()])
    optimizer, schedule = scheduled(name)
    for part, state in zip((optimizer, schedule), states, strict=True):
        part.load_state_dict(state)
    if rates(optimizer, schedule, STEPS - 12) != expected[12:]:
        yield "resumed from a file it has other rates"


SCHEDULE_CHECKS = (rates_in_range, moved_by_time, resumed_schedule)


# ---------------------------------------------------------------------- optimisers
def minimised(cls: type[Optimizer], steps: int, state: Any = None, start: Any = (3.0, -4.0)) -> tuple[Any, Any]:
    """Parameter and state after steps down a paraboloid."""
    p, unused = torch.nn.Parameter(torch.tensor(start)), torch.nn.Parameter(torch.ones(1))
    optimizer = cls([p, unused], lr=0.1)  # type: ignore[call-arg]
    if state is not None:
        optimizer.load_state_dict(state)
    for _ in range(steps):
        optimizer.zero_grad()
        p.square().sum().backward()
        optimizer.step()
    return (p.detach(), unused.detach()), optimizer.state_dict()


def descends(cls: type[Optimizer]) -> Iterator[str]:
    """It goes down, and leaves alone what has no gradient."""
    (p, unused), _ = minimised(cls, 50)
    if not p.norm() < 2.5:
        yield f"50 steps down a paraboloid lead from (3, -4) to {p.tolist()}"
    if unused.item() != 1:
        yield "it moves a parameter without a gradient"


def resumed_optimizer(cls: type[Optimizer]) -> Iterator[str]:
    """From a file of its state it continues with the same bits."""
    (expected, _), _ = minimised(cls, 6)
    (half, _), state = minimised(cls, 3)
    (found, _), _ = minimised(cls, 3, through_a_file(state), half.tolist())
    if not torch.equal(found, expected):
        yield "resumed from a file it gives other parameters"


OPTIMIZER_CHECKS = (descends, resumed_optimizer)
