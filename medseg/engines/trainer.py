"""MONAI's SupervisedTrainer with what it lacks: bf16 and fp16 on any device, gradient clipping, deep supervision,
non-finite losses.
"""

from __future__ import annotations

import logging
import math
from typing import Any

import torch
from monai.engines import SupervisedTrainer
from monai.engines.utils import IterationEvents
from monai.utils.enums import CommonKeys as Keys

from medseg.errors import ConfigError, ModelError

__all__ = ["SegmentationTrainer"]

logger = logging.getLogger("medseg")

_DTYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


class SegmentationTrainer(SupervisedTrainer):
    """Trains on batches ``{"image": (B, C, *spatial), "label": (B, 1, *spatial)}``.

    A subclass because MONAI's mixed precision is CUDA only, scales gradients for bf16 as well, and leaves no place
    between un-scaling and the optimiser's step (MONAI 1.6, specs of its engines).

    Args:
        precision: ``fp32``, ``bf16`` (no scaling) or ``fp16`` (with a gradient scaler on CUDA).
        clip_norm: largest norm of all gradients together; ``None`` leaves them.
        compile_network: compile the network in place (state-dict keys stay as they are).
        max_non_finite: stop after so many steps in a row with a loss that is not finite; such steps change nothing.

    Raises:
        ModelError: the loss was not finite ``max_non_finite`` times in a row.
    """

    def __init__(
        self,
        *args: Any,
        precision: str = "fp32",
        clip_norm: float | None = None,
        compile_network: bool = False,
        max_non_finite: int = 10,
        **kwargs: Any,
    ) -> None:
        if precision not in _DTYPES:
            raise ConfigError(f"precision '{precision}' is unknown; use fp32, bf16 or fp16.")
        super().__init__(*args, **kwargs)
        self.dtype = _DTYPES[precision]
        self.clip_norm = clip_norm
        self.max_non_finite = max_non_finite
        self.non_finite = 0
        self.grad_norm = math.nan
        device_type = self.state.device.type
        self.grad_scaler = torch.amp.GradScaler(device_type, enabled=precision == "fp16" and device_type == "cuda")
        if compile_network:
            self.network.compile(dynamic=False)

    def steps_now(self) -> bool:
        """Whether the current iteration ends with an optimiser step (gradient accumulation)."""
        position = (self.state.iteration - 1) % self.state.epoch_length
        return (position + 1) % self.accumulation_steps == 0 or position + 1 == self.state.epoch_length

    def _iteration(self, engine: Any, batchdata: dict[str, torch.Tensor]) -> dict:
        batch = self.prepare_batch(batchdata, self.state.device, self.non_blocking, **self.to_kwargs)
        inputs, targets, args, kwargs = batch if len(batch) == 4 else (*batch, (), {})
        self.state.output = {Keys.IMAGE: inputs, Keys.LABEL: targets}
        self.network.train()
        if (self.state.iteration - 1) % self.state.epoch_length % self.accumulation_steps == 0:
            self.optimizer.zero_grad(set_to_none=True)

        with torch.autocast(self.state.device.type, dtype=self.dtype, enabled=self.dtype is not None):
            predictions = self.inferer(inputs, self.network, *args, **kwargs)
        self.fire_event(IterationEvents.FORWARD_COMPLETED)
        # Losses sum over whole volumes: float32 whatever the network ran in.
        heads = [p.float() for p in predictions] if isinstance(predictions, (list, tuple)) else predictions.float()
        loss = self.loss_function(heads, targets).mean()
        self.state.output |= {Keys.PRED: heads[0] if isinstance(heads, list) else heads, Keys.LOSS: loss}
        self.fire_event(IterationEvents.LOSS_COMPLETED)

        self.grad_scaler.scale(loss / self.accumulation_steps).backward()
        self.fire_event(IterationEvents.BACKWARD_COMPLETED)
        if self.steps_now():
            self._step(loss, batchdata)
        self.fire_event(IterationEvents.MODEL_COMPLETED)
        return self.state.output

    def _step(self, loss: torch.Tensor, batchdata: dict[str, Any]) -> None:
        self.grad_scaler.unscale_(self.optimizer)
        parameters = [p for group in self.optimizer.param_groups for p in group["params"] if p.grad is not None]
        limit = math.inf if self.clip_norm is None else self.clip_norm
        norm = torch.nn.utils.clip_grad_norm_(parameters, limit)
        finite = bool(torch.isfinite(loss)) and (self.grad_scaler.is_enabled() or bool(torch.isfinite(norm)))
        if finite:
            self.grad_norm = float(norm)
            self.grad_scaler.step(self.optimizer)
        self.grad_scaler.update()
        self.non_finite = 0 if finite else self.non_finite + 1
        if not finite:
            logger.warning("iteration %d: loss or gradient not finite, step left out", self.state.iteration)
        if self.non_finite >= self.max_non_finite:
            raise ModelError(
                f"The loss was not finite in {self.non_finite} steps in a row (cases {_cases(batchdata)}, last "
                f"finite gradient norm "
                f"{self.grad_norm:.3g}); the last good checkpoint is kept. Lower the learning rate or check "
                f"these cases."
            )


def _cases(batchdata: dict[str, Any]) -> str:
    ids = batchdata.get("case_id", ["unknown"])
    return ", ".join(dict.fromkeys(map(str, ids)))
