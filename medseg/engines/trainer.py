"""MONAI's SupervisedTrainer with what it lacks: bf16 and fp16 on any device, gradient clipping, deep supervision,
non-finite losses.
"""

from __future__ import annotations

import contextlib
import logging
import math
import sys
from collections.abc import Iterator
from typing import Any, Literal, get_args

import torch
from monai.engines import SupervisedTrainer
from monai.engines.utils import IterationEvents
from monai.inferers import SimpleInferer
from monai.losses import DeepSupervisionLoss
from monai.utils.enums import CommonKeys as Keys

from medseg.data import close_loader
from medseg.engines.patch_by_patch import PatchByPatch, memory_advice, sees_patches_alone
from medseg.engines.ranks import agree, world_size
from medseg.engines.time_limit import TimeLimit
from medseg.errors import ConfigError, ModelError, ResourceError
from medseg.faults import as_ours, lacks_gpu_memory, memory_lacking
from medseg.inferers.window import autocast_dtype
from medseg.networks.checkpointing import recomputable
from medseg.networks.kernels.half_gradients import right_gradients

__all__ = ["SegmentationTrainer"]

logger = logging.getLogger("medseg")

HeadWeights = Literal["halving", "halved"]


class SegmentationTrainer(SupervisedTrainer):
    """Trains on batches ``{"image": (B, C, *spatial), "label": (B, 1, *spatial)}``.

    A subclass because MONAI's mixed precision is CUDA only, scales gradients for bf16 as well, and leaves no place
    between un-scaling and the optimiser's step (MONAI 1.6, specs of its engines).

    A network that returns several heads in training mode, finest first, gets ``monai.losses.DeepSupervisionLoss``
    around its loss, unless the loss already is one; ``state.output["pred"]`` is the first head. Where
    ``prepare_batch`` makes a target that is not a tensor, such as ``PrepareTasks``, the loss gets all that the network
    returns.

    Args:
        precision: ``fp32``, ``bf16`` (no scaling), ``fp16`` (with a gradient scaler) or ``auto`` (``autocast_dtype``).
        clip_norm: largest norm of all gradients together; ``None`` leaves them.
        compile_network: compile the network in place (state-dict keys stay as they are); one that cannot be compiled,
            for example without a C compiler, trains as it is, with a warning.
        head_weights: weights of the losses of several heads: ``halving`` (1, 1/2, 1/4, ...), or ``halved``, the same
            with 0 for the coarsest and a sum of 1, as nnU-Net.
        max_non_finite: stop after so many steps in a row with a loss that is not finite; such steps change nothing.

    Attributes:
        limit: the ``TimeLimit`` among the handlers, if it limits.

    Where a GPU has no room for a batch, its patches go through the network one by one from then on, if that leaves the
    step the same (``PatchByPatch``).

    Raises:
        ModelError: the loss was not finite ``max_non_finite`` times in a row.
        ResourceError: the GPU has no room, and nothing is left that leaves the step the same.
    """

    def __init__(
        self,
        *args: Any,
        precision: str = "fp32",
        clip_norm: float | None = None,
        compile_network: bool = False,
        head_weights: HeadWeights = "halving",
        max_non_finite: int = 10,
        **kwargs: Any,
    ) -> None:
        if clip_norm is not None and not clip_norm > 0:
            raise ConfigError(f"clip_norm {clip_norm} is not positive; use for example 12, or null for no clipping.")
        # The attributes come first: handlers, which MONAI attaches in its constructor, may look at them.
        self.clip_norm = clip_norm
        if head_weights not in get_args(HeadWeights):
            raise ConfigError(
                f"head_weights is '{head_weights}'; expected {' or '.join(get_args(HeadWeights))}. Name one of them."
            )
        self.head_weights = head_weights
        self.max_non_finite = max_non_finite
        self.non_finite = 0
        self.grad_norm: float | torch.Tensor = math.nan
        self._losses: list[float] = []
        self._unread: list[torch.Tensor] = []
        self._group_is_finite: bool | torch.Tensor = True
        handlers = list(kwargs.get("train_handlers") or ())
        self.limit = next((h for h in handlers if isinstance(h, TimeLimit) and h.minutes is not None), None)
        if self.limit is not None:
            kwargs["train_handlers"] = self.limit.driven(handlers)
        super().__init__(*args, **{"non_blocking": True} | kwargs)  # without effect but from pinned memory to a GPU
        self.dtype = autocast_dtype(precision, self.state.device)
        if self.dtype is not None and self.state.device.type == "cpu":
            right_gradients(self.network)
        self.grad_scaler = torch.amp.GradScaler(self.state.device.type, enabled=self.dtype is torch.float16)
        self.logger.setLevel(logging.CRITICAL)  # ignite's; whoever ends a run says why
        if compile_network:
            self.network.compile(dynamic=False)

    def run(self) -> None:  # type: ignore[override]
        """Train until the last epoch, or until a handler stops the run."""
        try:
            super().run()
        finally:
            close_loader(self.data_loader)

    @property
    def losses(self) -> list[float]:
        """Losses of this epoch's iterations so far. Whoever reads them waits for the device."""
        if self._unread:
            self._losses += torch.stack(self._unread).tolist()
            self._unread.clear()
        return self._losses

    @losses.setter
    def losses(self, values: list[float]) -> None:
        self._losses = values
        self._unread.clear()

    @property
    def loss_sum(self) -> float:
        """Sum of ``losses``."""
        total = 0.0
        for value in self.losses:  # not by sum, which rounds otherwise from Python 3.12 on
            total += value
        return total

    @property
    def share_done(self) -> float:
        """Of the whole training, 0 to 1: by time where that is limited, else by iterations."""
        if self.limit is not None:
            return self.limit.share
        return float(min(1.0, self.state.iteration / (self.state.max_epochs * self.state.epoch_length)))

    @property
    def patch_by_patch(self) -> bool:
        """Whether the network gets the patches of a batch one by one."""
        return isinstance(self.inferer, PatchByPatch)

    @patch_by_patch.setter
    def patch_by_patch(self, wanted: bool) -> None:
        self.inferer = PatchByPatch() if wanted else SimpleInferer()

    @property
    def _position(self) -> int:
        """Number of this epoch's iterations before the current one."""
        return int((self.state.iteration - 1) % self.state.epoch_length)

    def steps_now(self) -> bool:
        """Whether the current iteration ends with an optimiser step (gradient accumulation)."""
        done = self._position + 1
        return done % self.accumulation_steps == 0 or done == self.state.epoch_length

    def _iteration(self, engine: Any, batchdata: dict[str, torch.Tensor]) -> dict[str, Any]:
        batch = self.prepare_batch(batchdata, self.state.device, self.non_blocking, **self.to_kwargs)
        inputs, targets, args, kwargs = batch if len(batch) == 4 else (*batch, (), {})
        plain = isinstance(targets, torch.Tensor)
        before = {Keys.IMAGE: inputs, Keys.LABEL: targets if plain else batchdata[Keys.LABEL]}
        self.network.train()
        if self._position == 0:
            self.losses = []
        value: torch.Tensor | None = None
        while value is None:
            self.state.output = dict(before)
            try:
                value = self._gradients(inputs, targets, args, kwargs)
            except RuntimeError as error:
                if lacks_gpu_memory(error):
                    self._step_down(error, inputs)
                elif _of_compiler(error) and self.network._compiled_call_impl is not None:
                    self._leave_uncompiled(error)
                else:
                    raise
            # The next try is beyond the handler: the error's frames hold the memory of the last one.
            if value is None:
                torch.cuda.empty_cache()  # cuDNN and cuFFT have no use of what torch keeps
        self._unread.append(value)
        self._group_is_finite = torch.isfinite(value) & (self._opens_group or self._group_is_finite)
        if self.steps_now():
            self._step(batchdata)
        self.fire_event(IterationEvents.MODEL_COMPLETED)
        output: dict[str, Any] = self.state.output
        return output

    @property
    def _opens_group(self) -> bool:
        """Whether the current iteration is the first of those whose gradients are accumulated."""
        return self._position % self.accumulation_steps == 0

    def _gradients(self, inputs: torch.Tensor, targets: Any, args: Any, kwargs: Any) -> torch.Tensor:
        """Run the network and add the batch's gradients; the loss, without them."""
        plain = isinstance(targets, torch.Tensor)
        if self._opens_group:
            self.optimizer.zero_grad(set_to_none=True)
        cast = torch.autocast(self.state.device.type, dtype=self.dtype, enabled=self.dtype is not None)
        with cast, refusal_of(self.network, inputs):
            predictions = self.inferer(inputs, self.network, *args, **kwargs)
        self.fire_event(IterationEvents.FORWARD_COMPLETED)
        heads = heads_of(predictions[0] if isinstance(predictions, tuple) and not plain else predictions, inputs.dim())
        with loss_refusal(self.loss_function):
            loss = self._loss(heads, targets) if plain else self.loss_function(_in_float32(predictions), targets)
            value = loss.detach().reshape(())
        self.state.output |= {Keys.PRED: heads[0], Keys.LOSS: loss}
        self.fire_event(IterationEvents.LOSS_COMPLETED)
        self.grad_scaler.scale(loss / self.accumulation_steps).backward()
        self.fire_event(IterationEvents.BACKWARD_COMPLETED)
        return value

    def _leave_uncompiled(self, error: RuntimeError) -> None:
        """Continue with the network as it was written."""
        self.network._compiled_call_impl = None
        cause = str(getattr(error, "inner_exception", error)).strip()
        logger.warning(
            "the network cannot be compiled (%s) and trains without; install what is missing, for example a C "
            "compiler, or use --set compile=false", cause.partition("\n")[0].rstrip(".")
        )  # fmt: skip

    def _step_down(self, error: RuntimeError, inputs: torch.Tensor) -> None:
        """Continue patch by patch after a lack of memory.

        Raises:
            ResourceError: the step would not be the same, or it was tried already.
        """
        reasons = {
            "one by one they do not fit either": self.patch_by_patch,
            "it is a single patch already": len(inputs) == 1,
            "its batch norms need them all at once": not sees_patches_alone(self.network),
            "several processes cannot change to one by one": world_size() > 1,
            f"{type(self.inferer).__name__} needs them all at once": not isinstance(self.inferer, SimpleInferer),
            "earlier batches of the step are mixed with it": not self._opens_group and Keys.LOSS in self.state.output,
        }
        reason = next((reason for reason, holds in reasons.items() if holds), None)
        if reason is not None:
            blocks = any(True for _ in recomputable(self.network))
            half = self.dtype is not None
            advice = memory_advice(error, inputs, reason, half=half, blocks=blocks)
            # Whoever keeps this error, as a notebook does, would keep the frames of the try: its memory and, before
            # torch 2.13, the hooks of checkpointing, which would take part in every further training of the process.
            raise ResourceError(advice) from error.with_traceback(None)
        logger.warning(
            "iteration %d: the GPU has no room for %d patches at once%s; from here on the network gets them "
            "one by one, which takes about a third longer and gives the same loss and gradients",
            self.state.iteration, len(inputs), memory_lacking(str(error)),
        )  # fmt: skip
        self.patch_by_patch = True

    def _loss(self, heads: list[torch.Tensor], targets: torch.Tensor) -> torch.Tensor:
        loss: torch.Tensor
        if len(heads) == 1:
            loss = self.loss_function(heads[0], targets)
            return loss.mean()
        supervised = isinstance(self.loss_function, DeepSupervisionLoss)
        weights = _halved(len(heads)) if self.head_weights == "halved" else None
        function = self.loss_function if supervised else DeepSupervisionLoss(self.loss_function, weights=weights)  # type: ignore[arg-type]
        loss = function(heads, targets.float())  # torch resizes no 16-bit integers
        return loss.mean()

    def _step(self, batchdata: dict[str, Any]) -> None:
        self.grad_scaler.unscale_(self.optimizer)
        parameters = [p for group in self.optimizer.param_groups for p in group["params"] if p.grad is not None]
        limit = math.inf if self.clip_norm is None else self.clip_norm
        norm = torch.nn.utils.clip_grad_norm_(parameters, limit)
        # With a scaler, gradients that overflow are its business: it leaves the step out and scales less.
        # The step's one read from the device, after everything before the optimiser is queued there.
        finite = bool(self._group_is_finite & (self.grad_scaler.is_enabled() | torch.isfinite(norm)))
        finite = not agree(int(not finite))  # a step that one rank leaves out, all leave out
        if finite:
            self.grad_norm = norm
            self.grad_scaler.step(self.optimizer)
        self.grad_scaler.update()
        self.non_finite = 0 if finite else self.non_finite + 1
        if not finite:
            logger.warning("iteration %d: loss or gradient not finite, step skipped", self.state.iteration)
        if self.non_finite >= self.max_non_finite:
            raise ModelError(
                f"The loss was not finite in {self.non_finite} steps in a row (cases {_cases(batchdata)}, last finite "
                f"gradient norm {self.grad_norm:.3g}); the last good checkpoint is kept. Lower the learning rate or "
                f"check these cases."
            )


