"""Training and validation engines: MONAI's, with what they lack."""

from medseg.engines.attach import Attach
from medseg.engines.augment_batches import PrepareAugmented
from medseg.engines.binary_maps import target_maps
from medseg.engines.cases import CaseEvaluator, run_cases
from medseg.engines.checkpoint import Checkpoint, RandomStreams, unselected_epochs
from medseg.engines.cost import CaseCost, network_facts
from medseg.engines.distill import DistillingInferer
from medseg.engines.ema import UpdateAverage, evaluated_network, make_average
from medseg.engines.freeze import FreezePart, frozen_epochs
from medseg.engines.keep_tasks import KeepOldTasks
from medseg.engines.load import LoadWeights
from medseg.engines.log import Progress, RunLog
from medseg.engines.scores import CaseScores, PhotoScores, TaskMapScores, TaskScores
from medseg.engines.start import run
from medseg.engines.stopping import EarlyStop
from medseg.engines.task_batches import PreparePasses, PrepareTasks
from medseg.engines.time_limit import TimeLimit
from medseg.engines.trainer import SegmentationTrainer
from medseg.engines.validation_loss import ValidationLoss, lower_is_better

__all__ = [
    "Attach",
    "CaseCost",
    "CaseEvaluator",
    "CaseScores",
    "Checkpoint",
    "DistillingInferer",
    "EarlyStop",
    "FreezePart",
    "KeepOldTasks",
    "LoadWeights",
    "PhotoScores",
    "PrepareAugmented",
    "PreparePasses",
    "PrepareTasks",
    "Progress",
    "RandomStreams",
    "RunLog",
    "SegmentationTrainer",
    "TaskMapScores",
    "TaskScores",
    "TimeLimit",
    "UpdateAverage",
    "ValidationLoss",
    "evaluated_network",
    "frozen_epochs",
    "lower_is_better",
    "make_average",
    "network_facts",
    "run",
    "run_cases",
    "target_maps",
    "unselected_epochs",
]
