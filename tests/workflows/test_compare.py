"""Comparison of validated runs from their ``metrics.json`` and ``run.json``."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

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
    assert all(np.isnan([row.p_value, *row.interval]).all() for row in rows.values())  # three cases
    assert [entry.mean for entry in content.runs] == pytest.approx([0.6833333, 0.7833333])
    assert content.runs[1].parameters == 20
    assert "better was trained on 1 of the 3 cases" in caplog.text
    assert json.loads((tmp_path / "out" / "comparison.json").read_text())["cases"] == ["c1", "c2", "c3"]
    assert "Only 3 cases: values alone" in caplog.text
    assert (
        (tmp_path / "out" / "comparison.csv")
        .read_text()
        .startswith("baseline,run,score,label,cases,subjects,mean_difference,interval_low,")
    )


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


def _differences(first: Path, second: Path, label: str) -> np.ndarray:
    """Straight from the two files."""
    one, other = (json.loads((run / "metrics.json").read_text())["cases"] for run in (first, second))
    pairs = [(one[case][label]["dice"], other[case][label]["dice"]) for case in sorted(one)]
    return np.array([math.nan if None in pair else pair[1] - pair[0] for pair in pairs])


def _subsets(differences: np.ndarray) -> np.ndarray:
    """Means over labels of every subset of cases, each case with its share of every label's mean; sorted."""
    known = np.isfinite(differences)
    number = known.sum(axis=0) * known.shape[1]
    sums, weights = (np.where(known, differences, 0) / number).sum(axis=1), (known / number).sum(axis=1)
    means = []
    for subset in range(1, 2 ** len(sums)):
        members = [case for case in range(len(sums)) if subset >> case & 1]
        means.append(sums[members].sum() / weights[members].sum())
    return np.sort(means)


