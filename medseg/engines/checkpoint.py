"""Crash-safe checkpoints, exact resume, and a clean way out on SIGINT and SIGTERM.

MONAI's ``CheckpointSaver`` writes in place and knows neither the averaged weights nor the evaluator's best score;
this handler keeps ``last.pt``, ``previous.pt`` and ``best.pt`` in the run's folder, and ``best_<metric>.pt`` for
further metrics. No random state is saved: every
random number is a function of the seed, the epoch, the iteration and the case (``RandomStreams``, ``SeededDataset``).
"""

from __future__ import annotations

import logging
import math
import operator
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Events
from monai.data import SmartCacheDataset
from monai.handlers import SmartCacheHandler
from torch import nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

from medseg.data.randomness import seed_everything
from medseg.engines.effort import Effort, cpu_seconds
from medseg.engines.ema import evaluated_network
from medseg.engines.energy import EnergyMeter
from medseg.engines.ranks import agree, barrier, unwrap
from medseg.errors import ConfigError, DataError, ModelError, nearest
from medseg.storage import as_formed
from medseg.weights.files import check_match, load_file, refuse_non_finite, save_file

__all__ = ["Checkpoint", "RandomStreams", "unselected_epochs"]

logger = logging.getLogger("medseg")

_STATE: dict[str, Any] = {
    **dict.fromkeys(("network", "optimizer", "scaler"), dict),
    **dict.fromkeys(("lr_scheduler", "average", "best_values?"), (dict, None)),
    **dict.fromkeys(("iteration", "epoch_length", "best_metric_epoch", "threads"), int),
    "best_metric": float,
    "losses?": [float],  # of the epoch so far; states of earlier versions have their sum alone
    "loss_sum?": float,
    "elapsed_seconds": ([float], float),  # wall and CPU; the first alone in states of earlier versions
    "energy_joules?": (float, None),
    "validations?": list,
    "patch_by_patch?": bool,
}
_BETTER: dict[str, Callable[[float, float], bool]] = {"max": operator.gt, "min": operator.lt}


