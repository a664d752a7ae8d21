"""What a run leaves to read: tables of its curves, curves and images of a tracker, log lines, and a progress bar."""

from __future__ import annotations

import logging
import sys
import time
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Events
from tqdm import tqdm

from medseg.data.run_settings import settings_of
from medseg.engines.epoch_table import EPOCHS, LABELS, LOSSES, EpochTable
from medseg.engines.log_file import log_to
from medseg.engines.overlay_image import overlay_image
from medseg.engines.scores import LABEL_DICE
from medseg.engines.trackers import Tracker, check_tracker, make_tracker
from medseg.storage import read_yaml

__all__ = ["Progress", "RunLog", "span"]

logger = logging.getLogger("medseg")

_WARM_UP, _TIMED = 3, 5  # iterations before the expected time is measured, and those that tell it


class RunLog:
    """A row per epoch in ``metrics.csv``, one per iteration in ``losses.csv`` and one per validation and label in
    ``validation_dice.csv``; epochs and labels also as curves of a tracker, which gets the settings and an overlay image
    per validation too.

    Rows of epochs that are run again after a resume are replaced, in the files and in TensorBoard.

    Args:
        directory: the run's folder.
        optimizer: whose learning rate is told.
        evaluator: engine of the validations.
        tracker: name of ``medseg.engines.trackers``.

    Raises:
        ConfigError: the tracker cannot work here.
    """

    def __init__(
        self,
        directory: str | Path,
        optimizer: torch.optim.Optimizer,
        evaluator: Any = None,
        tracker: str = "tensorboard",
    ) -> None:
        self.directory = Path(directory)
        self.optimizer = optimizer
        self.evaluator = evaluator
        check_tracker(tracker)
        self.tracker = tracker
        self.epochs = EpochTable(self.directory / "metrics.csv", EPOCHS)
        self.losses = EpochTable(self.directory / "losses.csv", LOSSES)
        self.labels = EpochTable(self.directory / "validation_dice.csv", LABELS)
        self.writer: Tracker | None = None
        self._epoch_start = 0.0
        self._run_start = 0.0
        self._first_epoch = 0
        self._iterations, self._warm = 0, 0.0

    def attach(self, engine: Any) -> None:
        if engine.state.rank != 0:
            return
        engine.add_event_handler(Events.EPOCH_STARTED, self._epoch_started)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._epoch_completed)
        engine.add_event_handler(Events.COMPLETED, self._close)
        if engine.limit is None:
            engine.add_event_handler(Events.ITERATION_COMPLETED, self._tell_time)

    def _open(self, engine: Any) -> None:
        self._run_start, self._first_epoch = time.monotonic(), engine.state.epoch
        self.directory.mkdir(parents=True, exist_ok=True)
        log_to(self.directory)  # where MONAI's own command runs the bundle, nobody else has
        for table in (self.epochs, self.losses, self.labels):
            table.restart(engine.state.epoch)
        self.writer = make_tracker(self.tracker, self.directory, engine.state.epoch)
        config = self.directory / "configs" / "train.yaml"
        if config.is_file():
            told = settings_of(read_yaml(config), {})
            self.writer.settings({f"{one.group}/{one.name}": str(one.value) for one in told if one.value})

    def _epoch_started(self, engine: Any) -> None:
        if self.writer is None:
            self._open(engine)
        self._epoch_start = time.monotonic()

    def _tell_time(self, engine: Any) -> None:
        """Log how long the training will take, from the first iterations that are as fast as the rest."""
        self._iterations += 1
        if self._iterations == _WARM_UP:
            self._warm = time.monotonic()
        elif self._iterations == _WARM_UP + _TIMED:
            step = (time.monotonic() - self._warm) / _TIMED
            left = engine.state.max_epochs * engine.state.epoch_length - engine.state.iteration
            logger.info("about %s: %d iterations of %.2g s, and the validations", span(left * step), left, step)
            engine.remove_event_handler(self._tell_time, Events.ITERATION_COMPLETED)

    def _epoch_completed(self, engine: Any) -> None:
        epoch = engine.state.epoch
        done = (engine.state.iteration - 1) % engine.state.epoch_length + 1  # fewer where the time was up
        validated = self.evaluator is not None and self.evaluator.state.epoch == epoch and self.evaluator.state.metrics
        row = {
            "epoch": epoch,
            "iteration": engine.state.iteration,
            "loss": f"{engine.loss_sum / done:.6f}",
            "learning_rate": f"{self.optimizer.param_groups[0]['lr']:.6g}",
            "mean_dice": f"{self.evaluator.state.metrics['mean_dice']:.6f}" if validated else "",
            "seconds": f"{time.monotonic() - self._epoch_start:.2f}",
        }
        self.epochs.add([row])
        first = engine.state.iteration - done + 1
        if len(engine.losses) == done:  # of an epoch that an earlier version began, only the sum is known
            self.losses.add(
                {"epoch": epoch, "iteration": number, "loss": f"{loss:.6g}"}
                for number, loss in enumerate(engine.losses, first)
            )
        assert self.writer is not None  # opened when the epoch began
        curves = {name: float(row[name]) for name in ("loss", "learning_rate", "mean_dice") if row[name] != ""}
        if validated:
            others = {k: float(v) for k, v in self.evaluator.state.metrics.items() if k not in row}
            curves |= others
            self.labels.add(
                {"epoch": epoch, "label": name.removeprefix(LABEL_DICE), "dice": f"{value:.6f}"}
                for name, value in others.items()
                if name.startswith(LABEL_DICE)
            )
        self.writer.scalars(curves, epoch)
        if validated:
            self._add_image(epoch)
        self.writer.flush()
        left = _left(engine, time.monotonic() - self._run_start, epoch - self._first_epoch + 1)
        score = f"  mean_dice {row['mean_dice'][:6]}" if validated else ""
        logger.info(
            "%s  loss %s%s  %s s  about %s left",
            _title(engine),
            row["loss"][:6],
            score,
            row["seconds"],
            span(left),
        )

    def _add_image(self, epoch: int) -> None:
        output = self.evaluator.state.output
        if isinstance(output, list) and output and (pixels := overlay_image(output[0])) is not None:
            assert self.writer is not None
            self.writer.image("validation/reference and prediction", pixels, epoch)

    def _close(self, engine: Any) -> None:
        if self.writer is not None:
            self.writer.close()
            self.writer = None


