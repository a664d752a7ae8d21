"""Which cases are scored, wherever the choice came from: test scores never pass for validation scores."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from brightness import write_cases, write_run

from medseg.bundle import dump_yaml
from medseg.cli import main
from medseg.errors import ConfigError, DataError
from medseg.metrics import Scores
from medseg.workflows import evaluate
from medseg.workflows.ensemble import ensemble
from medseg.workflows.evaluation import EvaluateSettings
from medseg.workflows.folds import evaluate_checkpoints, evaluate_folds
from medseg.workflows.postprocessing import postprocess

CASES = {
    "_target_": "medseg.workflows.cases",
    "json_list": "@json_list",
    "dataset_dir": "@dataset_dir",
    "fold": "@fold",
    "section": "test",
}
DATA = "validate::dataset::data"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A validated run whose test section has a label, and overlays that score that section."""
    folder = tmp_path_factory.mktemp("selection")
    run = write_run(folder / "run", write_cases(folder, validation=2, labelled_test=True))
    write_overlays(run)
    evaluate(run)
    return run


@pytest.fixture
def run(source: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(source, tmp_path / "run"))


def write_overlays(run: Path) -> None:
    (run / "configs" / "by_section.yaml").write_text("section: test\n")
    dump_yaml({DATA: CASES}, run / "configs" / "by_cases.yaml")


WAYS: dict[str, dict[str, Any]] = {
    "option": {"section": "test"},
    "overlay": {"overlays": ["by_section"]},
    "override": {"overrides": {"section": "test"}},
    "cases in an overlay": {"overlays": ["by_cases"]},
    "cases in an override": {"overrides": {DATA: CASES}},
}


@pytest.mark.parametrize("way", WAYS)
def test_test_scores_are_kept_apart(run: Path, way: str) -> None:
    files = {name: (run / name).read_bytes() for name in ("metrics.json", "run.json", "metrics_per_case.csv")}
    content = evaluate(run, **WAYS[way])
    assert (content.facts.role, content.facts.section, list(content.cases)) == ("test", "test", ["case_4_image"])
    assert json.loads((run / "scores" / "test" / "metrics.json").read_text())["role"] == "test"
    assert (run / "scores" / "test" / content.predictions.folder / "case_4_image.nii.gz").is_file()
    assert not (run / "predictions" / "case_4_image.nii.gz").exists()
    assert {name: (run / name).read_bytes() for name in files} == files
    with pytest.raises(ConfigError, match="--checkpoint all on 1 test cases would choose the model on these cases"):
        evaluate_checkpoints(run, checkpoint="all", **WAYS[way])


def test_scores_state_what_they_are_of(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", "--run", str(run), "--tolerance", "2"]) == 0
    content = json.loads((run / "metrics.json").read_text())
    known = {key: content[key] for key in ("section", "role", "fold", "checkpoint", "postprocessing", "space", "unit")}
    assert known == {
        "section": "validation", "role": "validation", "fold": None, "checkpoint": "best", "postprocessing": "raw",
        "space": "source", "unit": "mm",
    }  # fmt: skip
    assert list(content["metrics"]) == ["dice", "hd95", "surface_dice_at_2"] and content["empty"] == "penalty"
    assert content["targets"] == {"": {"organ": [1], "lesion": [2]}}
    assert content["predictions"]["folder"] == "predictions"
    printed = capsys.readouterr().out.splitlines()[0]
    for words in ("2 cases (validation)", "checkpoint best", "raw predictions in predictions", "surface Dice at 2 mm"):
        assert words in printed


def test_an_option_does_not_lose_against_an_overlay_in_silence(run: Path) -> None:
    assert evaluate(run, section="validation", overlays=["by_section"]).facts.role == "validation"
    with pytest.raises(ConfigError, match="--section validation: .*names other cases itself"):
        evaluate(run, section="validation", overlays=["by_cases"])
    with pytest.raises(DataError, match="no section 'tset'. Did you mean 'test'?"):
        evaluate(run, section="tset")
    (run / "configs" / "onto.yaml").write_text('section: test\nscore_dir: "@bundle_root"\n')
    with pytest.raises(ConfigError, match="has the scores of validation cases .*, which those of 1 test cases would"):
        evaluate(run, overlays=["onto"])


def test_cases_without_labels_are_refused_in_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path / "run", write_cases(tmp_path, validation=2))
    write_overlays(run)
    for way in (["--section", "test"], ["--overlay", "by_section"], ["--overlay", "by_cases"]):
        assert main(["validate", "--run", str(run), *way]) == 3
        assert "1 of 1 cases of" in (said := capsys.readouterr().err) and "have no label (case_4_image)" in said