class RandomStreams:
    """Seeds the network's draws (dropout) per iteration, and restarts the data set with each epoch."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._first = True

    def attach(self, engine: Any) -> None:
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.EPOCH_STARTED, self._epoch)
        engine.add_event_handler(Events.ITERATION_STARTED, self._iteration)
        rolling = getattr(engine.data_loader.dataset, "dataset", None)
        if isinstance(rolling, SmartCacheDataset):
            SmartCacheHandler(rolling).attach(engine)

    def _start(self, engine: Any) -> None:
        self._first = True

    def _epoch(self, engine: Any) -> None:
        epoch = getattr(engine.data_loader.dataset, "epoch", None)
        if epoch is not None:
            epoch.fill_(engine.state.epoch)
        # With epochs shorter or longer than the loader, ignite would go on with the last epoch's iterator; in a run's
        # first epoch the iterator is fresh, and setting it would lose the place of a resumed run.
        if not self._first and engine.state.epoch_length != len(engine.data_loader):
            engine.set_data(engine.data_loader)
        self._first = False

    def _iteration(self, engine: Any) -> None:
        seed_everything(self.seed, engine.state.rank, engine.state.iteration)


def unselected_epochs(epochs: int, portion: float) -> int:
    """``select_after`` of ``Checkpoint`` where the model is chosen after a ``portion``, 0 to 1, of the epochs."""
    return int(epochs * portion) + 1


class Checkpoint:
    """Saves at the end of each epoch and on signals; loads the newest state that is whole when training starts.

    Args:
        directory: the run's ``checkpoints`` folder.
        model_path: where the best weights go as a plain state dict, the bundle's ``models/model.pt``.
        network, optimizer, lr_scheduler, average: what is trained.
        evaluator: the validation engine; its best score decides ``best.pt``. Without a score the last weights are the
            best.
        key_metrics: further metrics of the evaluator -> ``max`` or ``min``; the weights with the best value of each
            are kept beside those of the key metric, for a choice after the training.
        select_after: validations up to this epoch are no candidates; until a later one the last weights are the best.
        select: ``best`` by validation, or ``final``: the last weights, whatever their score, so that runs with unequal
            numbers of validations can be compared.

    Attributes:
        best_values: metric -> its best value so far.
        validations: (epoch, iteration) of each one so far.

    Raises:
        ConfigError: a metric's direction is neither ``max`` nor ``min``, or an unknown ``select``.

    A state holds tensors and plain numbers only, so that ``torch.load(weights_only=True)`` reads it. Put this handler
    first in the list: others that look at the state when a run starts then see the one that was loaded.
    """

    def __init__(
        self,
        directory: str | Path,
        model_path: str | Path,
        network: nn.Module,
        optimizer: Optimizer,
        lr_scheduler: Any = None,
        average: AveragedModel | None = None,
        evaluator: Any = None,
        key_metrics: Mapping[str, str] | None = None,
        select_after: int = 0,
        select: str = "best",
    ) -> None:
        if select not in ("best", "final"):
            raise ConfigError(f"checkpoint::select '{select}' is not a valid choice; use 'best' or 'final'.")
        for name, direction in (key_metrics or {}).items():
            if direction not in _BETTER:
                raise ConfigError(f"key_metrics: '{direction}' of '{name}' is unknown; use 'max' or 'min'.")
        self.directory = Path(directory)
        self.model_path = Path(model_path)
        self.network = network
        self.optimizer = optimizer
        self.lr_scheduler = lr_scheduler
        self.average = average
        self.evaluator = evaluator
        self.key_metrics = dict(key_metrics or {})
        self.select_after = select_after
        self.select = select
        self.best_values: dict[str, float] = {}
        self.validations: list[tuple[int, int]] = []
        self._signal = 0
        self._process = os.getpid()
        self._last_is_whole = True
        self._previous_handlers: dict[int, Any] = {}
        self._elapsed = 0.0
        self._cpu = 0.0
        self._started = time.monotonic()
        self._cpu_started = cpu_seconds()
        self._joules = 0.0
        self._energy = EnergyMeter()

    @property
    def elapsed_seconds(self) -> float:
        """Training time so far, earlier parts of a resumed run included."""
        return self._elapsed + time.monotonic() - self._started

    @property
    def cpu_elapsed_seconds(self) -> float:
        """CPU time of this process and its ended workers, likewise."""
        return self._cpu + cpu_seconds() - self._cpu_started

    def effort(self, engine: Any) -> Effort:
        """What the training took, earlier parts of a resumed run included; of this process alone."""
        return Effort(
            iterations=int(engine.state.iteration),
            training_seconds=round(self.elapsed_seconds, 1),
            cpu_seconds=round(self.cpu_elapsed_seconds, 1),
            validations=len(self.validations),
            schedule_completed=engine.share_done >= 1,
            energy_joules=self._energy_joules(),
        )

    def _energy_joules(self) -> float | None:
        joules = self._energy.read()
        return None if joules is None else round(self._joules + joules, 1)

    def attach(self, engine: Any) -> None:
        engine.add_event_handler(Events.STARTED, self._start)

    # ------------------------------------------------------------------ life of a run
    def _start(self, engine: Any) -> None:
        self._started, self._cpu_started, self._energy = time.monotonic(), cpu_seconds(), EnergyMeter()
        self._resume(engine)
        if self.evaluator is not None:
            self.evaluator.add_event_handler(Events.COMPLETED, self._validated, engine)
        # Registered here and not in attach(): saving must come after everything that other handlers do at these events.
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._epoch_completed)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._iteration_completed)
        engine.add_event_handler(Events.COMPLETED, self._restore_signals)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self._failed)
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous_handlers[number] = signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: Any) -> None:
        if os.getpid() != self._process:
            return  # a loader's worker, forked with this handler; the training process decides
        if self._signal:  # the second one leaves at once; the last epoch's state stands
            raise SystemExit(128 + number)
        self._signal = number
        logger.warning("signal %d: stopping after this step and saving the state", number)

    def _restore_signals(self, engine: Any) -> None:
        for number, handler in self._previous_handlers.items():
            signal.signal(number, handler)
        self._previous_handlers.clear()

    def _failed(self, engine: Any, error: BaseException) -> None:
        self._restore_signals(engine)
        if self._signal and not isinstance(error, SystemExit):
            # What else fails after a signal, such as a peer that left or a worker that was killed, is no other error.
            logger.warning("stopped by signal %d; the last saved state stands", self._signal)
            raise SystemExit(128 + self._signal) from error
        raise error  # ignite swallows what its handlers do not raise again

    def _validated(self, evaluator: Any, engine: Any) -> None:
        if evaluator.state.metrics:
            self.validations.append((int(engine.state.epoch), int(engine.state.iteration)))

    def _epoch_completed(self, engine: Any) -> None:
        limit = getattr(engine, "limit", None)  # trainers of MONAI's have none
        place = engine.state.epoch if limit is None else limit.share * limit.epochs
        if self.evaluator is not None and place <= self.select_after:
            self.evaluator.state.best_metric_epoch = -1  # the next validation is the first one again
        if engine.state.rank == 0:
            if self._is_best(engine):
                self._save_best(engine, "best", self._best_metric())
                save_file(self._weights(), self.model_path)
            for name, value in self._improved(engine).items():
                self._save_best(engine, f"best_{name}", value)
            self.save(engine)
        barrier()
        if self._signalled():
            self._leave(engine)

    def _iteration_completed(self, engine: Any) -> None:
        # The end of an epoch saves after the validation; between accumulated steps there is no state to save.
        last = engine.state.iteration % engine.state.epoch_length == 0
        if last or not engine.steps_now() or not self._signalled():
            return
        if engine.state.rank == 0:
            self.save(engine)
        barrier()
        self._leave(engine)

    def _signalled(self) -> bool:
        self._signal = agree(self._signal)
        return self._signal != 0

    def _leave(self, engine: Any) -> None:
        self._restore_signals(engine)
        logger.warning(
            "stopped in epoch %d, iteration %d; the state is saved, rerun the same command to resume",
            engine.state.epoch,
            engine.state.iteration,
        )
        raise SystemExit(128 + self._signal)

    # ------------------------------------------------------------------ saving
    def save(self, engine: Any) -> None:
        """Write ``last.pt``; the one before it stays as ``previous.pt``, unless it was damaged."""
        state: dict[str, Any] = {
            "network": unwrap(self.network).state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "lr_scheduler": self.lr_scheduler.state_dict() if self.lr_scheduler is not None else None,
            "average": self.average.state_dict() if self.average is not None else None,
            "scaler": engine.grad_scaler.state_dict(),
            "iteration": int(engine.state.iteration),
            "epoch_length": int(engine.state.epoch_length),
            "losses": list(engine.losses),
            "best_metric": self._best_metric(),
            "best_metric_epoch": int(self.evaluator.state.best_metric_epoch) if self.evaluator is not None else -1,
            "best_values": dict(self.best_values),
            "validations": list(self.validations),
            "elapsed_seconds": [self.elapsed_seconds, self.cpu_elapsed_seconds],  # wall, CPU
            "energy_joules": self._energy_joules(),
            "threads": torch.get_num_threads(),
            "patch_by_patch": engine.patch_by_patch,
        }
        last = self.directory / "last.pt"
        fresh = self.directory / "last.pt.new"
        save_file(state, fresh)
        if last.exists() and self._last_is_whole:
            os.replace(last, self.directory / "previous.pt")
        os.replace(fresh, last)
        self._last_is_whole = True

    def _is_best(self, engine: Any) -> bool:
        nothing = self.evaluator is None or self.evaluator.state.best_metric_epoch < 0
        if self.select == "final" or nothing or math.isnan(self._best_metric()):
            return True  # nothing to choose by: the last weights count
        return bool(self.evaluator.state.best_metric_epoch == engine.state.epoch)

    def _best_metric(self) -> float:
        return float(self.evaluator.state.best_metric) if self.evaluator is not None else -1.0

    def _improved(self, engine: Any) -> dict[str, float]:
        """The further metrics whose value of this epoch's validation is their best one.

        Raises:
            ConfigError: the evaluator has no such metric.
        """
        if not self.key_metrics or self.evaluator is None or self.evaluator.state.epoch != engine.state.epoch:
            return {}
        metrics = self.evaluator.state.metrics
        for name in self.key_metrics if metrics else ():
            if name not in metrics:
                raise ConfigError(f"key_metrics: the evaluator has no metric '{name}'.{nearest(name, metrics)}")
        values = {name: float(metrics[name]) for name in self.key_metrics if metrics}
        better = {
            name: value
            for name, value in values.items()
            if not math.isnan(value)
            and (name not in self.best_values or _BETTER[self.key_metrics[name]](value, self.best_values[name]))
        }
        self.best_values |= better
        return better

    def _weights(self) -> dict[str, torch.Tensor]:
        return evaluated_network(self.network, self.average).state_dict()

    def _save_best(self, engine: Any, name: str, value: float) -> None:
        content = {"network": self._weights(), "epoch": int(engine.state.epoch), "metric": value}
        save_file(content, self.directory / f"{name}.pt")

    # ------------------------------------------------------------------ loading
    def _resume(self, engine: Any) -> None:
        state = self._newest()
        if state is None:
            return
        if state["epoch_length"] != engine.state.epoch_length:
            raise ModelError(
                f"{self.directory} was written with {state['epoch_length']} iterations per epoch, this run has "
                f"{engine.state.epoch_length}; use another --output folder."
            )
        check_match(unwrap(self.network), state["network"], f"The state in {self.directory}")
        unwrap(self.network).load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.lr_scheduler is not None and state["lr_scheduler"] is not None:
            self.lr_scheduler.load_state_dict(state["lr_scheduler"])
        if self.average is not None and state["average"] is not None:
            self.average.load_state_dict(state["average"])
        if state["scaler"]:  # empty where the precision needs no scaling
            engine.grad_scaler.load_state_dict(state["scaler"])
        if self.evaluator is not None:
            self.evaluator.state.best_metric = state["best_metric"]
            self.evaluator.state.best_metric_epoch = state["best_metric_epoch"]
        self.best_values = dict(state.get("best_values", {}))  # states of earlier versions lack it
        iteration = state["iteration"]
        engine.state.iteration = iteration
        engine.state.epoch = iteration // engine.state.epoch_length
        engine.losses = list(state.get("losses", [state.get("loss_sum", 0.0)]))
        self.validations = [tuple(place) for place in state.get("validations", [])]
        elapsed = state["elapsed_seconds"]  # of earlier versions without the CPU's
        self._elapsed, self._cpu = elapsed if isinstance(elapsed, list) else (elapsed, 0.0)
        self._joules = state.get("energy_joules") or 0.0
        if state.get("patch_by_patch"):
            engine.patch_by_patch = True
        done = iteration % engine.state.epoch_length % len(engine.data_loader)
        engine.data_loader.sampler.skip = done * engine.data_loader.batch_size
        if state["threads"] != torch.get_num_threads():
            logger.warning(
                "the run was started with %d torch threads and resumes with %d: last bits may differ",
                state["threads"],
                torch.get_num_threads(),
            )
        logger.info("resumed at epoch %d, iteration %d", engine.state.epoch, iteration)

    def _newest(self) -> dict[str, Any] | None:
        problems = []
        for name in ("last.pt", "previous.pt"):
            path = self.directory / name
            if not path.exists():
                continue
            try:
                state: dict[str, Any] = load_file(path)
                _check_state(state, path)
                for part in ("network", "average"):
                    refuse_non_finite(state.get(part) or {}, f"{path}, {part}")
            except ModelError as error:
                problems.append(str(error))
                self._last_is_whole = False
                continue
            for problem in problems:
                logger.warning("%s Resuming from %s, iteration %d.", problem, name, state["iteration"])
            return state
        if problems:
            raise ModelError(f"{problems[0]} No other state is left; remove {self.directory} to start from scratch.")
        return None


def _check_state(state: Any, path: Path) -> None:
    """Refuse what is not the state of a training.

    Raises:
        ModelError: naming the file.
    """
    try:
        as_formed(state, _STATE, f"{path} is damaged: it is not a training state", "copy or train it again")
    except DataError as error:
        raise ModelError(str(error)) from error
