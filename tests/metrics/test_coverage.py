"""Intervals and tests keep what they promise, on simulated subjects.

A coverage may be 0.025 below its table and the size of a test 0.02 above: three standard errors at 1000 replicates.
``tests/benchmarks/statistics_coverage.py`` prints the tables in full.
"""

from __future__ import annotations

import numpy as np
import pytest
from simulated_subjects import Scene, coverage, interval_by_case, size

from medseg.metrics.single_score import ScoreInterval

REPLICATES, DRAWS = 1000, 999
TWO = Scene(cases=(2, 2), rho=0.5)
LABELS = Scene(cases=(1, 3), rho=0.5, labels=3, missing=0.25)


@pytest.mark.parametrize(
    ("failures", "subjects", "table"),
    [(0, 6, 0.944), (0, 12, 0.953), (0, 20, 0.947), (0.04, 20, 0.888), (0.08, 20, 0.860)],
)
def test_coverage_of_a_mean(failures: float, subjects: int, table: float) -> None:
    found, _ = coverage(Scene().alone(failures), subjects, replicates=REPLICATES, draws=DRAWS)
    assert found >= table - 0.025


def test_a_percentile_bootstrap_would_not_pass() -> None:
    """The bound tells methods apart: at six subjects the percentile bootstrap covers 85 %."""

    def percentile(scores: np.ndarray, names: list[str], draws: int) -> ScoreInterval:
        picks = np.random.default_rng(0).integers(0, len(scores), (draws, len(scores)))
        low, high = np.percentile(scores[picks].mean(axis=1), [2.5, 97.5])
        return ScoreInterval(scores.mean(), low, high, len(scores), len(scores), "percentile")

    found, width = coverage(Scene(), 6, replicates=REPLICATES, draws=DRAWS, interval=percentile)
    assert found == pytest.approx(0.846, abs=0.04) and found < 0.944 - 0.025
    assert width == pytest.approx(0.116, abs=0.01)


@pytest.mark.parametrize(("subjects", "table"), [(6, 0.948), (12, 0.949), (20, 0.947)])
def test_two_cases_a_subject(subjects: int, table: float) -> None:
    assert coverage(TWO, subjects, replicates=REPLICATES, draws=DRAWS)[0] >= table - 0.025


def test_mean_over_labels() -> None:
    """Three labels of which a quarter is missing, one to three cases a subject."""
    assert coverage(LABELS, 12, replicates=REPLICATES, draws=DRAWS)[0] >= 0.943 - 0.025
    assert size(LABELS, 12, replicates=REPLICATES, draws=DRAWS)[0] <= 0.054 + 0.02


def test_cases_as_subjects_would_not_pass() -> None:
    found, _ = coverage(TWO, 12, replicates=REPLICATES, draws=DRAWS, interval=interval_by_case)
    assert found < 0.949 - 0.025
    assert size(TWO, 20, replicates=REPLICATES, draws=DRAWS, by_case=True)[0] > 0.047 + 0.02


@pytest.mark.parametrize(
    ("scene", "subjects", "table"),
    [
        (Scene(), 6, 0.035),
        (Scene(), 12, 0.047),
        (Scene(failures=(0.04, 0.04)), 12, 0.047),
        (Scene(step=0.02, equal=0.2), 12, 0.043),
        (TWO, 20, 0.047),
    ],
)
def test_size_of_the_sign_flip_test(scene: Scene, subjects: int, table: float) -> None:
    rejected, covered = size(scene, subjects, replicates=REPLICATES, draws=DRAWS)
    assert rejected <= table + 0.02
    assert covered == pytest.approx(1 - rejected, abs=1e-12)  # p and interval are one statement