def _halved(heads: int) -> list[float]:
    """1, 1/2, 1/4, ..., 0, over their sum; two heads or more."""
    weights = [0.5**number for number in range(heads - 1)]
    return [*(weight / sum(weights) for weight in weights), 0.0]


def _of_compiler(error: BaseException) -> bool:
    """Whether ``torch.compile`` raised it, which is not imported where nothing is compiled."""
    compiler = sys.modules.get("torch._dynamo.exc")
    return compiler is not None and isinstance(error, compiler.TorchDynamoException)


@contextlib.contextmanager
def refusal_of(network: torch.nn.Module, inputs: torch.Tensor) -> Iterator[None]:
    """Say which network does not take which patch, where it raises an error of its own.

    Raises:
        ModelError: naming both, with the network's reason.
    """
    try:
        yield
    except (ValueError, RuntimeError, IndexError, NotImplementedError) as error:
        if as_ours(error) is not None or _of_compiler(error):
            raise  # of the machine
        network = getattr(network, "module", network)
        shape = "×".join(map(str, inputs.shape[2:]))
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise ModelError(
            f"{type(network).__name__} does not take {len(inputs)} patches of {shape} with {inputs.shape[1]} channels: "
            f"{reason}. Use a larger patch (--set roi_size=…), or other arguments of the network."
        ) from error