def test_every_figure_agrees_with_an_independent_computation(three: list[Path], tmp_path: Path) -> None:
    """All subsets in a plain loop instead of random ones, ranks by hand, Holm by its definition."""
    content = compare(three, tmp_path / "out")
    by_name = {run.name: run for run in three}
    for row in content.comparisons:
        labels = ("a", "b") if row.label == "mean" else (row.label,)
        columns = [_differences(by_name[row.baseline], by_name[row.run], label) for label in labels]
        table = np.stack(columns, axis=1)
        assert row.cases == np.isfinite(table).any(axis=1).sum() == (13 if row.label == "a" else 14)
        assert row.mean_difference == pytest.approx(np.mean(np.nanmean(table, axis=0)))
        means = _subsets(table[np.isfinite(table).any(axis=1)])
        beyond = min((means <= 0).sum(), (means >= 0).sum())
        assert row.p_value == pytest.approx(min(1, 2 * (1 + beyond) / (1 + len(means))), abs=0.005)
        rank = int(0.025 * (len(means) + 1))
        width = means[-rank] - means[rank - 1]
        assert row.interval == pytest.approx((means[rank - 1], means[-rank]), abs=0.02 * width)
        if row.label == "b":
            difference = columns[0].tolist()
            ranks = [sum(abs(other) < abs(d) for other in difference) + 1 for d in difference if d > 0]  # no ties
            total = len(difference) * (len(difference) + 1) / 2
            assert row.effect_size == pytest.approx((2 * sum(ranks) - total) / total)
    for family in ("primary", "dice"):
        p_values = [row.p_value for row in content.comparisons if row.family == family]
        for row in (row for row in content.comparisons if row.family == family):
            # Holm: the largest, over the p-values up to this one, of p times the number of those not smaller.
            steps = [min(1.0, q * sum(other >= q for other in p_values)) for q in p_values if q <= row.p_value]
            assert row.p_holm == pytest.approx(max(steps))
    assert [row.label for row in content.comparisons] == ["mean"] * 2 + ["a"] * 2 + ["b"] * 2
    assert {row.run: row.mean_difference > 0 for row in content.comparisons if row.primary} == {
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
    assert r"better$<$b$>$" in (out / "comparison.tex").read_text(encoding="utf-8")
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


def _two_sided(folder: Path, shift: float, seed: int, *, subjects: int = 9, **facts: Any) -> Path:
    """Two cases a subject, that go up and down together."""
    rng = np.random.default_rng(seed)
    both = rng.normal(shift, 0.05, subjects).repeat(2) + rng.normal(0, 0.01, 2 * subjects)
    names = [f"s{i}_{side}" for i in range(subjects) for side in ("left", "right")]
    run = _run(folder, {name: (0.7 + value, 0.8 + value / 2) for name, value in zip(names, both, strict=True)}, **facts)
    content = json.loads((run / "metrics.json").read_text())
    content["subjects"] = {name: name.partition("_")[0] for name in names}
    (run / "metrics.json").write_text(json.dumps(content))
    return run


def test_two_sides_of_a_subject_are_one_unit(tmp_path: Path) -> None:
    runs = [_two_sided(tmp_path / "first", 0, 1), _two_sided(tmp_path / "second", 0.02, 2)]
    content = compare(runs, tmp_path / "out", primary="dice:a", margin=0.2)
    (row,) = (row for row in content.comparisons if row.primary)
    assert (row.label, row.cases, row.subjects) == ("a", 18, 9)
    difference = _differences(*runs, "a").reshape(9, 2).mean(axis=1)
    means = _subsets(difference[:, None])
    assert row.interval == pytest.approx((means[11], means[-12]), abs=1e-12)  # the 12th of 511: 2.5 %
    beyond = min((means <= 0).sum(), (means >= 0).sum())
    assert row.p_value == pytest.approx(2 * (1 + beyond) / 512)
    assert row.equivalent and row.non_inferior
    text = (tmp_path / "out" / "comparison.md").read_text()
    assert "over 18 cases of 9 subjects" in text and "Equivalent (90 % interval" in text
    assert "Only 9 subjects" in text and "Each method was trained once" in text
    (tmp_path / "second" / "metrics.json").write_text(
        (tmp_path / "second" / "metrics.json").read_text().replace('"s0_left": "s0"', '"s0_left": "s1"')
    )
    with pytest.raises(DataError, match="second has s0_left as of subject s1, another run as of s0"):
        compare(runs, tmp_path / "out")


def test_several_trainings_of_a_method(tmp_path: Path) -> None:
    """Scores are averaged in each case; beside that, an interval over new trainings, wider where seeds differ."""
    given = [f"{name}={_two_sided(tmp_path / f'{name}{i}', 0.03 * i + shift, 5)}"
             for name, shift in (("base", 0), ("ours", 0.01)) for i in range(2)]  # fmt: skip
    content = compare(given, tmp_path / "out")
    base, ours = content.runs
    assert (base.run, base.seeds, ours.seeds) == ("base", 2, 2)
    assert base.trainings is not None and base.trainings.mean == pytest.approx(base.mean)
    assert base.trainings.seed_means[1] - base.trainings.seed_means[0] == pytest.approx(0.03 * 0.75)
    row = content.comparisons[0]
    assert row.trainings is not None and row.trainings.mean == pytest.approx(row.mean_difference)
    assert row.trainings.high - row.trainings.low > row.interval[1] - row.interval[0]
    assert "Chance of training" in (tmp_path / "out" / "comparison.html").read_text()
    assert "Over new trainings as well" in (tmp_path / "out" / "comparison.md").read_text()
    unequal = compare(given[:3], tmp_path / "unequal")
    assert unequal.comparisons[0].trainings is None and unequal.runs[1].seeds == 1
    assert "different numbers of trainings" in (tmp_path / "unequal" / "comparison.md").read_text()
    with pytest.raises(ConfigError, match="given twice"):
        compare([given[0], given[0]], tmp_path / "out")


def test_what_the_figures_cannot_tell_is_said(tmp_path: Path) -> None:
    cases = {f"c{i:02}": (0.8 + i / 1000, 0.8) for i in range(12)}
    failed = cases | {"c00": (0.05, 0.8), "c01": (0.3, 0.8)}
    content = compare([_run(tmp_path / "one", cases), _run(tmp_path / "two", failed)], tmp_path / "out")
    assert (content.runs[1].failures.hits, content.runs[1].failures.of) == (1, 12)
    assert content.runs[1].failures.high == pytest.approx(0.385, abs=0.001)  # Clopper-Pearson
    warned = " ".join(content.warnings)
    assert "Two subjects (c00, c01) carry 100 % of the differences of two" in warned
    assert "More than 4 % of the cases of two have a label with Dice below 0.1, in fewer than 50 cases" in warned


def test_endpoints_that_do_not_exist_are_refused(runs: list[Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no label 'c'"):
        compare(runs, tmp_path, primary="dice:c")
    with pytest.raises(ConfigError, match="no score 'dices'. Did you mean 'dice'"):
        compare(runs, tmp_path, score="dices")
    with pytest.raises(ConfigError, match="not a valid margin"):
        compare(runs, tmp_path, margin=-0.1)
