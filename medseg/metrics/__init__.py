"""Metrics per case and label, in millimetres where they are lengths."""

from medseg.metrics.cases import case_scores, dice, mean_dice, pooled, summarize
from medseg.metrics.intervals import Interval, mean_interval

__all__ = ["Interval", "case_scores", "dice", "mean_dice", "mean_interval", "pooled", "summarize"]
