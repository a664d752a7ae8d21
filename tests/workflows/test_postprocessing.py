"""Post-processing: chosen where it helps, stored in the bundle, and applied by everything that runs the bundle."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from brightness import label_map, write_cases, write_run

from medseg.bundle.folder import Bundle
from medseg.cli import main
from medseg.errors import ConfigError, DataError
from medseg.metrics import Scores
from medseg.transforms import CleanRule
from medseg.workflows import evaluate, predict
from medseg.workflows.cleanup import add_cleaning, store_rules, stored_rules
from medseg.workflows.cleanup_choice import Pair, choose_rules, dice_by_rule
from medseg.workflows.ensemble import ensemble
from medseg.workflows.folds import evaluate_checkpoints, evaluate_folds
from medseg.workflows.out_of_fold import Fold, raw_scores
from medseg.workflows.postprocessing import postprocess

KEEP = {"organ": {"keep_largest": True}}


@pytest.fixture(scope="module")
def chosen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A validated run whose predictions have far false blobs, with the post-processing that helps."""
    folder = tmp_path_factory.mktemp("blobs")
    run = write_run(folder / "run", write_cases(folder))
    evaluate(run)
    assert main(["postprocess", "--run", str(run), "--debug"]) == 0
    return run


def copied(run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run, tmp_path / "copy"))


def test_what_helps_is_taken_and_nothing_else(chosen: Path) -> None:
    content = json.loads((chosen / "postprocessing.json").read_text())
    assert content["rules"] == KEEP == stored_rules(Bundle(chosen))
    assert content["cases"] == 8
    raw = json.loads((chosen / "metrics.json").read_text())
    assert content["mean_dice"]["before"] == pytest.approx(raw["mean_dice"])
    assert content["mean_dice"]["after"] == 1.0 > content["mean_dice"]["before"]
    assert content["mean_dice"]["interval"][0] > 0
    steps = {json.dumps(step["to"]): step for step in content["labels"]["lesion"]["tried"]}
    assert steps['{"keep_largest": true}']["mean_difference"] < -0.2  # one of two true boxes would go
    assert not any(step["taken"] for step in steps.values())


def test_inference_applies_it_unless_told_not_to(chosen: Path, tmp_path: Path) -> None:
    image = chosen.parent / "case_10_image.nii.gz"
    cleaned, raw = (
        label_map(predict(chosen, tmp_path / name, inputs=[image], device="cpu", postprocess=name == "cleaned")[0])
        for name in ("cleaned", "raw")
    )
    np.testing.assert_array_equal(cleaned, label_map(chosen.parent / "case_10_label.nii.gz"))
    assert np.count_nonzero(raw != cleaned) == 8
    again = predict(chosen, tmp_path / "raw", inputs=[image], device="cpu")  # other post-processing
    np.testing.assert_array_equal(label_map(again[0]), cleaned)


