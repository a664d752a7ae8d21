"""Calibration: a temperature that makes sure networks as sure as they are right, stored and applied."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from brightness import STEP, label_map, write_cases, write_run
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from medseg.bundle.folder import Bundle
from medseg.cli import main
from medseg.reports import write_report
from medseg.reports.calibrated import Calibration
from medseg.transforms.probability_file import read_probabilities
from medseg.weights import save_file
from medseg.workflows import evaluate, predict
from medseg.workflows.calibration import calibrate
from medseg.workflows.ensemble import ensemble
from medseg.workflows.probabilities import stored_temperature

SHARPNESS = 12.0  # of a network that is too sure


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on noisy images: value = label plus noise, so that the best weight of the squared distance is known."""
    folder = tmp_path_factory.mktemp("noisy")
    datalist = write_cases(folder, validation=8, blobs=False)
    rng = np.random.default_rng(0)
    for path in folder.glob("*_image.nii.gz"):
        image = nibabel.load(path)
        noisy = np.asarray(image.dataobj) + rng.normal(0, 0.35 * STEP, image.shape)
        nibabel.save(nibabel.Nifti1Image(noisy.astype(np.float32), image.affine), path)
    made = write_run(folder / "run", datalist)
    save_file({"sharpness": torch.tensor(SHARPNESS)}, made / "models" / "model.pt")
    return made


