"""Training and validation engines: MONAI's, with what they lack."""

from medseg.engines.attach import Attach
from medseg.engines.checkpoint import Checkpoint, RandomStreams
from medseg.engines.cost import CaseCost, network_facts
from medseg.engines.ema import UpdateAverage, evaluated_network, make_average
from medseg.engines.freeze import FreezePart
from medseg.engines.load import LoadWeights
from medseg.engines.log import Progress, RunLog
from medseg.engines.scores import CaseScores, PhotoScores, write_scores
from medseg.engines.stopping import EarlyStop, TimeLimit
from medseg.engines.target_maps import target_maps
from medseg.engines.task_batches import PrepareTasks
from medseg.engines.trainer import SegmentationTrainer
from medseg.engines.validation_loss import ValidationLoss

__all__ = [
    "Attach",
    "CaseCost",
    "CaseScores",
    "Checkpoint",
    "EarlyStop",
    "FreezePart",
    "LoadWeights",
    "PhotoScores",
    "PrepareTasks",
    "Progress",
    "RandomStreams",
    "RunLog",
    "SegmentationTrainer",
    "TimeLimit",
    "UpdateAverage",
    "ValidationLoss",
    "evaluated_network",
    "make_average",
    "network_facts",
    "target_maps",
    "write_scores",
]