def test_the_stock_command_applies_it(chosen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from monai.bundle import run as stock

    monkeypatch.chdir(copied(chosen, tmp_path))
    stock(config_file="configs/inference.yaml", output_dir=str(tmp_path / "out"))
    made = label_map(next((tmp_path / "out").glob("case_10*")))
    np.testing.assert_array_equal(made, label_map(chosen.parent / "case_10_label.nii.gz"))


def test_validation_scores_what_inference_delivers(chosen: Path, tmp_path: Path) -> None:
    run = copied(chosen, tmp_path)
    content = evaluate(run)
    assert content.mean_dice == 1.0
    assert (content.definition.postprocessing, content.definition.cleanup) == ("cleaned", KEEP)
    assert "chosen on validation cases" in " ".join(content.facts.biases)
    made = predict(run, tmp_path / "out", inputs=[chosen.parent / "case_4_image.nii.gz"], device="cpu")
    scored = run / content.predictions.folder / "case_4_image.nii.gz"
    np.testing.assert_array_equal(label_map(made[0]), label_map(scored))
    with pytest.raises(ConfigError, match="cleaned already.*run `medseg validate --run .* --no_postprocess`"):
        postprocess(run)
    own = [(run / name).read_bytes() for name in ("metrics.json", "metrics_per_case.csv", "run.json")]
    model = evaluate(run, space="model")
    assert (model.definition.postprocessing, model.predictions) == ("raw", None)
    assert Scores.read(run / "scores" / "validation_model") == model
    assert own == [(run / name).read_bytes() for name in ("metrics.json", "metrics_per_case.csv", "run.json")]
    raw = evaluate(run, postprocess=False)
    assert raw.mean_dice < 1 and raw.definition.postprocessing == "raw" and raw.facts.biases == []
    assert postprocess(run).rules == KEEP


def test_rules_are_chosen_on_what_inference_does_by_default(chosen: Path, tmp_path: Path) -> None:
    run = copied(chosen, tmp_path)
    same = {"sw_batch_size": 1, "validate::dataloader::buffer_size": 2, "overlap": 0.5}
    measured = evaluate(run, postprocess=False, device="cpu", metrics=["hd95"], empty="no_penalty", overrides=same)
    assert measured.facts.differs_from_default is None and postprocess(run).rules == KEEP
    evaluate(run, postprocess=False, overrides={"overlap": 0.0, "validate::inferer::mirror_axes": [0]})
    named = r"own \(overlap, validate::inferer::mirror_axes\).*run `medseg validate --run .* --no_postprocess`"
    with pytest.raises(ConfigError, match=named):
        postprocess(run)
    with pytest.raises(ConfigError, match=named):  # as `best` and the cascade read them
        raw_scores(Fold(run, run))


def test_a_protocol_without_post_processing_says_so(chosen: Path, tmp_path: Path) -> None:
    run = copied(chosen, tmp_path)
    (run / "configs" / "plain.yaml").write_text("cleanup: {}\n")
    assert evaluate(run, overlays=["plain"], into="scores/plain").definition.postprocessing == "raw"


def test_rules_are_chosen_on_the_label_maps_that_were_scored(chosen: Path, tmp_path: Path) -> None:
    """An interrupted validation, or another command, has written others since."""
    run = copied(chosen, tmp_path)
    predict(run, tmp_path / "out", inputs=[chosen.parent / "case_4_image.nii.gz"], device="cpu")
    shutil.copyfile(tmp_path / "out" / "case_4_image.nii.gz", run / "predictions" / "case_4_image.nii.gz")
    with pytest.raises(DataError, match="case_4_image.nii.gz is not the label map that metrics.json scored"):
        postprocess(run)


def test_an_ensemble_applies_what_its_members_share(chosen: Path, tmp_path: Path) -> None:
    other = copied(chosen, tmp_path)
    both = ensemble([chosen, other], tmp_path / "both", device="cpu")
    assert both is not None and both.mean_dice == 1.0 and both.definition.cleanup == KEEP
    raw = ensemble([chosen, other], tmp_path / "raw", device="cpu", postprocess=False)
    store_rules(Bundle(other), {"organ": {"min_size": 3.0}})
    differing = ensemble([chosen, other], tmp_path / "differing", device="cpu")
    assert raw is not None and differing is not None
    assert differing.mean_dice == raw.mean_dice < 1
    facts = json.loads((tmp_path / "both" / "run.json").read_text())
    assert facts["network"] == "mean of 2 (Brightness)" and facts["parameters"] == 2


def test_without_benefit_nothing_is_taken_and_nothing_stays(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    run = write_run(tmp_path / "run", write_cases(tmp_path, blobs=False))
    before = (run / "configs" / "inference.yaml").read_text()
    store_rules(Bundle(run), KEEP)
    evaluate(run, postprocess=False)
    assert main(["postprocess", "--run", str(run)]) == 0
    assert "No step is shown to help on 8 cases" in capsys.readouterr().out
    assert (run / "configs" / "inference.yaml").read_text() == before
    assert evaluate(run).definition.postprocessing == "raw"


def test_photographs(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", write_cases(tmp_path, dims=2), dims=2)
    evaluate(run)
    assert postprocess(run).rules == KEEP
    made = predict(run, tmp_path / "out", inputs=[tmp_path / "case_10_image.png"], device="cpu")
    np.testing.assert_array_equal(label_map(made[0]), label_map(tmp_path / "case_10_label.png"))


def test_folds_are_pooled(tmp_path: Path) -> None:
    """Four cases of one fold are too few to show anything, the eight of both are enough."""
    datalist = write_cases(tmp_path, folds=2)
    runs = [write_run(tmp_path / "all" / f"fold{fold}", datalist, fold=fold) for fold in range(2)]
    evaluate_folds(tmp_path / "all")
    assert postprocess(runs[0]).rules == {}
    content = postprocess(tmp_path / "all")
    assert content.cases == 8
    # Nested: the four cases of the other fold choose nothing.
    assert content.mean_dice is not None and content.mean_dice.nested
    assert content.mean_dice.after == content.mean_dice.before < 1
    assert content.rules == KEEP == stored_rules(Bundle(runs[0])) == stored_rules(Bundle(runs[1]))
    facts = json.loads((tmp_path / "all" / "run.json").read_text())
    assert facts["parameters"] == 1 and facts["seconds_per_case"] > 0
    pooled = (tmp_path / "all" / "metrics.json").read_bytes()
    model = evaluate_checkpoints(tmp_path / "all", space="model", checkpoint="all")["best"]
    assert model.definition.space == "model" and (tmp_path / "all" / "metrics.json").read_bytes() == pooled
    assert Scores.read(tmp_path / "all" / "scores" / "validation_model") == model


def test_what_a_case_costs_is_recorded(chosen: Path) -> None:
    facts = json.loads((chosen / "run.json").read_text())
    assert (facts["network"], facts["parameters"]) == ("Brightness", 1)
    # 26 x 24 x 14 voxels padded to 26 x 24 x 16, windows of 16 that overlap by half: 3 x 2 x 1.
    assert facts["windows_per_case"] == 6
    assert facts["multiply_adds_per_window"] == facts["multiply_adds_per_case"] == 0  # it multiplies element by element
    assert 0 < facts["seconds_per_case"] < 10
    assert f"threads: {torch.get_num_threads()}" in facts["measured_on"]


def test_bad_input_gets_a_sentence(chosen: Path, tmp_path: Path) -> None:
    run = copied(chosen, tmp_path)
    with pytest.raises(ConfigError, match="no medseg.transforms.SaveLabelsd, before which"):
        add_cleaning([], {})
    with pytest.raises(ConfigError, match="not a list of transforms"):
        add_cleaning("$[]", {})
    (run / "predictions" / "case_4_image.nii.gz").unlink()
    with pytest.raises(DataError, match="no label map of case_4_image; run `medseg validate"):
        postprocess(run)
    (run / "metrics.json").unlink()
    with pytest.raises(DataError, match="no metrics.json"):
        postprocess(run)


# ---------------------------------------------------------------------- the choice
def test_the_choice_is_greedy_and_needs_the_test() -> None:
    """Two steps help one after the other; one that helps a single case of ten does not count, nor do five cases."""
    rules = [CleanRule(size, keep, fill) for size in (0.0, 10.0) for keep in (False, True) for fill in (False, True)]
    gains = {"min_size": np.full(10, 0.02), "keep_largest": np.full(10, 0.05), "fill_holes": np.eye(10)[0] * 0.9}
    scores = {
        rule: 0.5 + sum((gains[step] for step, value in rule._asdict().items() if value), np.zeros(10))
        for rule in rules
    }
    cases = [f"c{number}" for number in range(10)]
    rule, tried = choose_rules({"organ": scores}, cases)["organ"]
    assert rule == CleanRule(10.0, True, False)
    assert [step.to for step in tried if step.taken] == [
        {"keep_largest": True},
        {"min_size": 10.0, "keep_largest": True},
    ]
    assert all(step.p_value <= 0.05 for step in tried if step.taken)
    five = {rule: values[1:6] for rule, values in scores.items()}
    assert choose_rules({"organ": five}, cases[:5])["organ"][0] == CleanRule()
    sides = [f"s{number // 2}" for number in range(10)]  # ten cases of five subjects
    assert choose_rules({"organ": scores}, sides)["organ"][0] == CleanRule()


def test_useless_rules_are_seldom_taken() -> None:
    """Of 27 useless rules of three labels, tested together, any is taken about once in twenty data sets."""
    rng = np.random.default_rng(7)
    rules = [CleanRule(size, keep, fill) for size in (0.0, 10.0, 30.0, 100.0) for keep in (False, True)
             for fill in (False, True)]  # fmt: skip
    taken = 0
    for _ in range(150):
        scores = {label: {rule: rng.normal(0.8, 0.02, 10) for rule in rules} for label in ("organ", "lesion", "vessel")}
        taken += any(any(rule) for rule, _ in choose_rules(scores, [str(case) for case in range(10)]).values())
    assert taken / 150 <= 0.05 + 3 * (0.05 * 0.95 / 150) ** 0.5


def test_regions_are_judged_together() -> None:
    """Removing a voxel of a label from two nested regions helps one and hurts the other: the mean decides."""
    from medseg.labels import LabelSpace

    table = {"labels": {"background": 0, "rim": 1, "core": 2}, "regions": {"all": ["rim", "core"], "core": ["core"]}}
    space = LabelSpace.from_table({"mode": "sigmoid", **table})
    prediction, reference = np.zeros((12, 12), np.int16), np.zeros((12, 12), np.int16)
    prediction[2:6, 2:6], reference[2:6, 2:6] = 2, 2
    prediction[9, 9], reference[9, 9] = 2, 1  # a pixel of the whole, but not of the core
    dice = dice_by_rule(Pair("x", None, prediction, reference, (1.0, 1.0)), "core", space)
    assert dice[CleanRule()] == pytest.approx((2 * 17 / 34 + 2 * 16 / 33) / 2)
    assert dice[CleanRule(keep_largest=True)] == pytest.approx((2 * 16 / 33 + 2 * 16 / 32) / 2)
    assert dice[CleanRule(min_size=10.0)] == dice[CleanRule(keep_largest=True)]
