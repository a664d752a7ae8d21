"""What a run costs, measured while it is validated: time and memory per case, and the arithmetic of its network."""

from __future__ import annotations

import logging
import platform
import statistics
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from ignite.engine import Events
from monai.engines.utils import IterationEvents
from torch import nn

from medseg.engines.memory import PeakMemory
from medseg.engines.run_facts import RunFacts
from medseg.networks import SliceWise
from medseg.networks.cost import count_parameters, multiply_adds_of

__all__ = ["CaseCost", "network_facts"]

logger = logging.getLogger("medseg")


def network_facts(network: nn.Module, in_channels: int, roi_size: Sequence[int]) -> RunFacts:
    """Class, parameters and multiply-adds of a forward pass over one patch; the last is omitted where it cannot
    be counted.
    """
    slices = isinstance(network, SliceWise)
    name = f"{type(network.network).__name__} (2D)" if slices else type(network).__name__
    facts = RunFacts(network=name, parameters=count_parameters(network))
    try:
        counted = multiply_adds_of(network, (1, in_channels, *roi_size))
    except Exception as error:  # any network may fail in any way; a run is not lost for the lack of one figure
        logger.debug("multiply-adds of %s: %s", facts.network, error)
        return facts
    return replace(facts, multiply_adds_per_window=counted.total, multiply_adds_without=counted.not_counted or None)


class CaseCost:
    """Attached to an evaluator: what inference costs per case, from the prepared image to what the inferer makes of it:
    the label map in the original image space where that is made as the logits come, else the logits.

    Reading, preprocessing and scores are not in it.
    """

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.windows: list[int] = []
        self.peaks: list[int] = []

    def attach(self, engine: Any) -> None:
        engine.add_event_handler(Events.ITERATION_STARTED, self._start)
        engine.add_event_handler(IterationEvents.FORWARD_COMPLETED, self._stop)

    def _start(self, engine: Any) -> None:
        self._peak = PeakMemory(engine.state.device)
        self._began = time.perf_counter()

    def _stop(self, engine: Any) -> None:
        if engine.state.device.type == "cuda":
            torch.cuda.synchronize(engine.state.device)
        self.seconds.append(time.perf_counter() - self._began)
        self.device = engine.state.device
        peak = self._peak.read()
        if peak is not None:
            self.peaks.append(peak)
        windows = getattr(engine.inferer, "windows", None)
        if windows:
            self.windows.append(windows)

    def facts(self, multiply_adds_per_window: int | None = None) -> RunFacts:
        """Median time, largest memory above the level before the case, mean numbers of patches and multiply-adds."""
        if not self.seconds:
            return RunFacts()
        cuda = self.device.type == "cuda"
        threads = torch.get_num_threads()
        name = torch.cuda.get_device_name(self.device) if cuda else f"CPU ({platform.machine()}), threads: {threads}"
        windows = statistics.fmean(self.windows) if self.windows else None
        return RunFacts(
            seconds_per_case=statistics.median(self.seconds),
            measured_on=name,
            peak_memory_bytes=max(self.peaks, default=None),
            windows_per_case=windows,
            multiply_adds_per_case=round(windows * multiply_adds_per_window)
            if windows is not None and multiply_adds_per_window is not None
            else None,
        )
