"""Comparison of validated runs from their ``metrics.json`` and ``run.json``."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from medseg.errors import ConfigError, DataError
from medseg.workflows.compare import compare


def _run(folder: Path, scores: dict[str, tuple[float | None, float]], **facts: Any) -> Path:
    folder.mkdir()
    cases = {case: {"a": {"dice": a}, "b": {"dice": b}} for case, (a, b) in scores.items()}
    content = {"mean_dice": 0.0, "space": "source", "labels": {"a": {}, "b": {}}, "cases": cases}
    (folder / "metrics.json").write_text(json.dumps(content))
    (folder / "run.json").write_text(json.dumps(facts))
    return folder


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    base = {"c1": (0.5, 0.6), "c2": (0.7, 0.8), "c3": (None, 0.9)}
    better = {"c1": (0.6, 0.7), "c2": (0.8, 0.9), "c3": (None, 1.0)}
    return [
        _run(tmp_path / "base", base, parameters=10, training_cases=["t1"]),
        _run(tmp_path / "better", better, parameters=20, training_cases=["c2"]),
    ]


def test_differences_per_label_and_mean(runs: list[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "medseg"):
        content = compare(runs, tmp_path / "out")
    rows = {row["label"]: row for row in content["comparisons"]}
    assert rows["a"]["cases"] == 2  # c3 lacks it
    assert rows["a"]["mean_difference"] == pytest.approx(0.1)
    assert rows["mean"]["cases"] == 3
    assert rows["mean"]["mean_difference"] == pytest.approx(0.1)
    assert all(row["p_holm"] >= row["p_value"] for row in rows.values())
    assert [entry["mean"] for entry in content["runs"]] == pytest.approx([0.6833333, 0.7833333])
    assert content["runs"][1]["parameters"] == 20
    assert "better was trained on 1 of the 3 cases" in caplog.text
    assert json.loads((tmp_path / "out" / "comparison.json").read_text())["cases"] == ["c1", "c2", "c3"]
    assert (tmp_path / "out" / "comparison.csv").read_text().startswith("baseline,run,label,cases,")


def test_runs_that_cannot_be_compared_are_refused(runs: list[Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="two or more"):
        compare(runs[:1], tmp_path)
    with pytest.raises(DataError, match="no metrics.json"):
        compare([runs[0], tmp_path / "none"], tmp_path)
    other = _run(tmp_path / "other", {"c1": (0.1, 0.1), "c9": (0.1, 0.1)})
    with pytest.raises(DataError, match="different cases .2 only in the first, 1 only in the second."):
        compare([runs[0], other], tmp_path)
