"""Like with like: what a comparison refuses, what it shows, and that its mean is one quantity."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medseg.cli import main
from medseg.errors import ConfigError, DataError
from medseg.workflows.comparable import run_names
from medseg.workflows.compare import compare

DEFINITION = {
    "space": "source", "unit": "mm", "scorer": "CaseScores", "include_background": False,
    "targets": {"": {"a": [1], "b": [2]}}, "empty": "penalty",
    "cleanup": {}, "role": "validation", "section": "validation", "fold": 0, "checkpoint": "best",
    "files_sha256": {f"c{number}": ["image", f"label{number}"] for number in range(12)},
}  # fmt: skip
EFFORT = {
    "iterations": 100,
    "training_seconds": 60.0,
    "cpu_seconds": 90.0,
    "validations": 5,
    "schedule_completed": True,
}


def write(folder: Path, shift: float = 0.0, facts: dict[str, Any] | None = None, **scores: Any) -> Path:
    """A run's files; label ``b`` is missing in most cases."""
    rng = np.random.default_rng(1)
    cases = {
        f"c{i}": {
            "a": {"dice": float(rng.uniform(0.5, 0.6)) + shift, "hd95": 3.0, "surface_dice": 0.5},
            "b": {"dice": None if i > 2 else 0.9 + shift / 10, "hd95": 3.0, "surface_dice": 0.5},
        }
        for i in range(12)
    }
    folder.mkdir(parents=True)
    rows = dict.fromkeys(("dice", "hd95", "surface_dice"), {"mean": 0.0, "cases": 12, "undefined": 0})
    content = {"mean_dice": 0.0, **DEFINITION, "labels": {"a": rows, "b": rows}, "pooled": {}, "cases": cases} | scores
    (folder / "metrics.json").write_text(json.dumps(content))
    (folder / "run.json").write_text(json.dumps(EFFORT | (facts or {})))
    return folder


@pytest.mark.parametrize(
    ("score", "changed", "sentence"),
    [
        ("dice", {"space": "model"}, "the space of the scores differs: source in one, model in two"),
        ("dice", {"cleanup": {"a": {"keep_largest": True}}}, "raw in one, cleaned in two.*--no_postprocess"),
        ("dice", {"targets": {"": {"a": [2], "b": [1]}}}, "the label table differs"),
        ("dice", {"include_background": True}, "whether the background is scored differs"),
        ("dice", {"scorer": "PhotoScores"}, "the rule by which a case is scored differs"),
        ("surface_dice", {"surface_dice_tolerance_mm": None}, "surface_dice in one, surface_dice_at_voxel in two"),
        ("surface_dice", {"surface_measure": "area"}, "surface_dice in one, surface_dice_area in two"),
        ("hd95", {"surface_measure": "area"}, "The definition of hd95 differs: hd95 in one, hd95_area_opened in two"),
        ("dice", {"empty": "challenge"}, "the rule for empty masks differs: penalty in one, challenge in two"),
        ("hd95", {"unit": "px"}, "the unit of lengths differs"),
        ("dice", {"files_sha256": {"c3": ["image", "another"]}}, "scored against other references in 1 cases .c3."),
    ],
)  # fmt: skip
def test_scores_that_mean_other_things_are_refused(
    tmp_path: Path, score: str, changed: dict[str, Any], sentence: str
) -> None:
    runs = [write(tmp_path / "one"), write(tmp_path / "two", **changed)]
    with pytest.raises(DataError, match=sentence):
        compare(runs, tmp_path / "out", score=score)


def test_a_score_that_the_runs_lack_is_named(tmp_path: Path) -> None:
    runs = [write(tmp_path / name) for name in ("one", "two")]
    with pytest.raises(ConfigError, match="no score 'dcie'. Did you mean 'dice'"):
        compare(runs, tmp_path / "out", score="dcie")


def test_what_does_not_concern_the_score_is_no_hindrance(tmp_path: Path) -> None:
    runs = [write(tmp_path / "one"), write(tmp_path / "two", surface_dice_tolerance_mm=3.0, surface_measure="area")]
    assert not [text for text in compare(runs, tmp_path / "out").warnings if "definition" in text]
    named = {"targets": {"kits": {"a": [1], "b": [2]}}}  # one data set each, the same values
    compare([runs[0], write(tmp_path / "three", **named)], tmp_path / "named")


