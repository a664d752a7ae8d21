"""Comparison of validated runs from their ``metrics.json`` and ``run.json``."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.stats import wilcoxon

from medseg.cli import main
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
    rows = {row.label: row for row in content.comparisons}
    assert rows["a"].cases == 2  # c3 lacks it
    assert rows["a"].mean_difference == pytest.approx(0.1)
    assert rows["mean"].cases == 3
    assert rows["mean"].mean_difference == pytest.approx(0.1)
    assert all(row.p_holm >= row.p_value for row in rows.values())
    assert [entry.mean for entry in content.runs] == pytest.approx([0.6833333, 0.7833333])
    assert content.runs[1].parameters == 20
    assert "better was trained on 1 of the 3 cases" in caplog.text
    assert json.loads((tmp_path / "out" / "comparison.json").read_text())["cases"] == ["c1", "c2", "c3"]
    assert "Only 3 cases" in caplog.text
    assert (tmp_path / "out" / "comparison.csv").read_text().startswith("baseline,run,label,cases,")


def test_the_mean_of_a_case_is_over_labels_that_both_runs_have(tmp_path: Path) -> None:
    """A run that misses a label has no distance there: it must not gain by that."""
    full = _run(tmp_path / "full", {"c1": (0.2, 0.8), "c2": (0.4, 0.6)})
    missing = _run(tmp_path / "missing", {"c1": (None, 0.8), "c2": (0.4, 0.6)})
    rows = {row.label: row for row in compare([full, missing], tmp_path / "out").comparisons}
    assert (rows["a"].cases, rows["mean"].cases) == (1, 2)
    assert rows["mean"].mean_difference == 0


def test_runs_that_cannot_be_compared_are_refused(runs: list[Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="two or more"):
        compare(runs[:1], tmp_path)
    with pytest.raises(DataError, match="no metrics.json"):
        compare([runs[0], tmp_path / "none"], tmp_path)
    other = _run(tmp_path / "other", {"c1": (0.1, 0.1), "c9": (0.1, 0.1)})
    with pytest.raises(DataError, match="different cases .2 only in the first, 1 only in the second."):
        compare([runs[0], other], tmp_path)


@pytest.fixture
def three(tmp_path: Path) -> list[Path]:
    """A baseline, a slightly better and a much worse run on 14 cases, with costs; a name needs escaping."""
    rng = np.random.default_rng(5)
    base = rng.uniform(0.5, 0.8, (14, 2))
    runs = []
    for number, (name, shift) in enumerate([("base", 0.0), ("better<b>", 0.02), ("worse", -0.1)]):
        values = base + shift + rng.normal(0, 0.02, base.shape)
        scores = {f"c{i:02}": (None if i == 3 else float(a), float(b)) for i, (a, b) in enumerate(values)}
        costs = {"parameters": 10 ** (number + 4), "seconds_per_case": 2.0 + number, "peak_memory_bytes": 2**27}
        runs.append(_run(tmp_path / name, scores, network="Net", measured_on=f"machine {number // 2}", **costs))
    return runs


def _differences(first: Path, second: Path, label: str) -> list[float]:
    """Straight from the two files."""
    tables = [json.loads((run / "metrics.json").read_text())["cases"] for run in (first, second)]
    rows = []
    for case in sorted(tables[0]):
        scores = [
            [table[case][name]["dice"] for name in (("a", "b") if label == "mean" else (label,))] for table in tables
        ]
        means = [[v for v in row if v is not None] for row in scores]
        if all(means):
            rows.append(sum(means[1]) / len(means[1]) - sum(means[0]) / len(means[0]))
    return rows


def test_every_figure_agrees_with_an_independent_computation(three: list[Path], tmp_path: Path) -> None:
    """Wilcoxon by scipy, a bootstrap drawn in a plain loop with other numbers, Holm by its definition."""
    content = compare(three, tmp_path / "out")
    by_name = {run.name: run for run in three}
    rng = np.random.default_rng(99)
    p_values = []
    for row in content.comparisons:
        difference = _differences(by_name[row.baseline], by_name[row.run], row.label)
        assert row.cases == len(difference) == (13 if row.label == "a" else 14)
        if row.label == "mean":  # the difference of the means over labels of the means over cases
            per_label = [_differences(by_name[row.baseline], by_name[row.run], label) for label in ("a", "b")]
            assert row.mean_difference == pytest.approx(np.mean([np.mean(values) for values in per_label]))
        else:
            assert row.mean_difference == pytest.approx(sum(difference) / len(difference))
            means = sorted(float(np.mean(rng.choice(difference, len(difference)))) for _ in range(4000))
            width = means[3900] - means[100]
            assert row.interval == pytest.approx((means[100], means[3900]), abs=0.06 * width)
        p_values.append(float(wilcoxon(difference).pvalue))
        assert row.p_value == pytest.approx(p_values[-1])
        positive = [sum(abs(other) < abs(d) for other in difference) + 1 for d in difference if d > 0]  # ranks, no ties
        total = len(difference) * (len(difference) + 1) / 2
        assert row.effect_size == pytest.approx((2 * sum(positive) - total) / total)
    for row, p in zip(content.comparisons, p_values, strict=True):
        # Holm: the largest, over the p-values up to this one, of p times the number of those not smaller.
        steps = [min(1.0, q * sum(other >= q for other in p_values)) for q in p_values if q <= p]
        assert row.p_holm == pytest.approx(max(steps))
    assert {row.run: row.mean_difference > 0 for row in content.comparisons} == {
        "better<b>": True,
        "worse": False,
    }


def test_page_and_figures(three: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert main(["compare", *(f"--run={run}" for run in three), "--output", str(out)]) == 0
    html = (out / "comparison.html").read_text(encoding="utf-8")
    assert "better<b>" not in html and "better&lt;b&gt; minus base" in html
    assert html.count("<svg ") == 2 and "src=" not in html and "<script" not in html
    assert "different machines or threads (base, better&lt;b&gt;: machine 0; worse: machine 1)" in html
    for shown in ("multiply-adds per case, G", "time per case, s", "peak memory, MiB", "128"):
        assert shown in html
    text = (out / "comparison.md").read_text(encoding="utf-8")
    assert capsys.readouterr().out.split("\n\npage:")[0] in text
    row = json.loads((out / "comparison.json").read_text())["comparisons"][0]
    assert f"{row['mean_difference']:+.4f}" in text and f"{row['mean_difference']:+.4f}" in html
    for name in ("differences.png", "costs.png"):
        pixels = np.asarray(Image.open(out / name).convert("L"))
        assert pixels[0].min() == 255 and pixels.min() < 100 and pixels.shape[1] > 800  # light, and not empty


def test_without_costs_there_is_no_figure_of_them(runs: list[Path], tmp_path: Path) -> None:
    for run in runs:
        (run / "run.json").unlink()
    compare(runs, tmp_path / "out")
    assert not (tmp_path / "out" / "costs.png").exists()
    assert (tmp_path / "out" / "differences.png").is_file()
