"""Metrics per case and label, in millimetres where they are lengths."""

from medseg.metrics.cases import (
    CaseRows,
    Summary,
    background_cases,
    background_note,
    case_scores,
    mean_dice,
    pooled,
    summarize,
)
from medseg.metrics.definition import NOT_RECORDED, CleanupRules, ScoreDefinition, target_values
from medseg.metrics.median import MedianInterval, median_interval
from medseg.metrics.photo import photo_scores
from medseg.metrics.scores import FoldScores, ScoredPredictions, ScoreFacts, Scores, warn_of_impossible
from medseg.metrics.surface_area import area_surface_scores

__all__ = [
    "NOT_RECORDED",
    "CaseRows",
    "CleanupRules",
    "FoldScores",
    "MedianInterval",
    "ScoreDefinition",
    "ScoreFacts",
    "ScoredPredictions",
    "Scores",
    "Summary",
    "area_surface_scores",
    "background_cases",
    "background_note",
    "case_scores",
    "mean_dice",
    "median_interval",
    "photo_scores",
    "pooled",
    "summarize",
    "target_values",
    "warn_of_impossible",
]
