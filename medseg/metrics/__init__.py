"""Metrics per case and label, in millimetres where they are lengths."""

from medseg.metrics.cases import (
    background_cases,
    background_note,
    case_scores,
    dice,
    mean_dice,
    pooled,
    summarize,
)
from medseg.metrics.intervals import Interval, MedianInterval, mean_interval, median_interval
from medseg.metrics.photo import photo_scores
from medseg.metrics.surface_area import area_surface_scores

__all__ = [
    "Interval",
    "MedianInterval",
    "area_surface_scores",
    "background_cases",
    "background_note",
    "case_scores",
    "dice",
    "mean_dice",
    "mean_interval",
    "median_interval",
    "photo_scores",
    "pooled",
    "summarize",
]
