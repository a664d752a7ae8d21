"""Optimisers and learning-rate schedules; torch's and MONAI's own are used where they exist."""

from medseg.optimizers.frequency import frequency_mask, frequency_reparameterized
from medseg.optimizers.schedules import make_schedule

__all__ = ["frequency_mask", "frequency_reparameterized", "make_schedule"]
