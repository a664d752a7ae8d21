"""Inferers: sliding window, whole volume, and ensembles."""

from medseg.inferers.ensemble import Ensemble, Member
from medseg.inferers.window import SlidingWindow, WholeVolume, even_overlap

__all__ = ["Ensemble", "Member", "SlidingWindow", "WholeVolume", "even_overlap"]
