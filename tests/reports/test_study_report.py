"""Tables and figures of a study say what was found: planted results come back in every form."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from medseg.metrics.ranking import average_ranks, rank_stability
from medseg.reports.studied import (
    Costs,
    StudiedData,
    StudiedExternal,
    StudiedMethod,
    StudyDifference,
    StudyResult,
)
from medseg.reports.study import study_markdown, write_study
from medseg.reports.study_charts import _cliques, critical_difference_figure
from medseg.reports.study_methods import _named
from medseg.reports.tables import latex_table

NAMES = ("base_line", "better", "worse")


def result(methods: int = 3, energy: float | None = None) -> StudyResult:
    names = NAMES[:methods]
    draw = np.random.default_rng(0)
    table = draw.normal(0, 0.02, (methods, 12)) + np.array([0.8, 0.95, 0.5])[:methods, None]
    costs = Costs(2, iterations=1200, cpu_seconds=60, parameters=2.5e6, energy_joules=energy)
    found = [
        StudiedMethod(name, float(row.mean()), (0.1, 0.9), 0.012, {"liver": 0.7}, 0, [0.01], costs)
        for name, row in zip(names, table, strict=True)
    ]
    one = StudiedData(
        name="toy",
        cases=14,
        subjects=12,
        seeds=2,
        folds=2,
        transfer=None,
        methods=found,
        differences=[StudyDifference(name, 0.1, (0.05, 0.15), 0.0004, 0.0008) for name in names[1:]],
        stability=rank_stability(table),
        average=average_ranks(table) if methods > 2 else None,
        warnings=["Only 12 subjects."],
    )
    outside = StudiedExternal("kits", "toy", 3, dict.fromkeys(names, 0.5), dict.fromkeys(names, 0.1), 2)
    return StudyResult("dice", [one], [outside], ["We trained <three> networks."], ["runs/toy/x: disk full"])


def test_a_study_is_written_in_every_form(tmp_path: Path) -> None:
    write_study(result(), tmp_path)
    figures = {path.name for path in (tmp_path / "figures").iterdir()}
    assert figures == {f"{name}.{kind}" for name in ("forest", "ranks", "critical_difference")
                       for kind in ("png", "svg", "pdf")}  # fmt: skip
    page = (tmp_path / "study.html").read_text()
    assert "We trained &lt;three&gt; networks." in page and "Not done: runs/toy/x: disk full" in page
    assert "toy: better has the best mean Dice" in page and "not measured" in page
    rows = list(csv.DictReader((tmp_path / "study.csv").open(newline="")))
    assert [row["method"] for row in rows] == [*NAMES, *NAMES] and rows[0]["parameters"] == "2500000.0"
    stored = json.loads((tmp_path / "study.json").read_text())
    assert np.shape(stored["data"][0]["stability"]["shares"]) == (3, 3)
    written = (tmp_path / "study.tex").read_text()
    assert r"\textbf{0.9" in written and r"base\_line" in written and written.count("{") == written.count("}")
    before = {path.name: path.read_bytes() for path in (tmp_path / "figures").iterdir()}
    write_study(result(), tmp_path)
    assert {path.name: path.read_bytes() for path in (tmp_path / "figures").iterdir()} == before


def test_an_external_set_that_was_trained_on_is_told() -> None:
    fresh = result()
    assert "3 cases that no training saw, mean Dice" in study_markdown(fresh)
    (outside,) = fresh.external
    text = study_markdown(replace(fresh, external=[replace(outside, biases=["better: trained on 1 of 3."])]))
    assert "3 cases, mean Dice" in text and "Warning: kits: better: trained on 1 of 3." in text


def test_two_methods_have_no_critical_difference(tmp_path: Path) -> None:
    assert critical_difference_figure(result(2).data) is None
    write_study(result(2, energy=7200.0), tmp_path)
    text = study_markdown(result(2, energy=7200.0))
    assert "2.00" in text and "not measured" not in text and "< 0.001" in text


@pytest.mark.parametrize(
    ("ranks", "difference", "bars"),
    [
        ([1.0, 2.0, 3.0], 0.5, []),
        ([1.0, 1.4, 3.0], 0.5, [(1.0, 1.4)]),
        ([1.0, 2.0, 3.0], 1.0, [(1.0, 2.0), (2.0, 3.0)]),
        ([1.0, 2.0, 3.0], 5.0, [(1.0, 3.0)]),
    ],
)
def test_a_bar_joins_what_differs_by_less(
    ranks: list[float], difference: float, bars: list[tuple[float, float]]
) -> None:
    assert _cliques(np.array(ranks), difference) == bars


def test_the_best_is_bold() -> None:
    table = latex_table(["a", "b"], [["x", "1"]], bold=frozenset({(0, 1)}))
    assert re.search(r"\\toprule\na & b \\\\\n\\midrule\nx & \\textbf\{1\} \\\\\n\\bottomrule", table)


def test_methods_name_few_and_sum_up_many() -> None:
    assert _named({"a": ["x", "y"], "b": ["z"]}) == {"b": "z", "a": "x, y"}
    assert _named({"a": list("vwxyz"), "b": ["u"]}) == {"b": "u", "a": "the others"}