@pytest.fixture(scope="module")
def calibrated(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run, calibrated by the command."""
    folder = Path(shutil.copytree(run.parent, tmp_path_factory.mktemp("calibrated") / "data"))
    assert main(["calibrate", "--run", str(folder / "run"), "--device", "cpu", "--debug"]) == 0
    return folder / "run"


def test_the_temperature_is_that_of_the_largest_likelihood(run: Path, calibrated: Path) -> None:
    logits, labels = [], []
    for number in range(2, 10):  # an independent computation from the images
        x = np.asarray(nibabel.load(run.parent / f"case_{number}_image.nii.gz").dataobj).ravel() / STEP
        logits.append(-SHARPNESS * (np.clip(x, 0, 10)[None] - np.arange(3)[:, None]) ** 2)
        labels.append(label_map(run.parent / f"case_{number}_label.nii.gz").ravel())
    table, index = np.concatenate(logits, axis=1), np.concatenate(labels)

    def loss(temperature: float) -> float:
        return float(-np.take_along_axis(log_softmax(table / temperature, 0), index[None].astype(int), 0).mean())

    content = json.loads((calibrated / "calibration.json").read_text())
    expected = minimize_scalar(loss, bounds=(0.5, 20), method="bounded").x
    assert content["temperature"] == pytest.approx(expected, rel=1e-3)
    assert content["temperature"] == stored_temperature(Bundle(calibrated)) > 2
    before, after = content["before"], content["after"]
    assert before["nll"]["mean"] == pytest.approx(loss(1), rel=1e-3)
    assert after["nll"]["mean"] == pytest.approx(loss(expected), rel=1e-3)
    for score in ("ece", "ece_foreground", "brier", "nll"):
        assert after[score]["mean"] < before[score]["mean"]
        assert before[score]["low"] <= before[score]["mean"] <= before[score]["high"]
        assert before[score]["subjects"] == 8
    assert len(content["halves"]) == 2
    assert (calibrated / "reliability.png").is_file()


def test_the_report_shows_it(calibrated: Path) -> None:
    found = Calibration.found(calibrated)
    assert found is not None and found.after is not None
    assert json.loads((calibrated / "calibration.json").read_text())["after"]["ece"]["mean"] == found.after.ece.mean
    page = write_report(calibrated).read_text()
    assert "<h2>Calibration</h2>" in page and "was fitted on 8 validation cases by the likelihood of all voxels" in page
    assert f"<td>{found.before.ece_foreground.mean:.4f} (" in page and 'aria-label="Reliability curves' in page
    assert not any("became worse" in note for note in found.notes())
    worse = replace(found, before=found.after, after=found.before)
    assert "The ECE of the foreground became worse" in worse.notes()[-1]
    alone = replace(found, after=None)
    assert "With one subject" in alone.notes()[-1] and alone.table().header[1:] == ["before"]
    kept = calibrated / "models" / "model.pt"
    before = kept.read_bytes()
    save_file({"sharpness": torch.tensor(1.0)}, kept)
    try:
        assert "no longer has the weights that were calibrated" in write_report(calibrated).read_text()
    finally:
        kept.write_bytes(before)


def test_what_is_saved_is_calibrated_and_labels_stay(run: Path, calibrated: Path, tmp_path: Path) -> None:
    image = run.parent / "case_4_image.nii.gz"
    own = {"inputs": [image], "device": "cpu", "probabilities": "float16"}
    (plain,) = predict(run, tmp_path / "plain", **own)
    (made,) = predict(calibrated, tmp_path / "made", **own)
    (raw,) = predict(calibrated, tmp_path / "raw", **own, postprocess=False)
    for path in (made, raw):
        np.testing.assert_array_equal(label_map(plain), label_map(path))
    temperature = stored_temperature(Bundle(calibrated))
    one, other, third = (read_probabilities(p.parent / "case_4_image.npz", rows=False) for p in (plain, made, raw))
    assert (one.temperature, other.temperature, third.temperature) == (1, temperature, 1)
    np.testing.assert_array_equal(one.values, third.values)
    sure = (one.values > 1e-4).all(0)
    scaled = one.values[:, sure] ** (1 / temperature)
    np.testing.assert_allclose(other.values[:, sure], scaled / scaled.sum(0), atol=2e-3)
    record = json.loads(next((tmp_path / "made" / "provenance" / "origins").iterdir()).read_text())
    steps = record["settings"]["postprocessing"]["transforms"]
    assert [step["temperature"] for step in steps if "temperature" in step] == [temperature]


def test_label_maps_alone_are_not_made_again(calibrated: Path, tmp_path: Path) -> None:
    image = calibrated.parent / "case_4_image.nii.gz"
    (made,) = predict(calibrated, tmp_path, inputs=[image], device="cpu")
    before = made.stat().st_mtime_ns
    config = calibrated / "configs" / "inference.yaml"
    written = config.read_text()
    config.write_text(written.replace("temperature: ", "temperature: 1"))
    predict(calibrated, tmp_path, inputs=[image], device="cpu")
    config.write_text(written)
    assert made.stat().st_mtime_ns == before


def test_validation_and_ensembles_apply_it(run: Path, calibrated: Path, tmp_path: Path) -> None:
    scores = evaluate(calibrated, probabilities="float16", device="cpu")
    assert scores.cases == evaluate(run, device="cpu").cases
    mine = read_probabilities(calibrated / "predictions" / "case_2_image.npz", rows=False)
    assert mine.temperature == stored_temperature(Bundle(calibrated))
    plain = predict(
        run, tmp_path / "plain", inputs=[run.parent / "case_2_image.nii.gz"], device="cpu", probabilities="float16"
    )
    other = read_probabilities(plain[0].parent / "case_2_image.npz", rows=False).values
    for raw in (False, True):
        ensemble([run, calibrated], tmp_path / str(raw), device="cpu", probabilities="float16", postprocess=not raw)
        joined = read_probabilities(tmp_path / str(raw) / "predictions" / "case_2_image.npz", rows=False).values
        np.testing.assert_allclose(joined, (other + (other if raw else mine.values)) / 2, atol=1e-3)


def test_the_stock_command_of_an_ensemble_applies_it(calibrated: Path) -> None:
    from medseg.workflows.members import Source, load_members

    (member,) = load_members([Source(Bundle(calibrated), calibrated / "models" / "model.pt")])
    assert member.temperature == stored_temperature(Bundle(calibrated))


def test_predictions_are_reused_and_made_again_where_they_lack(calibrated: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(calibrated.parent, tmp_path / "data")) / "run"
    calibrate(folder, device="cpu")
    first = json.loads((folder / "calibration.json").read_text())
    file = folder / "calibration" / "predictions" / "case_2_image.npz"
    before = file.stat().st_mtime_ns
    calibrate(folder, device="cpu")
    assert file.stat().st_mtime_ns == before
    file.unlink()
    calibrate(folder, device="cpu")
    assert file.is_file()
    assert first == json.loads((folder / "calibration.json").read_text())  # fitted on raw ones, not a second time


def test_folds_are_pooled_and_have_one_temperature(tmp_path: Path) -> None:
    datalist = write_cases(tmp_path, validation=4, folds=2)
    for fold in range(2):
        write_run(tmp_path / "cv" / f"fold{fold}", datalist, fold=fold)
    found = calibrate(tmp_path / "cv", device="cpu")
    assert len(found.cases) == 4
    assert {stored_temperature(Bundle(tmp_path / "cv" / f"fold{fold}")) for fold in range(2)} == {found.temperature}
    assert Calibration.found(tmp_path / "cv" / "fold1") == Calibration.found(tmp_path / "cv")


def test_regions_are_choices_of_two() -> None:
    from medseg.labels import IGNORE, LabelSpace
    from medseg.workflows.calibration import _choices

    space = LabelSpace.from_table(
        {"mode": "sigmoid", "labels": {"background": 0, "a": 1, "b": 2}, "regions": {"W": ["a", "b"], "B": ["b"]}}
    )
    values = np.array([[0.9, 0.2, 0.4], [0.1, 0.3, 0.7]], np.float32)
    table, labels = _choices(values, np.array([1, 2, IGNORE]), space)
    np.testing.assert_allclose(table[1], values.ravel())
    np.testing.assert_allclose(table.sum(0), 1)
    assert labels.tolist() == [1, 1, IGNORE, 0, 1, IGNORE]
