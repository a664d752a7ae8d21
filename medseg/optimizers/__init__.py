"""Optimisers, parameter groups and learning-rate schedules; torch's and MONAI's own are used where they exist."""

from medseg.optimizers.frequency import frequency_mask, frequency_reparameterized
from medseg.optimizers.groups import parameter_groups
from medseg.optimizers.lamb import Lamb
from medseg.optimizers.schedules import Schedule, iterations, make_schedule

__all__ = [
    "Lamb",
    "Schedule",
    "frequency_mask",
    "frequency_reparameterized",
    "iterations",
    "make_schedule",
    "parameter_groups",
]
