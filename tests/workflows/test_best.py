"""`medseg best`: the choice on out-of-fold cases, its nested score, and inference with what was chosen."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path
from shutil import copytree, rmtree

import nibabel
import numpy as np
import pytest
import torch
from brightness import label_map, write_cases, write_run

from medseg.cli import main
from medseg.data import read_datalist, write_datalist
from medseg.data.phantom import write_phantom
from medseg.engines.run_facts import RunFacts, read_facts, write_facts
from medseg.engines.run_files import is_outdated
from medseg.errors import ConfigError, DataError, ModelError
from medseg.metrics import Scores
from medseg.storage import read_json
from medseg.weights import save_file
from medseg.workflows import predict, train
from medseg.workflows.best import best, winner
from medseg.workflows.comparable import read_scored
from medseg.workflows.ensemble import ensemble
from medseg.workflows.folds import evaluate_folds
from medseg.workflows.joined_runs import joined_runs
from medseg.workflows.scored_predictions import score_predictions
from medseg.workflows.validation import evaluate

_WRONG = 30.0  # of a normalisation that takes organ for background and lesion for organ, with less confidence


@pytest.fixture(scope="module")
def configurations(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two configurations with four folds; the first is right in the even folds, the second in the odd ones."""
    folder = tmp_path_factory.mktemp("folds")
    datalist = write_cases(folder, folds=4, dims=2)
    for name, right in (("first", 0), ("second", 1)):
        for fold in range(4):
            mean = 0.0 if fold % 2 == right else _WRONG
            write_run(folder / name / f"fold{fold}", datalist, dims=2, fold=fold, mean=mean)
        evaluate_folds(folder / name, device="cpu")
    return [folder / "first", folder / "second"]


def test_the_score_of_the_winner_is_biased_and_the_nested_one_is_not(
    configurations: list[Path], tmp_path: Path
) -> None:
    """Of two that are equal on all cases, the one that looks better without a fold is the worse one on it."""
    found = best(configurations, tmp_path / "best", pairs=False, device="cpu")
    assert found.name == "first" and found.mean_dice > 0.4
    assert [fold.name for fold in found.folds] == ["second", "first"] * 2
    assert found.nested.mean < 0.05
    assert (found.cases, found.nested.subjects) == (8, 8)


