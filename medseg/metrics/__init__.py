"""Metrics per case and label, in millimetres where they are lengths."""

from medseg.metrics.cases import case_scores, dice, mean_dice, summarize
from medseg.metrics.intervals import Interval, MedianInterval, mean_interval, median_interval

__all__ = [
    "Interval",
    "MedianInterval",
    "case_scores",
    "dice",
    "mean_dice",
    "mean_interval",
    "median_interval",
    "summarize",
]
