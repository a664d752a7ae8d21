"""Data: datalists, inspection and checks, the plan, data sets and loaders."""

from medseg.data.case import Case
from medseg.data.case_dataset import CaseDataset, ReadCase
from medseg.data.case_facts import CaseFacts
from medseg.data.datalist import Datalist
from medseg.data.datalist_file import read_datalist, write_datalist
from medseg.data.dataset import make_dataset
from medseg.data.findings import Problem
from medseg.data.folds import assign_folds
from medseg.data.inspect import inspect_cases
from medseg.data.loader import close_loader, make_loader
from medseg.data.make_datalist import MadeDatalist, make_datalist
from medseg.data.plan import Plan, make_plan
from medseg.data.plan_settings import PlanSettings
from medseg.data.randomness import seed_everything
from medseg.data.sampling import EpochSampler, WeightedSampler

__all__ = [
    "Case",
    "CaseDataset",
    "CaseFacts",
    "Datalist",
    "EpochSampler",
    "MadeDatalist",
    "Plan",
    "PlanSettings",
    "Problem",
    "ReadCase",
    "WeightedSampler",
    "assign_folds",
    "close_loader",
    "inspect_cases",
    "make_datalist",
    "make_dataset",
    "make_loader",
    "make_plan",
    "read_datalist",
    "seed_everything",
    "write_datalist",
]
