"""What is said of the cases on which a checkpoint and rules were chosen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from brightness import write_cases, write_run

from medseg.cli import main
from medseg.engines.run_facts import RunFacts, write_facts
from medseg.metrics import Scores
from medseg.workflows.choices import choices
from medseg.workflows.folds import evaluate_folds

FACTS = RunFacts(validations=12, validation_cases=("a", "b", "c"))


@pytest.mark.parametrize(
    ("config", "facts", "checkpoint", "said"),
    [
        (
            {},
            FACTS,
            "best",
            "Checkpoint best was chosen by 12 validations on 3 validation cases, which are scored here.",
        ),
        ({}, FACTS, "best_iou", "Checkpoint best_iou was chosen by 12 validations on 3 validation cases"),
        ({}, RunFacts(), "best", "Checkpoint best was chosen by a validation on the validation cases"),
        ({}, FACTS, "last", "The final weights are scored: no cases chose them."),
        ({"checkpoint": {"select": "final"}}, FACTS, "best", "The final weights are scored: no cases chose them."),
        ({}, RunFacts(validations=0), "best", "The final weights are scored: no cases chose them."),
    ],
)
def test_the_checkpoint(config: dict[str, Any], facts: RunFacts, checkpoint: str, said: str) -> None:
    (sentence,) = choices(config, facts, checkpoint, cleaned=False, validation=True)
    assert sentence.startswith(said)


def test_rules_and_weights_of_unknown_origin() -> None:
    assert choices({}, FACTS, "/data/own.pt", cleaned=True, validation=False) == [
        "The rules of post-processing were chosen on validation cases."
    ]


def test_scores_of_folds_have_subjects_and_sentences(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two cases a subject, each subject in one fold."""
    datalist = write_cases(tmp_path, folds=2)
    table = json.loads(datalist.read_text())
    for number, entry in enumerate(table["training"]):
        entry |= {"subject": f"s{number // 2}", "fold": number // 2 % 2}
    datalist.write_text(json.dumps(table))
    for fold in range(2):
        write_run(tmp_path / "all" / f"fold{fold}", datalist, fold=fold)
    for fold, facts in enumerate(
        (
            RunFacts(status="finished", iterations=100, schedule_completed=True),
            RunFacts(status="started", iterations=50, schedule_completed=False),
        )
    ):
        write_facts(tmp_path / "all" / f"fold{fold}", facts)
    scores = evaluate_folds(tmp_path / "all", device="cpu")
    assert scores.facts.biases == [
        "The folds were not trained alike: iterations fold0: 100; fold1: 50.",
        "The training is not finished in fold1.",
        "The learning-rate schedule was cut before its end in fold1.",
    ]
    assert isinstance(scores, Scores) and sorted(set(scores.units)) == ["s0", "s1", "s2", "s3"]
    assert scores.facts.chosen is not None and "Checkpoint best was chosen by a validation" in scores.facts.chosen[0]
    assert Scores.read(tmp_path / "all") == scores
    compared = ["compare", "--run", str(tmp_path / "all"), "--run", str(tmp_path / "again"), "--output", str(tmp_path)]
    scores.write(tmp_path / "again")
    assert main(compared) == 0
    out = capsys.readouterr().out
    assert "(no interval and no p of so few) over 8 cases of 4 subjects" in out
    assert "all: Checkpoint best was chosen by a validation on the validation cases" in out
