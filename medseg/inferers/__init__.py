"""Inferers: sliding window, whole volume, and ensembles."""

from medseg.inferers.ensemble import Ensemble, Member
from medseg.inferers.half_step import HalfStepWindow
from medseg.inferers.streamed import Streamed
from medseg.inferers.task_passes import TaskPasses
from medseg.inferers.window import SlidingWindow, WholeVolume, even_overlap

__all__ = [
    "Ensemble",
    "HalfStepWindow",
    "Member",
    "SlidingWindow",
    "Streamed",
    "TaskPasses",
    "WholeVolume",
    "even_overlap",
]
