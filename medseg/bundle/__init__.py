"""Bundles: build, read, judge, run, check, export and package them."""

from medseg.bundle.arguments import accepts_roi, plan_for_network, planned_arguments, roi_remedy
from medseg.bundle.build import TRAINED_AXES
from medseg.bundle.copy import copy_texts
from medseg.bundle.dump import dump_yaml
from medseg.bundle.metadata import make_metadata

__all__ = [
    "TRAINED_AXES",
    "accepts_roi",
    "copy_texts",
    "dump_yaml",
    "make_metadata",
    "plan_for_network",
    "planned_arguments",
    "roi_remedy",
]
