"""Losses that MONAI lacks."""

from medseg.losses.distilled import DistilledLoss
from medseg.losses.exponential_log import ExponentialLogLoss
from medseg.losses.masked import MaskedDiceCELoss
from medseg.losses.pearson import PearsonLoss
from medseg.losses.tasks import TaskLoss, TaskTarget
from medseg.losses.weighted_sum import WeightedSum

__all__ = [
    "DistilledLoss",
    "ExponentialLogLoss",
    "MaskedDiceCELoss",
    "PearsonLoss",
    "TaskLoss",
    "TaskTarget",
    "WeightedSum",
]