@pytest.mark.parametrize(
    ("facts", "scores", "shown"),
    [
        ({"iterations": 40}, {}, "not trained alike: iterations one: 100; two: 40"),
        ({"validations": 50}, {}, "not trained alike: validations one: 5; two: 50"),
        ({"validations": 50}, {}, "The best of more validations is better by chance alone: compare the final weights"),
        ({"training_seconds": 600.0}, {}, "not trained alike: training time one: 60 s; two: 600 s"),
        ({"cpu_seconds": 10.0}, {}, "not trained alike: CPU time of training one: 90 s; two: 10 s"),
        ({"schedule_completed": False}, {}, "learning-rate schedule of two was cut before its end"),
        ({}, {"role": "test", "section": "test"}, "roles, sections or folds (one: validation, fold 0; two: test"),
        ({}, {"fold": 1}, "two: validation, fold 1"),
        ({}, {"checkpoint": "last"}, "Checkpoints differ (one: best; two: last)"),
        ({}, {"biases": ["The rules were chosen on these."]}, "two: The rules were chosen on these."),
    ],
)  # fmt: skip
def test_what_tells_the_runs_apart_is_shown(
    tmp_path: Path, facts: dict[str, Any], scores: dict[str, Any], shown: str
) -> None:
    runs = [write(tmp_path / "one"), write(tmp_path / "two", facts=facts, **scores)]
    assert shown in "\n".join(compare(runs, tmp_path / "out").warnings)
    assert shown in (tmp_path / "out" / "comparison.md").read_text()


def test_weights_that_no_case_chose_are_the_last_ones_whatever_their_file(tmp_path: Path) -> None:
    runs = [write(tmp_path / "one"), write(tmp_path / "two")]
    (runs[1] / "configs").mkdir()
    (runs[1] / "configs" / "train.yaml").write_text("checkpoint: {select: final}\n")
    assert any("Checkpoints differ (one: best; two: last)" in text for text in compare(runs, tmp_path / "out").warnings)


def test_runs_that_are_alike_have_no_warning_and_their_training_is_shown(tmp_path: Path) -> None:
    runs = [write(tmp_path / "one"), write(tmp_path / "two", 0.1, facts={"training_seconds": 63.0})]
    assert compare(runs, tmp_path / "out").warnings == []
    text = (tmp_path / "out" / "comparison.md").read_text()
    assert "| two    |        100 |      – |           5 |          1.05 |     1.50 |              completed |" in text


def test_the_mean_of_the_sentence_is_that_of_the_table(tmp_path: Path) -> None:
    """Label b is in 3 of 12 cases: the mean over cases of each case's mean would be another number."""
    runs = [write(tmp_path / "one"), write(tmp_path / "two", 0.1)]
    content = compare(runs, tmp_path / "out")
    first, second = (run.mean for run in content.runs)
    row = next(row for row in content.comparisons if row.label == "mean")
    assert row.mean_difference == pytest.approx(second - first) == pytest.approx((0.1 + 0.01) / 2)
    assert row.interval[0] <= row.mean_difference <= row.interval[1]
    assert "+0.0550" in (tmp_path / "out" / "comparison.html").read_text()


def test_folds_on_one_test_section_are_not_compared_as_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "cv").mkdir()
    (tmp_path / "cv" / "folds.json").write_text("{}")
    command = ["compare", "--run", str(tmp_path / "cv"), "--run", str(write(tmp_path / "one"))]
    assert main([*command, "--output", str(tmp_path / "out")]) == 3
    assert "has a score per fold on the same cases" in capsys.readouterr().err


def test_names_tell_folders_apart(tmp_path: Path) -> None:
    names = run_names([tmp_path / "one" / "scores" / "test", tmp_path / "two" / "scores" / "test"])
    assert names == ["one/scores/test", "two/scores/test"]
    assert run_names([tmp_path / "one", tmp_path / "two"]) == ["one", "two"]
