"""The command's path from ``metrics.json`` to the comparison against the evaluation set."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from full_set import FULL_SET

from medseg.metrics.estimate import estimate
from medseg.metrics.scores import Scores
from medseg.workflows.compare import compare

pytestmark = pytest.mark.usefixtures("full_set")


@pytest.fixture(scope="module")
def golden() -> dict[str, Any]:
    content: dict[str, Any] = json.loads((FULL_SET / "evaluation" / "statistics.json").read_text())
    return content


def write(folder: Path, scores: Any, subjects: list[str] | None = None) -> Path:
    """A run with scores ``(cases, labels)``."""
    table = np.atleast_2d(np.array(scores, dtype=float).T).T
    labels = [f"label{column}" for column in range(table.shape[1])]
    names = [f"case{row:03}" for row in range(len(table))]
    cases = {
        name: {label: {"dice": None if np.isnan(v) else v} for label, v in zip(labels, row, strict=True)}
        for name, row in zip(names, table.tolist(), strict=True)
    }
    content = {"mean_dice": 0.0, "labels": dict.fromkeys(labels, {}), "cases": cases}
    content["subjects"] = dict(zip(names, map(str, subjects or names), strict=True))
    folder.mkdir()
    (folder / "metrics.json").write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize(
    "name",
    ["independent_20", "two_each_10", "mixed_9", "six", "zeros_and_ties_12", "all_equal_8", "five", "one_missing"],
)
def test_a_pair(golden: dict[str, Any], tmp_path: Path, name: str) -> None:
    case = golden["paired"][name]
    expected = case["expected"]
    runs = [write(tmp_path / key, case[key], case["subject"]) for key in ("first", "second")]
    row = next(row for row in compare(runs, tmp_path / "out").comparisons if row.primary)
    assert (row.cases, row.subjects) == (expected["cases"], expected["subjects"])
    assert row.mean_difference == pytest.approx(expected["mean_difference"], abs=1e-12)
    few, exact = expected["subjects"] < 6, expected["subjects"] <= 12
    p_value = np.nan if few else expected["signflip_p_exact"]
    near = pytest.approx((p_value,) * 2, abs=1e-8 if exact else 0.005, nan_ok=True)
    assert (row.p_value, row.p_holm) == near  # a single pair: Holm changes nothing
    bounds = np.array(expected["signflip_interval_95"], dtype=float)
    tolerance = expected.get("signflip_interval_tolerance", 1e-8)
    assert row.interval == pytest.approx(tuple(bounds), abs=tolerance, nan_ok=True)
    found, alone = estimate(Scores.read(runs[1])).score, case["second_alone"]
    assert (found.mean, found.subjects) == (pytest.approx(alone["mean"], abs=1e-12), alone["subjects"])
    bounds = np.array(alone.get("bootstrap_t_95", [None, None]), dtype=float)
    tolerance = alone.get("bootstrap_t_tolerance", 0)
    assert (found.low, found.high) == pytest.approx(tuple(bounds), abs=tolerance, nan_ok=True)


def test_mean_over_labels(golden: dict[str, Any], tmp_path: Path) -> None:
    case = golden["labels"]
    runs = [write(tmp_path / key, case[key], case["subject"]) for key in ("first", "second")]
    content = compare(runs, tmp_path / "out")
    row, expected = next(row for row in content.comparisons if row.primary), case["difference"]
    assert row.label == "mean" and row.mean_difference == pytest.approx(expected["mean"], abs=1e-12)
    assert row.p_value == pytest.approx(expected["signflip_p_exact"], abs=1e-8)
    assert row.interval == pytest.approx(tuple(expected["signflip_interval_95"]), abs=1e-8)
    assert Scores.read(runs[1]).labels.keys() == {"label0", "label1", "label2"}
    assert estimate(Scores.read(runs[1])).score.mean == pytest.approx(case["second_alone"]["mean"], abs=1e-12)


def test_several_trainings(golden: dict[str, Any], tmp_path: Path) -> None:
    case = golden["seeds"]
    columns = np.array(case["scores"], dtype=float).T
    given = [f"method={write(tmp_path / f'seed{i}', scores)}" for i, scores in enumerate(columns)]
    content = compare([write(tmp_path / "other", columns[0]), *given], tmp_path / "out")
    found = content.runs[1].trainings
    assert found is not None and content.runs[1].seeds == len(columns)
    assert (content.runs[1].mean, found.mean) == pytest.approx((case["mean"],) * 2, abs=1e-12)
    assert found.seed_means == pytest.approx(case["seed_means"], abs=1e-8)
    assert (found.standard_error, found.degrees) == pytest.approx((case["se_crossed"], case["df_crossed"]), abs=1e-8)
