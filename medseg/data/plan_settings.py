"""What is asked of a plan before the rules decide the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from medseg.data.nnunet_plans import NnunetPlans
from medseg.networks.nnunet_patch import MEMORY_GB

__all__ = ["PlanSettings"]


@dataclass(frozen=True)
class PlanSettings:
    """The machine that is planned for, and what the user has decided; ``None`` leaves a choice to the rules.

    Attributes:
        device_type: ``cpu`` or ``cuda``.
        free_memory_gib: memory for the cache; ``None`` is what the machine has free now.
        processes: number of processes on the machine, each of which caches all cases.
        roi_size: patch in voxels.
        spacing: target spacing in mm, RAS order.
        longest: pixels of the longer side that 2D images are resized to.
        scale: fraction of the voxels per axis that cases are resized to.
        batch_size: cases per batch.
        repeats: passes over the cases per epoch.
        num_training: number of training cases; ``None`` is that of all cases.
        roi_step: the patch is a multiple of it in every axis, where it is neither given nor holds whole volumes.
        voxel_share: share of the usual limit of a patch's voxels, where a GPU has too little memory for that.
        whole_volume: the patch holds whole cases.
        cases_on_gpu: a GPU may keep the prepared cases, since it changes the patches too.
        like_nnunet: spacing, patch and batch by nnU-Net's rules (``plan_nnunet``), not of whole volumes.
        memory_gb: memory of the GPU that these plan for, in GB.
        residual: these plan for a U-Net of residual blocks.
        configuration: nnU-Net's name of a configuration of volumes: ``3d_fullres``, ``3d_lowres``, ``2d`` or
            ``3d_cascade_fullres``.
        checkpointing: the network's blocks are computed again for the gradients, in less memory.
        nnunet: plans that spacing, patch (not of whole volumes) and normalisation are taken from where not given.
    """

    device_type: str = "cpu"
    free_memory_gib: float | None = None
    processes: int = 1
    roi_size: Sequence[int] | None = None
    spacing: Sequence[float] | None = None
    longest: int | None = None
    scale: float | None = None
    batch_size: int | None = None
    repeats: int | None = None
    num_training: int | None = None
    roi_step: int = 8
    voxel_share: float = 1.0
    whole_volume: bool = False
    cases_on_gpu: bool = False
    like_nnunet: bool = False
    memory_gb: float = MEMORY_GB
    residual: bool = False
    configuration: str | None = None
    checkpointing: bool = False
    nnunet: NnunetPlans | None = None

    @property
    def gpu(self) -> bool:
        """Whether training has a GPU."""
        return self.device_type == "cuda"
