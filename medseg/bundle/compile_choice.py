"""Whether compiling a network on a GPU is worth its time, by what was measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from medseg.bundle.recipe import Layer

__all__ = ["MEASURED", "compile_layer"]

# The compiler's time was measured for the forward pass; a training also compiles its gradients, and validation.
_COMPILED = 3


@dataclass(frozen=True)
class _Measured:
    """Medians on an NVIDIA H100 in bf16, batch 1 (torch 2.11, an earlier version of the network).

    Attributes:
        voxels: number of voxels of the patch.
        step: seconds of a training step.
        saved: seconds that the compiled forward pass saves; what the gradients save was not measured.
        compiling: seconds that compiling the forward pass took.
    """

    voxels: int
    step: float
    saved: float
    compiling: float


MEASURED = {
    "HNOSegXS": _Measured(155 * 240 * 240, 0.0576, 0.0231 - 0.0133, 39),
}  # class of a network -> figures


def compile_layer(config: Mapping[str, Any], iterations_per_epoch: float) -> Layer:
    """``compile`` for a training on one GPU: on, if it saves more time over the run than it takes.

    Args:
        config: content of a planned train.yaml.
        iterations_per_epoch: number of batches of an epoch.
    """
    found = MEASURED.get(str(config["network_def"]["_target_"]).rpartition(".")[2])
    if found is None:
        return Layer({"compile": False}, "plan", reasons={"compile": "gains were not measured for this network"})
    step = found.step * config["batch_size"] * prod(config["roi_size"]) / found.voxels
    minutes = config["max_minutes"] or config["epochs"] * iterations_per_epoch * step / 60
    saved, needed = 60 * minutes * found.saved / found.step, _COMPILED * found.compiling
    reason = (
        f"by an H100's figures it saves about {saved:.0f} s of {minutes:.3g} minutes and takes about {needed:.0f} s"
    )
    return Layer({"compile": saved > needed}, "plan", reasons={"compile": reason})