def test_a_pair_is_joined_fold_by_fold_and_infer_takes_what_is_chosen(
    configurations: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    first, second = configurations
    output = tmp_path / "best"
    assert main(["best", "--run", f"a={first}", "--run", f"b={second}", "--output", str(output), "--debug"]) == 0
    shown = capsys.readouterr().out
    content = json.loads((output / "best.json").read_text())
    assert content["name"] == "a + b" and [fold["name"] for fold in content["folds"]] == ["a + b"] * 4
    assert content["rules"] == {"organ": {"keep_largest": True}}  # the eight cases show it
    assert content["mean_dice"] == content["nested"]["mean"] == 1.0  # so do the six without a fold
    assert f"next: medseg infer --run {output}" in shown and "a + b" in shown
    made = (output / "pairs" / "a + b" / "fold0" / "metrics.json").stat().st_mtime_ns
    best([f"a={first}", f"b={second}"], output, device="cpu")
    assert (output / "pairs" / "a + b" / "fold0" / "metrics.json").stat().st_mtime_ns == made
    (output / "pairs" / "a + b" / "fold1" / "predictions" / "case_3_image.png").unlink()
    with pytest.raises(DataError, match="no label map of case_3_image; remove .*fold1 and run `medseg best` again"):
        best([f"a={first}", f"b={second}"], output, device="cpu")

    image = first.parent / "case_10_image.png"
    given = {"inputs": [image], "device": "cpu"}
    (cleaned,) = predict(output, tmp_path / "cleaned", probabilities="float32", **given)
    np.testing.assert_array_equal(label_map(cleaned), label_map(first.parent / "case_10_label.png"))
    (raw,) = predict(output, tmp_path / "raw", postprocess=False, **given)
    assert np.count_nonzero(label_map(raw) != label_map(cleaned)) == 4
    saved = np.load(tmp_path / "cleaned" / "case_10_image.npz")["probabilities"]
    np.testing.assert_allclose(saved.sum(0), 1.0, atol=1e-5)
    (folds,) = predict(first, tmp_path / "folds", **given)  # two of its four networks are wrong, with less confidence
    np.testing.assert_array_equal(label_map(folds), label_map(raw))
    (kept,) = (tmp_path / "raw" / "provenance" / "origins").glob("*.json")
    assert len(json.loads(kept.read_text())["weights"]) == 8


@pytest.mark.slow
def test_2d_and_3d_meet_in_the_original_image_space(tmp_path: Path) -> None:
    """Configurations of other axes, spacing and patch, on volumes of several spacings and orientations."""
    listed = write_phantom(output=tmp_path / "phantom", cases=2)
    table = read_json(listed)
    for number, entry in enumerate(table["training"]):
        entry |= {"subject": f"s{number}", "fold": number}
    write_datalist(table, listed)
    quick = {
        "network": "SegResNet",
        "json_list": listed,
        "fold": "all",
        "epochs": 1,
        "device": "cpu",
        "tracker": "none",
    }
    common = {"repeats": 2, "batch_size": 1, "val_interval": 2}
    flat = {"roi_size": [32, 32, 1], "preprocess::spacing": [9.0, 9.0, 12.0]}
    deep = {"roi_size": [16, 16, 16], "preprocess::spacing": [14.0, 14.0, 14.0]}
    for name, configuration, own in (("flat", "2d", flat), ("deep", "3d_fullres", deep)):
        train(output=tmp_path / name, configuration=configuration, overrides=common | own, **quick)
        evaluate_folds(tmp_path / name, device="cpu")
    found = best([tmp_path / "flat", tmp_path / "deep"], tmp_path / "best", device="cpu")
    assert {one.name for one in found.candidates} == {"flat", "deep", "flat + deep"} and found.cases == 2

    joined = tmp_path / "best" / "pairs" / "flat + deep" / "fold0" / "predictions"
    for case in read_datalist(listed).split(0)[1]:
        given = {"inputs": [*case.images], "device": "cpu", "probabilities": "float32"}
        of_each = []
        for name in ("flat", "deep"):
            predict(tmp_path / name / "fold0", tmp_path / case.id / name, **given)
            (saved,) = (tmp_path / case.id / name).glob("*.npz")
            of_each.append(np.load(saved)["probabilities"])
        label = label_map(joined / case.output_name())
        assert label.shape == nibabel.load(case.label).shape
        same = [np.mean(label == one.argmax(0).T) for one in (np.mean(of_each, axis=0), *of_each)]
        assert same[0] > 0.999 > max(same[1:])  # of the mean, and of each alone


def test_infer_says_what_no_longer_is_as_chosen(
    configurations: list[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = tmp_path / "with space" / "best"
    found = best(configurations, place, pairs=False, device="cpu")
    content = json.loads((place / "best.json").read_text())
    assert joined_runs(place).runs == tuple((place / member).resolve() for member in found.members)
    assert "other weights" not in caplog.text
    (place / "best.json").write_text(json.dumps(content | {"weights_sha256": ["0" * 64, *found.weights_sha256[1:]]}))
    joined_runs(place)
    assert "1 of 4 runs have other weights than when" in caplog.text and "fold0" in caplog.text
    for members in ([], content["members"][:1], content["members"][:1] * 4):
        (place / "best.json").write_text(json.dumps(content | {"members": members}))
        with pytest.raises(DataError, match=r"best.json is damaged \(. different runs in . entries\)"):
            joined_runs(place)
    (place / "best.json").write_text(json.dumps(content | {"members": [*content["members"][:3], "gone"]}))
    with pytest.raises(ModelError, match="names 4 runs, of which 1 have no weights, such as .*gone"):
        joined_runs(place)


def test_a_lost_fold_is_an_error_where_the_scores_are_of_it_else_a_warning(
    configurations: list[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = copytree(configurations[0], tmp_path / "cv")
    rmtree(run / "fold2")
    with pytest.raises(ModelError, match="cv lacks fold2: its metrics.json is of 4 folds, of which 3 are there"):
        joined_runs(run)
    (run / "metrics.json").unlink()
    assert [folder.name for folder in joined_runs(run).runs] == ["fold0", "fold1", "fold3"]
    assert "has 3 of the 4 folds of its datalist; fold2 is not there" in caplog.text


def test_of_equal_candidates_the_first_is_taken() -> None:
    assert winner([np.full((3, 1), 0.5), np.full((3, 1), 0.5)], ["a", "b", "c"]) == 0
    with pytest.raises(DataError, match="No out-of-fold case has a reference"):
        winner([np.full((3, 1), np.nan)], ["a", "b", "c"])


def test_pairs_are_judged_as_their_members_are(configurations: list[Path], tmp_path: Path) -> None:
    """Of final weights too, by the same rule for empty masks, with settings and weights as they are now."""
    runs = [copytree(run, tmp_path / run.name) for run in configurations]
    folds = [fold for run in runs for fold in sorted(run.glob("fold*"))]
    for fold in folds:  # nothing chose the weights
        write_facts(fold, read_facts(fold) | RunFacts(validations=0))
    output = tmp_path / "best"
    assert best([f"a/b={runs[0]}", f"a_b={runs[1]}"], output, device="cpu").name == "a/b + a_b"
    place = output / "pairs" / "a%2Fb + a_b" / "fold0"
    pair, single = Scores.read(place), Scores.read(folds[0])
    assert pair.definition.differences(single.definition) == {} and pair.definition.empty == "penalty"
    assert {run.checkpoint for run in read_scored([place, folds[0]])} == {"last"}
    made = (place / "metrics.json").stat().st_mtime_ns
    for fold in folds[:4]:
        path = fold / "configs" / "inference.yaml"
        path.write_text(re.sub("(?m)^overlap: .*", "overlap: 0.125", path.read_text()))
    again = best([f"a/b={runs[0]}", f"a_b={runs[1]}"], output, device="cpu", pairs=True)
    assert again.name == "a/b + a_b" and (place / "metrics.json").stat().st_mtime_ns != made


def test_what_was_chosen_is_what_infer_joins(configurations: list[Path], tmp_path: Path) -> None:
    """Pairs are judged without the temperatures of `medseg calibrate`, and joined without them."""
    runs = [copytree(run, tmp_path / run.name) for run in configurations]
    for fold in runs[1].glob("fold*"):
        path = fold / "configs" / "inference.yaml"
        path.write_text(path.read_text() + "temperature: 100.0\n")
    output = tmp_path / "best"
    found = best(runs, output, device="cpu")
    assert found.name == "first + second"
    given = {"inputs": [configurations[0].parent / "case_10_image.png"], "device": "cpu"}
    (label,) = predict(output, tmp_path / "maps", **given)
    np.testing.assert_array_equal(label_map(label), label_map(configurations[0].parent / "case_10_label.png"))
    (origin,) = (tmp_path / "maps" / "provenance" / "origins").glob("*.json")
    assert json.loads(origin.read_text())["settings"]["temperatures"] == []
    with pytest.raises(ConfigError, match="would be joined 4 times"):
        predict(runs[0], tmp_path / "one", checkpoint=str(runs[0] / "fold0" / "models" / "model.pt"), **given)


def test_scores_of_folds_are_outdated_with_one_of_them(configurations: list[Path], tmp_path: Path) -> None:
    run = copytree(configurations[0], tmp_path / "cv")
    assert not is_outdated(run, Scores.read(run))
    weights = run / "fold0" / "models" / "model.pt"
    save_file({name: 1.01 * value for name, value in torch.load(weights, weights_only=True).items()}, weights)
    assert is_outdated(run, Scores.read(run))  # trained again
    evaluate(run / "fold0", device="cpu")
    assert is_outdated(run, Scores.read(run))  # and scored
    evaluate_folds(run, device="cpu")
    assert not is_outdated(run, Scores.read(run))
    assert not is_outdated(run / "scores" / "last", Scores.read(run))  # of a folder that holds no folds


def test_runs_are_not_written_into(configurations: list[Path], tmp_path: Path) -> None:
    run = copytree(configurations[0], tmp_path / "cv")
    before = (run / "fold0" / "metrics.json").read_bytes()
    folds = [run / "fold0", run / "fold1"]
    for output in (run, run / "fold0", run / "fold0" / "predictions"):
        for command in (
            lambda output=output: ensemble(folds, output, device="cpu"),
            lambda output=output: best(configurations, output, device="cpu"),
            lambda output=output: predict(run, output, inputs=[run], device="cpu"),
            lambda output=output: score_predictions(run, {"a": run}, run / "list.json", output),
        ):
            with pytest.raises(ConfigError, match="belongs to the run .* itself; name a folder of its own"):
                command()
    assert (run / "fold0" / "metrics.json").read_bytes() == before
    rmtree(run / "fold2")
    with pytest.raises(ModelError, match="cv lacks fold2"):
        best([run, configurations[1]], tmp_path / "out", device="cpu")
    for weights in ([math.nan, 1], [math.inf, 1], [0, 0], [-1, 2]):
        with pytest.raises(ConfigError, match="expected one each, some positive"):
            ensemble(folds, tmp_path / "joined", weights=weights, device="cpu")


def test_bad_input_gets_a_sentence(configurations: list[Path], tmp_path: Path) -> None:
    first, second = configurations
    folds = [second / f"fold{fold}" for fold in range(4)]
    with pytest.raises(ConfigError, match="There is one configuration, first"):
        best([first], tmp_path / "out")
    with pytest.raises(ConfigError, match="b has one fold"):
        best([first, f"b={folds[0]}"], tmp_path / "out")
    copytree(folds[0], tmp_path / "copy" / "fold0")
    with pytest.raises(ConfigError, match="copy/fold0 has the weights and settings of .*second/fold0: it is a copy"):
        best([second, f"b={tmp_path / 'copy' / 'fold0'}", *(f"b={fold}" for fold in folds[1:])], tmp_path / "out")
    with pytest.raises(ConfigError, match="belongs to the run .*first itself"):
        best([first, second], first)
    with pytest.raises(DataError, match="were validated on different cases"):
        best([first, *(f"b={fold}" for fold in reversed(folds))], tmp_path / "out")
    scores, facts = Scores.read(folds[0]), read_facts(folds[0])
    one_subject = replace(scores, facts=replace(scores.facts, subjects=dict.fromkeys(scores.cases, "case_3_image")))
    try:
        (folds[0] / "metrics.json").unlink()
        with pytest.raises(DataError, match="has no metrics.json, so no validation predictions; run `medseg validate"):
            best([first, second], tmp_path / "out")
        one_subject.write(folds[0])
        with pytest.raises(DataError, match="Subject case_3_image is in two folds"):
            best([first, second], tmp_path / "out")
        scores.write(folds[0])
        write_facts(folds[0], replace(facts, training_cases=tuple(scores.cases)))
        with pytest.raises(DataError, match="was trained on 2 of the 2 cases"):
            best([first, second], tmp_path / "out")
    finally:
        scores.write(folds[0])
        write_facts(folds[0], facts)
