"""The facts of a run: one reader and one writer, of files of earlier versions too."""

from __future__ import annotations

import json
import math
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from medseg.data.fingerprint import DataFingerprint
from medseg.engines.run_facts import RunFacts, read_facts, write_facts
from medseg.errors import DataError


def test_every_fact_comes_back(tmp_path: Path) -> None:
    kinds = {"str": "a", "int": 3, "float": 0.5, "bool": False, "tuple[str, ...]": ("a", "b")}
    values: dict[str, Any] = {f.name: kinds.get(str(f.type).removesuffix(" | None")) for f in fields(RunFacts)}
    values |= {"versions": {"torch": "2"}, "data": DataFingerprint({"x": ("1", "2")})}
    facts = RunFacts(**values)
    assert None not in vars(facts).values()
    assert RunFacts.from_dict(json.loads(json.dumps(facts.to_dict()))) == facts


def test_later_facts_join_earlier_ones(tmp_path: Path) -> None:
    write_facts(tmp_path, RunFacts(status="started", seed=7, mean_dice=0.5, fitted_to_time=False))
    write_facts(tmp_path, RunFacts(status="finished", mean_dice=math.nan))
    found = read_facts(tmp_path)
    assert (found.status, found.seed, found.fitted_to_time, found.epochs_done) == ("finished", 7, False, None)
    assert found.mean_dice is not None and math.isnan(found.mean_dice)
    assert json.loads((tmp_path / "run.json").read_text())["mean_dice"] is None
    assert found.versions is not None and found.python and found.threads and found.updated


def test_a_file_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    assert read_facts(tmp_path) == RunFacts()
    table = {"training_cases": ["x"], "fitted_validation_cases": None, "wall_seconds": 3.0, "training_seconds": 3}
    (tmp_path / "run.json").write_text(json.dumps(table))
    assert read_facts(tmp_path) == RunFacts(training_cases=("x",), fitted_to_time=True, training_seconds=3)


@pytest.mark.parametrize("wrong", [{"status": 3}, {"training_cases": [3]}, {"versions": {"a": 3}}, {"data": []}])
def test_a_damaged_file_is_named(tmp_path: Path, wrong: dict[str, Any]) -> None:
    (tmp_path / "run.json").write_text(json.dumps(wrong))
    with pytest.raises(DataError, match="run.json.*restore it, or remove it"):
        read_facts(tmp_path)
