"""Weights: safe files, strict loading, and import of the original systems' checkpoints."""

from medseg.weights.files import load_file, load_weights, save_file

__all__ = ["load_file", "load_weights", "save_file"]
