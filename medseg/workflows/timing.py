"""Fit the number of epochs, and with it the learning-rate schedule, to a time budget by measuring a few steps."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import torch

from medseg.bundle import dump_yaml
from medseg.engines.ranks import unwrap
from medseg.workflows.compose import merged_config
from medseg.workflows.run_folder import write_facts

__all__ = ["fit_epochs"]

logger = logging.getLogger("medseg")

_VALIDATION_SHARE = 0.12  # of the time
_MARGIN = 0.92  # the rest is for checkpoints and a machine that slows down


def fit_epochs(workflow: Any, run: Path, seconds: float) -> int:
    """Measure training steps and one validation case, then write ``epochs`` and ``val_interval`` into the run's config.

    The network's weights are put back afterwards; no random stream is touched that training uses.
    """
    began = time.monotonic()
    parser = workflow.parser
    trainer = parser.get_parsed_content("train::trainer")
    evaluator = parser.get_parsed_content("validate::evaluator")
    network = unwrap(trainer.network)  # one process measures, without the others
    weights = {key: value.clone() for key, value in network.state_dict().items()}
    step = _step_seconds(trainer)
    cases = len(evaluator.data_loader.dataset) if evaluator.data_loader is not None else 0
    validation = cases * _case_seconds(evaluator) if cases else 0.0
    network.load_state_dict(weights)
    trainer.optimizer.zero_grad(set_to_none=True)

    left = max(1.0, (seconds - (time.monotonic() - began)) * _MARGIN)
    epoch = step * trainer.state.epoch_length
    rounds = max(1, int(_VALIDATION_SHARE * left / validation)) if validation else 1
    epochs = max(1, int((left - min(rounds, 20) * validation) / epoch))
    rounds = min(rounds, 20, epochs)
    interval = max(1, epochs // rounds)
    epochs -= epochs % interval  # the last epoch is validated

    path = run / "configs" / "train.yaml"
    config = merged_config([path]) | {"epochs": epochs, "val_interval": interval}
    dump_yaml(config, path, f"epochs and val_interval fitted to {seconds / 60:.3g} minutes.")
    write_facts(run, fitted_epochs=epochs, seconds_per_step=round(step, 4), seconds_per_validation=round(validation, 2))
    logger.info(
        "fitted to the time: %d epochs of %d steps (%.2f s each), validation every %d epochs (%.1f s)",
        epochs,
        trainer.state.epoch_length,
        step,
        interval,
        validation,
    )
    return epochs


def _step_seconds(trainer: Any, warm: int = 2, least: float = 6.0) -> float:
    """Median seconds of forward, loss and backward over at least 5 batches and ``least`` seconds."""
    times: list[float] = []
    network = unwrap(trainer.network).train()
    while len(times) < 5 + warm or sum(times) < least:
        before = time.perf_counter()
        for batch in trainer.data_loader:
            inputs, targets, args, kwargs = _conditions(trainer.prepare_batch(batch, trainer.state.device, False))
            trainer.loss_function(trainer.inferer(inputs, network, *args, **kwargs), targets).mean().backward()
            if trainer.state.device.type == "cuda":
                torch.cuda.synchronize()
            times.append(time.perf_counter() - before)
            if len(times) >= 5 + warm and sum(times) >= least:
                break
            before = time.perf_counter()
    return sorted(times[warm:])[len(times[warm:]) // 2]


def _case_seconds(evaluator: Any) -> float:
    evaluator.network.eval()
    best = float("inf")
    for number, batch in enumerate(evaluator.data_loader):
        before = time.perf_counter()
        with torch.no_grad():
            inputs, _, args, kwargs = _conditions(evaluator.prepare_batch(batch, evaluator.state.device, False))
            evaluator.inferer(inputs, evaluator.network, *args, **kwargs)
        best = min(best, time.perf_counter() - before)
        if number == 2:
            break
    return best


def _conditions(prepared: Any) -> tuple[Any, Any, tuple[Any, ...], dict[str, Any]]:
    """Image, target, and what else the network is called with, as MONAI's engines take a prepared batch."""
    return prepared if len(prepared) == 4 else (*prepared, (), {})
