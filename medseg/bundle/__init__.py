"""Bundles: write one for (network, datalist, plan), generate and check its metadata."""

from medseg.bundle.arguments import accepts_roi, plan_for_network, planned_arguments, unet_topology
from medseg.bundle.copy import copy_texts
from medseg.bundle.generate import dump_yaml, write_bundle
from medseg.bundle.metadata import make_metadata

__all__ = [
    "accepts_roi",
    "copy_texts",
    "dump_yaml",
    "make_metadata",
    "plan_for_network",
    "planned_arguments",
    "unet_topology",
    "write_bundle",
]
