"""Empty masks: one rule over all columns, by its table."""

from __future__ import annotations

import math

import numpy as np
import pytest

from medseg.errors import ConfigError
from medseg.metrics.empty import EmptyRule, Settled, lesion_free, settle
from medseg.metrics.shares import share

NAN = math.nan
# Cases: both masks full, both empty, reference empty, prediction empty; values as the formulas give them.
REFERENCE_EMPTY, PREDICTION_EMPTY = np.array([[0, 1, 1, 0], [0, 1, 0, 1]], dtype=bool)
SCORES = {
    "dice": np.array([0.8, NAN, 0.0, 0.0]),
    "surface_dice": np.array([0.7, NAN, NAN, NAN]),
    "hd95": np.array([4.0, NAN, math.inf, NAN]),
    "sensitivity": np.array([0.9, NAN, NAN, 0.0]),
    "precision": np.array([0.7, NAN, 0.0, NAN]),
    "specificity": np.array([0.9, 1.0, 0.8, 1.0]),
}
KINDS = dict(zip(SCORES, ("overlap", "overlap", "distance", "sensitivity", "precision", "other"), strict=True))
DIAGONALS = np.array([100.0, 110, 120, 130])


def settled(**rule: object) -> dict[str, Settled]:
    return settle(SCORES, KINDS, REFERENCE_EMPTY, PREDICTION_EMPTY, DIAGONALS, EmptyRule(**rule))


def values(columns: dict[str, Settled]) -> dict[str, list[float]]:
    return {score: column.values.tolist() for score, column in columns.items()}


def same(found: dict[str, list[float]], expected: dict[str, list[float]]) -> bool:
    return all(np.array_equal(found[score], expected[score], equal_nan=True) for score in expected)


def test_penalty() -> None:
    columns = settled()
    assert same(
        values(columns),
        {
            "dice": [0.8, NAN, 0, 0],
            "surface_dice": [0.7, NAN, 0, 0],
            "hd95": [4, NAN, 120, 130],
            "sensitivity": [0.9, NAN, NAN, 0],
            "precision": [0.7, NAN, 0, NAN],
            "specificity": [0.9, NAN, 0.8, 1.0],
        },
    )
    hd95 = columns["hd95"]
    assert hd95.penalised.tolist() == [False, False, True, True] and hd95.undefined == 1
    assert (hd95.mean, hd95.median, hd95.mean_without_penalties) == (pytest.approx(254 / 3), 120, 4)
    assert not columns["specificity"].penalised.any()
    assert settled(empty_precision_zero=True)["precision"].values[3] == 0
    assert settled(penalty_mm=500.0)["hd95"].values.tolist()[2:] == [500, 500]


def test_columns_stand_on_the_same_cases() -> None:
    """Who predicts nothing gets no better HD95 than who predicts something."""
    columns = settled()
    assert len({column.undefined for score, column in columns.items() if KINDS[score] in ("overlap", "distance")}) == 1
    assert columns["hd95"].mean > columns["hd95"].mean_without_penalties


def test_reference_only() -> None:
    columns = settled(name="reference_only")
    for score, expected in {"dice": [0.8, 0], "hd95": [4, 130], "sensitivity": [0.9, 0]}.items():
        found = columns[score].values
        assert np.isnan(found[1:3]).all() and found[[0, 3]].tolist() == expected
    assert all(np.isnan(column.values[1:3]).all() for column in columns.values())
    assert not columns["hd95"].penalised[:3].any()


def test_challenge() -> None:
    columns = settled(name="challenge")
    assert columns["dice"].values.tolist() == [0.8, 1, 0, 0]
    assert columns["hd95"].values.tolist() == [4, 0, 374, 374]
    assert columns["sensitivity"].values.tolist() == [0.9, 1, 0, 0]
    assert all(column.undefined == 0 for column in columns.values())


def test_wrong_names() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'penalty'"):
        EmptyRule("penalties")
    with pytest.raises(ConfigError, match="Did you mean 'overlap'"):
        settle(SCORES, KINDS | {"dice": "overlaps"}, REFERENCE_EMPTY, PREDICTION_EMPTY, DIAGONALS, EmptyRule())


def test_no_defined_case() -> None:
    nothing = Settled(np.array([NAN]), np.array([False]))
    assert math.isnan(nothing.mean) and math.isnan(nothing.median) and nothing.undefined == 1


def test_lesion_free_scans_are_apart() -> None:
    volumes, parts = np.array([9.0, 0, 0, 3, 0.5]), np.array([4, 0, 0, 2, 1])
    empty = np.array([False, True, True, True, True])
    found = lesion_free(empty, volumes, parts, np.array(list("abcde")))
    assert found.kept_empty == share(2, 4)
    assert (found.false_positive_ml, found.components) == (3.5 / 4, 3 / 4)
    none = lesion_free(np.zeros(5, dtype=bool), volumes, parts, np.array(list("abcde")))
    assert none.kept_empty.of == 0 and math.isnan(none.components)
