"""Inferers: sliding window and whole volume."""

from medseg.inferers.window import SlidingWindow, WholeVolume, even_overlap

__all__ = ["SlidingWindow", "WholeVolume", "even_overlap"]
