"""``metrics.json``: one writer, one reader, and what earlier versions wrote."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from medseg.errors import DataError
from medseg.metrics import NOT_RECORDED, ScoreDefinition, ScoredPredictions, ScoreFacts, Scores

CASES = {"c1": {"a": {"dice": 0.5, "volume_ml": 2.0, "reference_ml": 2.0}}, "c2": {"a": {"dice": math.nan}}}
DEFINITION = ScoreDefinition(
    space="source", unit="mm", scorer="CaseScores", include_background=False, targets={"": {"a": [1]}},
    empty="penalty", cleanup={"a": {"keep_largest": True}},
)  # fmt: skip
FACTS = ScoreFacts(section="test", fold=None, others={"external": "kits"}, biases=[], files_sha256={"c1": ["1", "2"]})
SCORES = Scores.of(CASES, DEFINITION, FACTS)


@pytest.mark.parametrize("predictions", [ScoredPredictions("predictions", {"c1": "0"}), None])
def test_what_is_written_is_read(tmp_path: Path, predictions: ScoredPredictions | None) -> None:
    scores = replace(SCORES, asked=3, scored=2, predictions=predictions)
    scores.write(tmp_path)
    written = (tmp_path / "metrics.json").read_bytes()
    found = Scores.read(tmp_path)
    assert found == scores == Scores.found(tmp_path) and Scores.found(tmp_path / "none") is None
    found.write(tmp_path)
    assert (tmp_path / "metrics.json").read_bytes() == written


def test_facts_and_definition_are_entries_beside_the_scores(tmp_path: Path) -> None:
    SCORES.write(tmp_path)
    table = json.loads((tmp_path / "metrics.json").read_text())
    assert list(table) == [
        "mean_dice", "space", "section", "fold", "external", "biases", "medseg", "files_sha256", "unit", "scorer",
        "include_background", "targets", "empty", "cleanup", "postprocessing", "metrics",
        "labels", "pooled", "cases",
    ]  # fmt: skip
    assert table["postprocessing"] == "cleaned" and table["cases"]["c2"]["a"]["dice"] is None
    assert table["labels"]["a"]["dice"] == {"mean": 0.5, "cases": 1, "undefined": 1, "median": 0.5}


def test_what_earlier_versions_did_not_record(tmp_path: Path) -> None:
    rows: dict[str, Any] = {"labels": {}, "cases": {}}
    (tmp_path / "metrics.json").write_text(json.dumps({"mean_dice": None, **rows, "others": 1}))
    scores = Scores.read(tmp_path)
    assert math.isnan(scores.mean_dice) and scores.asked is None and scores.pooled == {}
    assert scores.definition.space == NOT_RECORDED and scores.definition.postprocessing == "raw"
    assert scores.predictions == ScoredPredictions("predictions", {})
    assert scores.facts == ScoreFacts(section=None, fold=None, others={"others": 1})


def test_earlier_versions_recorded_the_definition_beside_the_name(tmp_path: Path) -> None:
    SCORES.write(tmp_path)
    path = tmp_path / "metrics.json"
    table = json.loads(path.read_text()) | {
        "surface_measure": "area",
        "surface_dice_tolerance_mm": None,
        "medseg": "0.1.0",
    }
    table["labels"]["a"]["hd95"] = {"mean": 3.0, "cases": 1, "undefined": 1}
    table["cases"]["c1"]["a"] |= {"hd95": 3.0, "surface_dice": 0.5}
    path.write_text(json.dumps(table))
    scores = Scores.read(tmp_path)
    assert scores.labels["a"]["hd95_area_opened"].mean == scores.cases["c1"]["a"]["hd95_area_opened"] == 3.0
    assert scores.cases["c1"]["a"]["surface_dice_area_at_voxel"] == 0.5
    assert scores.named("hd95") == "hd95_area_opened" and scores.named("dice") == "dice"


def test_cases_have_their_subjects(tmp_path: Path) -> None:
    replace(SCORES, facts=replace(FACTS, subjects={"c1": "s"})).write(tmp_path)
    assert Scores.read(tmp_path).units == ["s", "c2"]


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"fold": "one"}, "fold is a string instead of"),
        ({"cases": {"c": {"b": {"dice": 1.0}}}}, "case 'c' has label 'b', which 'labels' lacks"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, changed: dict[str, Any], sentence: str) -> None:
    SCORES.write(tmp_path)
    path = tmp_path / "metrics.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))
    with pytest.raises(DataError, match=f"metrics.json is damaged .*{sentence}"):
        Scores.read(tmp_path)


@pytest.mark.parametrize(("score", "value"), [("dice", 7.0), ("hd95_pooled", -2.0), ("dice", 0.5)])
def test_scores_that_no_masks_can_have(
    tmp_path: Path, score: str, value: float, caplog: pytest.LogCaptureFixture
) -> None:
    SCORES.write(tmp_path)
    path = tmp_path / "metrics.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"cases": {"c": {"a": {score: value}}}}))
    Scores.read(tmp_path)
    assert (f"case 'c' has a {score} of {value:g} for label 'a', expected 0 to" in caplog.text) is (value != 0.5)
