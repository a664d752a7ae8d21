"""What a benchmark measures of a network: the time and the memory of one step, forward or of a training."""

from __future__ import annotations

import gc
import timeit
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any

import torch
from monai.losses import DiceCELoss
from torch import nn
from torch.utils.benchmark import set_torch_threads, timer

from medseg.engines import SegmentationTrainer
from medseg.engines.memory import PeakMemory
from medseg.errors import ConfigError, MedsegError, ResourceError
from medseg.faults import lacks_gpu_memory
from medseg.metrics import MedianInterval, median_interval
from medseg.networks import create_network
from medseg.networks.kernels.channels_last import lay_out
from medseg.networks.kernels.float32 import full_float32

__all__ = ["PRECISIONS", "STEPS", "WARM_UP", "Candidate", "Conditions", "failure", "peak_memory", "times"]

STEPS = {
    "forward": "evaluation mode, without gradients",
    "train": "one step of medseg's trainer: forward, DiceCE loss, backward, gradients clipped, AdamW",
}
WARM_UP = 2  # steps before the first that counts: caches, kernels, the optimiser's state
PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
_CLIP_NORM = 12.0  # as in generated bundles


@dataclass(frozen=True)
class Conditions:
    """What all networks share; small enough to be sent to another process.

    Attributes:
        size: shape of the input in voxels, ``(D, H, W)`` or ``(H, W)``.
        in_channels: number of channels of the input.
        out_channels: number of channels of the logits.
        batch_size: number of images per step.
        device: ``cpu``, ``cuda`` or ``cuda:N``.
        threads: number of CPU threads.
        precision: key of ``PRECISIONS``.
    """

    size: tuple[int, ...]
    in_channels: int
    out_channels: int
    batch_size: int
    device: str
    threads: int
    precision: str

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the input, ``(B, C, *spatial)``."""
        return (self.batch_size, self.in_channels, *self.size)


@dataclass(frozen=True)
class Candidate:
    """A network to measure.

    Attributes:
        name: name in the result.
        network: name of the network, MONAI class or dotted path.
        arguments: arguments of its constructor.
    """

    name: str
    network: str
    arguments: Mapping[str, Any]


def _make_step(candidate: Candidate, setup: Conditions, step: str) -> Callable[[], object]:
    """Build a network and its input; the result runs one step of it."""
    torch.manual_seed(0)
    full_float32()  # as a run
    device = torch.device(setup.device)
    network = create_network(candidate.network, **candidate.arguments).to(device)
    image = torch.randn(setup.shape, device=device)
    if step == "forward":
        return _forward(network.eval(), image, setup.precision)
    label = torch.randint(0, setup.out_channels, (setup.batch_size, 1, *setup.size), device=device)
    trainer = SegmentationTrainer(
        device=device,
        max_epochs=1,
        train_data_loader=[{"image": image, "label": label}],
        network=lay_out(network),
        optimizer=torch.optim.AdamW(network.parameters(), lr=1e-5),
        loss_function=DiceCELoss(to_onehot_y=True, softmax=True),
        precision=setup.precision,
        clip_norm=_CLIP_NORM,
    )
    return trainer.run


def _forward(network: nn.Module, image: torch.Tensor, precision: str) -> Callable[[], object]:
    dtype = PRECISIONS[precision]

    def run() -> object:
        with torch.no_grad(), torch.autocast(image.device.type, dtype=dtype, enabled=dtype is not None):
            return network(image)

    return run


# ---------------------------------------------------------------------- time
def times(
    candidates: Sequence[Candidate], setup: Conditions, step: str, repeats: int
) -> list[tuple[MedianInterval, MedianInterval]]:
    """Per network: seconds, and ratio to the first.

    Raises:
        ResourceError: too little memory for all networks at once.
        ConfigError: a network does not take the size.
    """
    try:
        with _at_work(setup):
            runs = [_make_step(candidate, setup, step) for candidate in candidates]
            for run in runs * WARM_UP:
                run()
            turns = _turns(runs, repeats)
    except (RuntimeError, ValueError) as error:
        raise failure(error, "Together, the networks", setup, step) from error
    return [
        (median_interval(turn), median_interval([a / b for a, b in zip(turn, turns[0], strict=True)])) for turn in turns
    ]


@contextmanager
def _at_work(setup: Conditions) -> Iterator[None]:
    """With the threads and on the GPU of the settings, which torch's clock waits for."""
    gpu = torch.cuda.device(setup.device) if setup.device.startswith("cuda") else nullcontext()
    with set_torch_threads(setup.threads), gpu:
        yield


def _turns(runs: Sequence[Callable[[], object]], repeats: int) -> list[list[float]]:
    """Seconds per run and turn; every other turn goes backwards, so that no run always follows the same one."""
    # Python's timer on torch's clock: torch's own Timer adds two runs for warming up to every one that it measures.
    clocks = [timeit.Timer(run, timer=timer) for run in runs]
    seconds: list[list[float]] = [[] for _ in runs]
    gc.collect()
    for turn in range(repeats):
        for index in range(len(runs))[:: 1 if turn % 2 == 0 else -1]:
            seconds[index].append(clocks[index].timeit(1))
    return seconds


# ---------------------------------------------------------------------- memory
def peak_memory(candidate: Candidate, setup: Conditions, step: str) -> int | None:
    """Bytes that a network and a step need, measured in a fresh process; ``None`` where the system does not say.

    Raises:
        ResourceError: too little memory.
        ConfigError: the network does not take the size.
    """
    try:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            return pool.submit(_peak, candidate, setup, step).result()
    except BrokenProcessPool as error:
        raise ResourceError(
            f"The process that measured {candidate.name} ({step}) was killed: the system ran out of memory. "
            "Use a smaller size or batch_size."
        ) from error


def _peak(candidate: Candidate, setup: Conditions, step: str) -> int | None:
    """The largest memory of building a network and of two steps, above that of a process with torch at work."""
    torch.set_num_threads(setup.threads)
    device = torch.device(setup.device)
    layer = nn.Conv3d(4, 4, 3).to(device)  # the libraries' own memory comes with their first use
    layer(torch.zeros(1, 4, 16, 16, 16, device=device)).sum().backward()
    del layer
    gc.collect()
    peak = PeakMemory(device)
    try:
        run = _make_step(candidate, setup, step)
        run()
        run()  # the optimiser's state is there from the second step on
    except (RuntimeError, ValueError) as error:
        raise failure(error, candidate.name, setup, step) from error
    return peak.read()


def failure(error: Exception, name: str, setup: Conditions, step: str) -> MedsegError:
    """The error of a network that could not run a step."""
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if lacks_gpu_memory(error) or "allocate memory" in reason:
        return ResourceError(f"{name} ({step}) need more memory than {setup.device} has; use a smaller size.")
    return ConfigError(
        f"{name} cannot run '{step}' on an input of {setup.shape} ({reason}); use another size or batch_size."
    )
