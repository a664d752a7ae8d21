"""Weights: safe files, strict loading, and import of the original systems' checkpoints."""

from medseg.weights.files import load_file, load_weights, read_state_dict, save_file
from medseg.weights.original import import_original, import_with_report
from medseg.weights.transfer import transfer_state, transfer_weights

__all__ = [
    "import_original",
    "import_with_report",
    "load_file",
    "load_weights",
    "read_state_dict",
    "save_file",
    "transfer_state",
    "transfer_weights",
]
