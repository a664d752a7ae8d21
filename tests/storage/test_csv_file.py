"""CSV files open in spreadsheets, which run what begins like a formula."""

from __future__ import annotations

import ast
import csv
import io
from pathlib import Path

import pytest

import medseg
from medseg.metrics import ScoreDefinition, ScoreFacts, Scores
from medseg.storage.csv_file import CsvWriter


def written(row: object, **form: object) -> list[str]:
    file = io.StringIO()
    CsvWriter(file, **form).writerow(row)
    return next(csv.reader(io.StringIO(file.getvalue(), newline="")))


@pytest.mark.parametrize(
    "text",
    ["=1+1", "+1+1", "-1+1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "=HYPERLINK(\"x\")", "-", "+", "--5", "-0.5 ", "＝1"],
)  # fmt: skip
def test_a_formula_becomes_text(text):
    assert written([text, "b"]) == [f"'{text}", "b"]


@pytest.mark.parametrize("value", ["-0.5", "+3", "-1e-05", "-inf", "nan", "case-1", "a=b", "", "1 5 7 2", "'=1"])
def test_anything_else_stays(value):
    assert written([value]) == ([value] if value else [""])


def test_numbers_and_mappings():
    assert written([-0.5, 3, None]) == ["-0.5", "3", ""]
    assert written({"b": "=1", "a": -2, "c": 3}, columns=("a", "b", "d")) == ["-2", "'=1", ""]


def test_scores_of_a_case_with_such_a_name(tmp_path: Path) -> None:
    cases = {"=cmd|' /C calc'!A0": {"@liver": {"dice": 0.5}}}
    Scores.of(cases, ScoreDefinition(), ScoreFacts(section=None, fold=None)).write(tmp_path)
    rows = list(csv.reader((tmp_path / "metrics_per_case.csv").open(newline="")))
    assert rows[1][:2] == ["'=cmd|' /C calc'!A0", "'@liver"]


def test_nothing_writes_csv_by_itself() -> None:
    for path in Path(medseg.__file__).parent.rglob("*.py"):
        found = [ast.unparse(node) for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)]
        assert path.name == "csv_file.py" or not {"csv.writer", "csv.DictWriter"} & set(found), path
