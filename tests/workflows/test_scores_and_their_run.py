"""Scores that are not, or no longer, of what a run delivers are told from those that are."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from medseg.bundle.folder import Bundle
from medseg.data.content import content_hash
from medseg.engines.run_facts import RunFacts
from medseg.engines.run_files import is_outdated
from medseg.errors import ConfigError, ModelError
from medseg.metrics import Scores
from medseg.workflows.comparable import differing, read_scored
from medseg.workflows.postprocessing import postprocess
from medseg.workflows.prediction import predict
from medseg.workflows.run_folder import trained_on


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run's weights, scores and facts."""
    folder = tmp_path / "run"
    (folder / "models").mkdir(parents=True)
    (folder / "configs").mkdir()
    (folder / "configs" / "train.yaml").write_text("labels: {labels: {background: 0, a: 1}}\n")
    (folder / "models" / "model.pt").write_bytes(b"weights")
    (folder / "run.json").write_text(json.dumps({"training_cases": ["x"]}))
    write_scores(folder)
    return folder


def write_scores(folder: Path, **facts: Any) -> None:
    made = {"weights_sha256": content_hash(folder / "models" / "model.pt"), "checkpoint": "best", "role": "validation"}
    rows = {"labels": {"a": {"dice": {"mean": 0.5, "cases": 1, "undefined": 0}}}, "cases": {"c": {"a": {"dice": 0.5}}}}
    content = {"mean_dice": 0.5, "space": "source", **rows, **made, **facts}
    (folder / "metrics.json").write_text(json.dumps(content))


def test_scores_of_weights_that_are_gone(run: Path) -> None:
    scores = Scores.read(run)
    unknown = replace(scores, facts=replace(scores.facts, weights_sha256=None))
    assert not is_outdated(run, scores) and not is_outdated(run, unknown)
    (run / "models" / "model.pt").write_bytes(b"others")
    assert is_outdated(run, scores)
    (run / "checkpoints").mkdir()
    (run / "checkpoints" / "last.pt").write_bytes(b"weights")  # of validate --checkpoint last
    assert not is_outdated(run, scores)


@pytest.mark.parametrize(
    ("facts", "sentence"),
    [
        ({"weights_sha256": "0" * 64}, "no longer has the weights that were scored"),
        ({"checkpoint": "last"}, "was scored with checkpoint last"),
        ({"differs_from_training": {"roi_size": [[8], [4]]}}, r"with other settings than its own \(roi_size\)"),
    ],
)
def test_rules_are_chosen_on_what_inference_does(run: Path, facts: dict[str, Any], sentence: str) -> None:
    write_scores(run, **facts)
    with pytest.raises(ConfigError, match=f"{sentence}.*--no_postprocess"):
        postprocess(run)


def test_a_comparison_says_what_was_changed(run: Path) -> None:
    changed = {"differs_from_training": {"roi_size": [[8], [4]]}}
    changed["differs_from_default"] = {"roi_size": [[8], [4]], "overlap": [[0.5], [0.0]]}
    write_scores(run, **changed, weights_sha256="0" * 64)
    (scored,) = read_scored([run])
    said = " ".join(differing([scored], "dice"))
    assert "run was scored with other settings than it was trained with: roi_size." in said
    assert "run was scored with other settings than inference has by default: overlap." in said
    assert "run no longer has the weights that were scored" in said


def test_cases_trained_on_are_known_by_content() -> None:
    data = {"cases": {"x": ["1" * 64, "2" * 64], "v": ["3" * 64, "4" * 64]}}
    facts = RunFacts.from_dict({"training_cases": ["x"], "data": data})
    files = {"renamed": ["1" * 64, "9" * 64], "x": ["5" * 64, "6" * 64], "v": ["3" * 64, "4" * 64]}
    assert trained_on(facts, files) == {"renamed"}
    assert trained_on(RunFacts(training_cases=("x",)), files) == {"x"}  # of an earlier version
    assert trained_on(replace(facts, earlier_images=("3" * 64,)), files) == {"renamed", "v"}


def test_a_comparison_of_pooled_folds_says_what_they_were_trained_on(run: Path) -> None:
    bias = "The run was trained on 1 of these 1 cases: the scores are optimistically biased."
    write_scores(run, biases=[bias])
    (scored,) = read_scored([run])
    assert f"run: {bias}" in differing([scored], "dice")


@pytest.mark.parametrize("place", ["", "predictions"])
def test_predictions_do_not_mix_with_those_that_were_scored(run: Path, place: str) -> None:
    with pytest.raises(ConfigError, match="belongs to the run"):
        predict(run, run / place, inputs=["x.nii.gz"])


def test_a_config_is_the_bundles_own_before_it_is_a_file_here(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(run.parent)
    Path("train.yaml").write_text("{}")
    assert Bundle("run").config("train") == run / "configs" / "train.yaml"
    (run.parent / "cv").mkdir()
    run.rename(run.parent / "cv" / "fold0")
    with pytest.raises(ModelError, match="It holds folds: name one, such as .*cv/fold0"):
        Bundle("cv").recipe("infer")