class Progress:
    """A tqdm bar over the iterations of an epoch; only where standard error is a terminal."""

    def __init__(self) -> None:
        self.bar: Any = None

    def attach(self, engine: Any) -> None:
        if engine.state.rank == 0 and sys.stderr.isatty():
            engine.add_event_handler(Events.EPOCH_STARTED, self._open)
            engine.add_event_handler(Events.ITERATION_COMPLETED, self._update)
            engine.add_event_handler(Events.EPOCH_COMPLETED, self._close)

    def _open(self, engine: Any) -> None:
        self.bar = tqdm(total=engine.state.epoch_length, desc=_title(engine), leave=False)

    def _update(self, engine: Any) -> None:
        done = (engine.state.iteration - 1) % engine.state.epoch_length + 1
        if self.bar.update():  # it was drawn: ten times a second at most, as reading the loss waits for the device
            self.bar.set_postfix(loss=f"{engine.loss_sum / done:.4f}")

    def _close(self, engine: Any) -> None:
        self.bar.close()


def _title(engine: Any) -> str:
    """The epoch, and how many there will be where it is not the time that tells."""
    return f"epoch {engine.state.epoch}" + (f"/{engine.state.max_epochs}" if engine.limit is None else "")


def _left(engine: Any, seconds: float, epochs: int) -> float:
    """Seconds of training that are left, after ``epochs`` in ``seconds``."""
    if engine.limit is not None:
        return float(engine.limit.seconds_left)
    return float(seconds / epochs * (engine.state.max_epochs - engine.state.epoch))


def span(seconds: float) -> str:
    """A length of time in words: ``45 s``, ``1.5 min``, ``12 min``, ``5.0 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    number, unit = (seconds / 60, "min") if seconds < 90 * 60 else (seconds / 3600, "h")
    return f"{number:.{int(number < 10)}f} {unit}"
