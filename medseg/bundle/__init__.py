"""Bundles: write one for (network, datalist, plan), generate and check its metadata."""

from medseg.bundle.arguments import accepts_roi, plan_for_network, planned_arguments, unet_topology
from medseg.bundle.copy import copy_texts
from medseg.bundle.document import TRAINED_AXES, document_bundle, read_reasons
from medseg.bundle.dump import dump_yaml
from medseg.bundle.generate import write_bundle
from medseg.bundle.metadata import make_metadata

__all__ = [
    "accepts_roi",
    "TRAINED_AXES",
    "copy_texts",
    "document_bundle",
    "dump_yaml",
    "make_metadata",
    "plan_for_network",
    "planned_arguments",
    "unet_topology",
    "read_reasons",
    "write_bundle",
]
