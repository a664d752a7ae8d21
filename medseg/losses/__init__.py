"""Losses that MONAI lacks."""

from medseg.losses.masked import MaskedDiceCELoss
from medseg.losses.tasks import TaskLoss, TaskTarget

__all__ = ["MaskedDiceCELoss", "TaskLoss", "TaskTarget"]
