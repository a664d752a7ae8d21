"""Learning-rate schedules by name: functions of progress, stepped once per iteration or epoch or moved by the time."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence, Sized
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from medseg.errors import ConfigError

__all__ = ["Schedule", "iterations", "make_schedule"]

_PUBLISHED_E = 2.718  # to three digits in the published schedule


class Schedule(LambdaLR):
    """A schedule of known length.

    Its state dict holds the number of steps done but no shape: a run that is made longer follows the longer shape.

    Args:
        optimizer: whose learning rates are scaled.
        factors: of the learning rate of each parameter group, by the number of steps done.
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


def make_schedule(
    optimizer: Optimizer,
    name: str = "cosine",
    *,
    steps: int,
    warmup: float = 0.05,
    power: float = 0.9,
    gamma: float = 0.1,
    every: int | None = None,
    hold: int = 0,
    floor: float = 0.0,
    end: float = 0.0,
) -> Schedule:
    """A schedule over ``steps`` calls of ``step()``.

    Args:
        optimizer: whose learning rates are scaled.
        name: ``cosine`` (to ``end``), ``poly`` ((1 - t) ** power, as nnU-Net), ``step`` (times ``gamma`` at each third,
            or ``every`` so many steps), ``exp_poly`` (a rise by exp(10 (t - 1)) in the warm-up, then ``poly`` over all
            steps, as Hermes per epoch), ``constant``.
        steps: number of steps of the whole training.
        warmup: share of the steps with a rise: linear from 0 (``cosine``, ``poly``) or exponential (``exp_poly``).
        power: exponent of ``poly`` and ``exp_poly``.
        gamma: factor of ``step``.
        every: length of a stage of ``step``.
        hold: the shape starts so many steps late; it still ends where it would.
        floor: least learning rate; the shape is cut there.
        end: learning rate that ``cosine`` goes down to, its whole shape between this and the first.

    Raises:
        ConfigError: unknown name.
    """
    rise = round(warmup * steps)

    def cosine(step: float) -> float:
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - rise) / max(1, steps - rise))))

    def poly(step: float) -> float:
        return max(0.0, 1 - (step - rise) / max(1, steps - rise)) ** power

    def exp_poly(step: float) -> float:
        if rise and step <= rise:
            return _PUBLISHED_E ** (10 * (step / rise - 1))
        return max(0.0, 1 - step / steps) ** power

    def staged(step: float) -> float:
        return gamma ** (3 * step // steps if every is None else step // every)

    shapes = {"cosine": cosine, "poly": poly, "exp_poly": exp_poly, "step": staged, "constant": lambda step: 1.0}
    if name not in shapes:
        raise ConfigError(f"Schedule '{name}' is unknown; use cosine, poly, exp_poly, step or constant.")
    shape = shapes[name]
    rises = name in ("cosine", "poly")

    def factor(step: float) -> float:
        return (step + 1) / (rise + 1) if rises and step < rise else shape(max(0, step - hold))

    def with_floor(rate: float) -> Callable[[float], float]:
        least = min(1.0, floor / rate) if floor > 0 else 0.0
        last = min(1.0, end / rate) if end > 0 and name == "cosine" else 0.0
        return lambda step: max(last + (1 - last) * factor(step), least)

    rates = [group.get("initial_lr", group["lr"]) for group in optimizer.param_groups]
    return Schedule(optimizer, [with_floor(rate) for rate in rates], steps)
