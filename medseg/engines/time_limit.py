"""A training that lasts a given time: the learning rate, the validations and the end follow the clock."""

from __future__ import annotations

import logging
import sys
from collections import deque
from collections.abc import Sequence
from typing import Any

from ignite.engine import Events
from monai.handlers import LrScheduleHandler, ValidationHandler

from medseg.engines.ranks import agree
from medseg.engines.validation_cost import validation_seconds
from medseg.errors import ConfigError
from medseg.optimizers import Schedule

__all__ = ["CLOCKS", "TimeLimit"]

logger = logging.getLogger("medseg")

CLOCKS = ("wall", "cpu")
# Shares of the time:
_VALIDATION = 0.12  # all validations before the last one together
_MOST = 0.5  # that is kept for the last validation; one that takes longer ends late
_MEASURING = 0.05  # to find out what a validation takes
_APART = 0.05  # between two validations at least


class TimeLimit:
    """Ends a training after ``minutes``, its last validation included; ``None`` sets no limit.

    ``clock``: ``wall``, or ``cpu``, the CPU time of each process, which others on the machine do not change.
    ``validations``: number of validations, at equal shares of the time; ``None`` lets their cost decide, as follows.

    However fast the machine is, and however that changes meanwhile, the learning-rate schedule goes through its whole
    shape: its place is the share of the time that has passed. Validations take place at the ends of epochs, as many as
    their share of the time allows; the last epoch is cut where the time for the last validation begins. A validation
    always ends the training, even if late (none with ``validations`` 0). The config's numbers of epochs and of epochs
    between validations are no bounds then; what is given in epochs, such as when the selection of weights begins, means
    that share of them.

    The trainer asks it for the handlers (``driven``), so that configs are the same with and without a limit.

    Attributes:
        share: share of the time for training that has passed, from 0 to 1; all ranks have the same.
        epochs: the config's number of epochs.
        ending: the validation of this epoch is the last one.
    """

    def __init__(
        self, minutes: float | None, checkpoint: Any, clock: str = "wall", validations: int | None = None
    ) -> None:
        if clock not in CLOCKS:
            raise ConfigError(f"clock '{clock}' is unknown; use {' or '.join(CLOCKS)}.")
        self.minutes = minutes
        self.checkpoint = checkpoint
        self.clock = clock
        self.validations = validations
        self.share = 0.0
        self.epochs = 0
        self.ending = False
        self.schedules: list[Schedule] = []
        self._cost = 0.0  # seconds of a validation
        self._spent = 0.0  # seconds of all validations so far
        self._last_validation = 0.0  # the elapsed seconds at its end
        self._last_step = 0.0  # the elapsed seconds at its end
        self._steps = deque([0.0], maxlen=3)  # seconds of the last ones; the smallest tells what another takes

    def driven(self, handlers: Sequence[Any]) -> list[Any]:
        """A trainer's handlers with those in it that the clock drives; without a limit, as they are."""
        if self.minutes is None:
            return list(handlers)
        found: list[Any] = []
        for handler in handlers:
            if isinstance(handler, LrScheduleHandler) and isinstance(handler.lr_scheduler, Schedule):
                self.schedules.append(handler.lr_scheduler)
            else:
                found.append(_Validation(self, handler) if isinstance(handler, ValidationHandler) else handler)
        return found

    def attach(self, engine: Any) -> None:
        if self.minutes is None:
            return
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._after_step)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._after_epoch)

    @property
    def seconds_left(self) -> float:
        """Of the whole time."""
        return float(max(0.0, 60 * (self.minutes or 0.0) - self.elapsed))

    @property
    def elapsed(self) -> float:
        """Seconds of the training so far, by the clock."""
        checkpoint = self.checkpoint
        return float(checkpoint.cpu_elapsed_seconds if self.clock == "cpu" else checkpoint.elapsed_seconds)

    # ------------------------------------------------------------------ life of a run
    def _start(self, engine: Any) -> None:
        self.epochs, engine.state.max_epochs = engine.state.max_epochs, sys.maxsize
        if not self.schedules and self.checkpoint.lr_scheduler is not None:
            kind = type(self.checkpoint.lr_scheduler).__name__
            logger.warning("the learning rate follows the steps of %s, not the time; use make_schedule", kind)
        state, validations = engine.state, self.checkpoint.validations
        validated = not validations or validations[-1][1] == state.iteration
        if state.iteration > 0 and self.seconds_left <= 0 and validated:
            self.share = 1.0
            engine.terminate()  # the run was over
            return
        if self.checkpoint.evaluator is not None and self.validations != 0:
            seconds = validation_seconds(self.checkpoint.evaluator, _MEASURING * self.seconds_left)
            self._cost = self._agreed(seconds)
            if self._cost > _MOST * self.seconds_left:
                logger.warning("the last validation takes about %.0f s, so the training may end late", self._cost)
        self._last_step = self.elapsed

    def _after_step(self, engine: Any) -> None:
        if not engine.steps_now():
            return
        budget = 60 * (self.minutes or 0.0)
        until = max(1e-9, budget - min(self._cost, _MOST * budget))
        elapsed = self.elapsed
        self._steps.append(elapsed - self._last_step)
        self._last_step = elapsed
        share = (
            1.0 if elapsed + min(self._steps) / 2 >= until else elapsed / until
        )  # the next step would end nearer to it
        self.share = max(self.share, self._agreed(share))
        for schedule in self.schedules:
            schedule.move_to(self.share)
        if self.share >= 1:
            self.ending = True
        cut = self.ending or (bool(self.validations) and self._is_next())
        if cut and engine.state.iteration % engine.state.epoch_length:
            engine.terminate_epoch()  # which still validates, saves and logs it

    def _after_epoch(self, engine: Any) -> None:
        self._last_step = self.elapsed
        if self.ending:
            logger.info("the time is over after %d iterations", engine.state.iteration)
            engine.terminate()

    def _agreed(self, number: float) -> float:
        """The largest of all ranks, whose clocks differ: each must do the same."""
        return agree(round(1e6 * number)) / 1e6

    # ------------------------------------------------------------------ validations
    def is_due(self) -> bool:
        """Whether to validate at the end of this epoch."""
        if self.validations is not None:
            return self._is_next()
        elapsed, budget = self.elapsed, 60 * (self.minutes or 0.0)
        due = (
            self._spent + self._cost <= _VALIDATION * elapsed
            and elapsed - self._last_validation >= _APART * budget
            and elapsed + 2 * self._cost < budget
        )
        return self.ending or bool(agree(int(due)))

    def _is_next(self) -> bool:
        """Whether the share of the time at which the next of ``validations`` takes place has passed; on all ranks."""
        done = len(self.checkpoint.validations)
        return done < (self.validations or 0) and self.share * (self.validations or 0) >= done + 1

    def validated(self, seconds: float) -> None:
        """Take note of what a validation took."""
        self._cost = self._agreed(seconds)
        self._spent += self._cost
        self._last_validation = self.elapsed


class _Validation:
    """Takes the place of MONAI's ``ValidationHandler``: validates when the time limit says so."""

    def __init__(self, limit: TimeLimit, handler: ValidationHandler) -> None:
        self.limit = limit
        self.validator = handler.validator

    def attach(self, engine: Any) -> None:
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._validate)

    def _validate(self, engine: Any) -> None:
        if self.validator is not None and self.limit.is_due():
            before = self.limit.elapsed
            self.validator.run(engine.state.epoch)
            self.limit.validated(self.limit.elapsed - before)
