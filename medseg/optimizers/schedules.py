"""Learning-rate schedules by name: functions of progress, stepped once per iteration or epoch or moved by the time."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence, Sized
from dataclasses import dataclass, fields
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from medseg.errors import ConfigError, nearest

__all__ = ["SCHEDULES", "Schedule", "ScheduleSettings", "iterations", "make_schedule"]

_PUBLISHED_E = 2.718  # to three digits in the published schedule


@dataclass(frozen=True)
class ScheduleSettings:
    """Numbers that the shapes read.

    Attributes:
        steps: number of steps of the whole training.
        warmup: share of the steps with a rise: linear from 0 (``cosine``, ``poly``) or exponential (``exp_poly``).
        power: exponent of ``poly`` and ``exp_poly``.
        gamma: factor of ``step``.
        every: length of a stage of ``step``; ``None`` for a third of all steps.
        hold: number of steps by which the shape starts late; it still ends where it would.
        floor: least learning rate; the shape is cut there.
        end: learning rate that ``cosine`` goes down to, its whole shape between this and the first.
    """

    steps: int
    warmup: float = 0.05
    power: float = 0.9
    gamma: float = 0.1
    every: int | None = None
    hold: int = 0
    floor: float = 0.0
    end: float = 0.0

    @property
    def rise(self) -> int:
        """Number of steps of the warm-up."""
        return round(self.warmup * self.steps)

    def share(self, step: float) -> float:
        """How much of the steps after the warm-up is done, 0 to 1."""
        return min(1.0, (step - self.rise) / max(1, self.steps - self.rise))


def _cosine(step: float, of: ScheduleSettings) -> float:
    return 0.5 * (1 + math.cos(math.pi * of.share(step)))


def _poly(step: float, of: ScheduleSettings) -> float:
    return float((1 - of.share(step)) ** of.power)


def _exp_poly(step: float, of: ScheduleSettings) -> float:
    if of.rise and step <= of.rise:
        return float(_PUBLISHED_E ** (10 * (step / of.rise - 1)))
    return float(max(0.0, 1 - step / of.steps) ** of.power)


def _step(step: float, of: ScheduleSettings) -> float:
    return float(of.gamma ** (3 * step // of.steps if of.every is None else step // of.every))


def _constant(step: float, of: ScheduleSettings) -> float:
    return 1.0


Shape = Callable[[float, ScheduleSettings], float]
# Factor of the learning rate after a number of steps.
SCHEDULES: dict[str, Shape] = {
    "cosine": _cosine,
    "poly": _poly,
    "step": _step,
    "exp_poly": _exp_poly,
    "constant": _constant,
}
_RISING = ("cosine", "poly")  # linearly, before their shape


class Schedule(LambdaLR):
    """A schedule of known length.

    Its state dict holds the number of steps done but no shape: a run that is made longer follows the longer shape.

    Args:
        optimizer: whose learning rates are scaled.
        factors: factors of the learning rate of each parameter group, by the number of steps done.
        steps: number of steps of the whole training.
    """

    def __init__(self, optimizer: Optimizer, factors: Sequence[Callable[[float], float]], steps: int) -> None:
        self.steps = steps
        super().__init__(optimizer, list(factors))

    def move_to(self, share: float) -> None:
        """Go to the place that is a ``share``, 0 to 1, of the whole."""
        self.last_epoch = share * self.steps - 1  # type: ignore[assignment]  # the shapes take any number
        self.step()

    def state_dict(self) -> dict[str, Any]:
        return {key: value for key, value in super().state_dict().items() if key != "steps"}


def iterations(epochs: int, loader: Sized) -> int:
    """Number of iterations of a training: the steps of a schedule that moves with each of them."""
    return epochs * len(loader)


def make_schedule(optimizer: Optimizer, name: str = "cosine", *, steps: int, **settings: Any) -> Schedule:
    """A schedule over ``steps`` calls of ``step()``.

    Args:
        optimizer: whose learning rates are scaled.
        name: ``cosine`` (to ``end``), ``poly`` ((1 - t) ** power, as nnU-Net), ``step`` (times ``gamma`` at each third,
            or ``every`` so many steps), ``exp_poly`` (a rise by exp(10 (t - 1)) in the warm-up, then ``poly`` over all
            steps, as Hermes per epoch), ``constant``.
        steps: number of steps of the whole training.
        settings: the other attributes of ``ScheduleSettings``, by name.

    Raises:
        ConfigError: an unknown name or setting.
    """
    if name not in SCHEDULES:
        raise ConfigError(f"'{name}' is not a valid schedule.{nearest(name, SCHEDULES)} Use {', '.join(SCHEDULES)}.")
    known = [field.name for field in fields(ScheduleSettings)]
    for key in settings:
        if key not in known:
            raise ConfigError(f"Schedules have no setting '{key}'.{nearest(key, known)} Use {', '.join(known)}.")
    shape, of = SCHEDULES[name], ScheduleSettings(steps, **settings)

    def factor(step: float) -> float:
        rises = name in _RISING and step < of.rise
        return (step + 1) / (of.rise + 1) if rises else shape(max(0, step - of.hold), of)

    def with_floor(rate: float) -> Callable[[float], float]:
        least = min(1.0, of.floor / rate) if of.floor > 0 else 0.0
        last = min(1.0, of.end / rate) if of.end > 0 and name == "cosine" else 0.0
        return lambda step: max(last + (1 - last) * factor(step), least)

    rates = [group.get("initial_lr", group["lr"]) for group in optimizer.param_groups]
    return Schedule(optimizer, [with_floor(rate) for rate in rates], steps)