def test_the_training_cases_and_other_lists_are_no_validation(run: Path, source: Path, tmp_path: Path) -> None:
    content = evaluate(run, section="training")
    assert content.facts.role == "training" and "trained on 2 of these 2 cases" in content.facts.biases[0]
    own = json.loads((run / "configs" / "datalist.json").read_text())
    same = tmp_path / "same.json"  # the run's own validation cases by another list
    same.write_text(json.dumps(own))
    where = {"json_list": str(same), "dataset_dir": str(source.parent)}
    assert EvaluateSettings(run, overrides=where).selection().role == "validation"
    data = tmp_path / "data"
    data.mkdir()
    where = {"json_list": str(write_cases(data, validation=1, labelled_test=True)), "dataset_dir": str(data)}
    before = (run / "metrics.json").read_bytes()
    content = evaluate(run, overrides=where)
    assert (content.facts.role, content.facts.section) == ("external", "validation")
    assert (run / "scores" / "external_bright_validation" / "metrics.json").is_file()
    assert (run / "metrics.json").read_bytes() == before
    where["json_list"] = str(tmp_path / "mixed.json")  # a case of the run's training
    Path(where["json_list"]).write_text(
        json.dumps(own | {"training": own["training"][1:], "validation": own["training"][:1]})
    )
    mixed = EvaluateSettings(run, overrides=where | {"dataset_dir": str(source.parent)}).selection()
    assert (mixed.role, mixed.seen) == ("training", 1)  # what the list calls validation


@pytest.mark.parametrize("way", ["overlay", "cases in an overlay"])
def test_folds_on_one_test_section_are_several_scores(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], way: str
) -> None:
    datalist = write_cases(tmp_path, validation=4, folds=2, labelled_test=True)
    for fold in range(2):
        write_overlays(write_run(tmp_path / "cv" / f"fold{fold}", datalist, fold=fold))
    pooled = evaluate_folds(tmp_path / "cv")
    assert len(pooled.cases) == 4 == pooled.asked == pooled.scored and pooled.facts.role == "validation"
    assert pooled == Scores.read(tmp_path / "cv") and pooled.facts.folds == ["fold0", "fold1"]
    before = (tmp_path / "cv" / "metrics.json").read_bytes()
    command = ["validate", "--run", str(tmp_path / "cv"), "--overlay", WAYS[way]["overlays"][0]]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "2 scores on the same cases, not pooled (fold0: " in printed and "standard deviation 0.0000" in printed
    content = json.loads((tmp_path / "cv" / "scores" / "test" / "folds.json").read_text())
    each = [
        json.loads((tmp_path / "cv" / f"fold{k}" / "scores" / "test" / "metrics.json").read_text()) for k in range(2)
    ]
    assert content["folds"] == {f"fold{k}": each[k]["mean_dice"] for k in range(2)}
    assert content["mean_dice"] == pytest.approx(sum(content["folds"].values()) / 2)
    assert not (tmp_path / "cv" / "scores" / "test" / "metrics.json").exists()
    assert (tmp_path / "cv" / "metrics.json").read_bytes() == before
    assert main([*command, "--checkpoint", "all"]) == 2


def forged(**facts: Any) -> Callable[[Path], None]:
    def change(run: Path) -> None:
        content = json.loads((run / "metrics.json").read_text())
        (run / "metrics.json").write_text(json.dumps(content | facts))

    return change


def with_old_test_scores(run: Path) -> None:
    """What an earlier version left: the scores of the test section in the place of the run's own."""
    content = json.loads((run / "metrics.json").read_text())
    case = next(iter(content["cases"].values()))
    old = {key: content[key] for key in ("mean_dice", "space", "labels", "pooled")}
    (run / "metrics.json").write_text(json.dumps(old | {"cases": {"case_4_image": case}}))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (with_old_test_scores, "has scores of test cases, which give no weights"),
        (forged(role="external"), "has scores of external cases, which give no weights"),
        (forged(weights_sha256="0", checkpoint="last"), "scores of other weights .checkpoint last. than are joined"),
        (forged(cleanup={"organ": {"keep_largest": True}}), "scored in different ways .post-processing."),
        (forged(include_background=True), "scored in different ways .whether the background is scored."),
    ],
)
def test_only_like_validation_scores_weigh_an_ensemble(
    run: Path, source: Path, tmp_path: Path, change: Callable[[Path], None], sentence: str
) -> None:
    change(run)
    with pytest.raises(ConfigError, match=sentence):
        ensemble([source, run], tmp_path / "out", weights="dice", device="cpu")


def test_rules_are_chosen_on_validation_cases_alone(run: Path) -> None:
    with_old_test_scores(run)
    with pytest.raises(DataError, match="has scores of test cases, on which nothing may be chosen"):
        postprocess(run)


def test_scores_are_kept_where_all_that_they_come_from_is_equal(run: Path, source: Path) -> None:
    def made_again(**settings: Any) -> bool:
        path = run / "scores" / "kept" / "metrics.json"
        before = path.stat().st_mtime_ns if path.is_file() else 0
        evaluate(run, into="scores/kept", reuse=True, **settings)
        return path.stat().st_mtime_ns != before

    assert made_again() and not made_again()
    shutil.copy(run / "models" / "model.pt", run / "models" / "newer.pt")
    (run / "models" / "newer.pt").replace(run / "models" / "model.pt")  # newer, and the same
    assert not made_again()
    assert made_again(tolerance=2.0) and not made_again(tolerance=2.0)
    case = source.parent / "case_2_label.nii.gz"
    content = case.read_bytes()
    try:
        shutil.copyfile(source.parent / "case_3_label.nii.gz", case)
        assert made_again(tolerance=2.0)
    finally:
        case.write_bytes(content)