@contextlib.contextmanager
def loss_refusal(loss: Any) -> Iterator[None]:
    """Say which loss does not take logits and labels, where it raises an error of its own.

    Raises:
        ConfigError: naming it, with its reason.
    """
    try:
        yield
    except (TypeError, ValueError, RuntimeError, IndexError, KeyError, AttributeError, AssertionError) as error:
        if as_ours(error) is not None:
            raise  # of the machine
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise ConfigError(
            f"Loss {type(loss).__name__} does not take the network's logits and the labels: {reason}. Name another "
            "with --set loss=…, or fix its arguments."
        ) from error


def heads_of(predictions: Any, dims: int) -> list[torch.Tensor]:
    """A network's outputs, finest first, in float32; ``dims`` is the number of axes of its input."""
    if isinstance(predictions, torch.Tensor):
        stacked = predictions.dim() == dims + 1  # MONAI's DynUNet: (B, heads, C, *spatial)
        predictions = predictions.unbind(1) if stacked else [predictions]
    return [_in_float32(head) for head in predictions]


def _in_float32(predictions: Any) -> Any:
    """Tensors, and lists and tuples of them, whatever the network ran in: losses sum over whole volumes."""
    if isinstance(predictions, torch.Tensor):
        return predictions.float()
    return type(predictions)(map(_in_float32, predictions))


def _cases(batchdata: dict[str, Any]) -> str:
    ids = batchdata.get("case_id", ["unknown"])
    return ", ".join(dict.fromkeys(map(str, ids)))
