"""Metrics per case and label, in millimetres where they are lengths."""

from medseg.metrics.cases import case_scores, dice, mean_dice, summarize

__all__ = ["case_scores", "dice", "mean_dice", "summarize"]
