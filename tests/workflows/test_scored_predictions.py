"""Label maps of any tool: paired with references, scored as a run's own, compared beside runs, from commands."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any, Literal

import nibabel
import numpy as np
import pytest
from brightness import write_cases, write_run
from full_set import FULL_SET
from PIL import Image

import medseg
from medseg.cli import main
from medseg.data import read_datalist
from medseg.data.nnunet_export import export_nnunet
from medseg.data.phantom import write_phantom
from medseg.errors import CasesFailed, ConfigError, DataError
from medseg.metrics import Scores
from medseg.metrics.catalog import metrics as list_metrics
from medseg.workflows.compare import compare

LABELS = {"labels": {"background": 0, "edema": 1, "enhancing": 2}}
REAL = FULL_SET.parent / "data"


def save(folder: Path, name: str, array: np.ndarray, spacing: float = 1.0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(array.astype(np.uint8), np.diag([spacing] * 3 + [1])), folder / f"{name}.nii.gz")


def cube(start: int, size: int = 4, value: int = 1) -> np.ndarray:
    volume = np.zeros((12, 12, 12), dtype=np.uint8)
    volume[start : start + size, 2:6, 2:6] = value
    return volume


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Three references, of which the last is empty, and predictions of two methods."""
    (tmp_path / "labels.json").write_text(json.dumps({"labels": {"background": 0, "organ": 1}}))
    for name, reference, shift in (("a", cube(2), 1), ("b", cube(3), 0), ("empty", cube(0, 0), 0)):
        save(tmp_path / "refs", name, reference)
        save(tmp_path / "good", name, reference)
        save(tmp_path / "other", name, np.roll(reference, shift, axis=0))
    return tmp_path


def arguments(place: Path, *predictions: str, **others: Any) -> list[str]:
    given = [word for one in predictions for word in ("--predictions", one)]
    named = {"references": place / "refs", "labels": place / "labels.json", "output": place / "out"} | others
    return ["evaluate", *given, *(str(word) for key, value in named.items() for word in (f"--{key}", value))]


def test_methods_have_a_folder_each_and_are_compared(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments(place, str(place / "good"), f"shifted={place / 'other'}")) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[-1] == "mean_dice: 0.8750" and "predictions good" in printed and "predictions shifted" in printed
    assert "organ: undefined dice in 1, hd95 in 1, surface_dice in 1" in printed
    assert "organ: 1 cases without it, of which 1 kept empty; 0 ml and 0 parts predicted per case" in printed
    assert any(line.startswith("empty masks: Where only the reference") for line in printed)
    scores = Scores.read(place / "out" / "shifted")
    assert scores.cases["a"]["organ"]["dice"] == 0.75 and scores.definition.empty == "penalty"
    assert (scores.asked, scores.scored) == (3, 3) and scores.predictions is not None
    assert set(scores.predictions.sha256) == {"a", "b", "empty"}
    assert (place / "out" / "good" / "metrics_per_case.csv").is_file()
    assert "Worst and best cases" not in (place / "out" / "good" / "report.html").read_text()  # there are no images
    compared = compare([place / "out" / "good", place / "out" / "shifted"], place / "compared")
    assert [run.run for run in compared.runs] == ["good", "shifted"]


@pytest.mark.parametrize(("partial", "status"), [(False, 3), (True, 0)])
def test_missing_and_surplus_files_are_named(
    place: Path, partial: bool, status: int, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    (place / "other" / "a.nii.gz").rename(place / "other" / "z.nii.gz")
    command = arguments(place, str(place / "other"))
    assert main([*command, "--partial"] if partial else command) == status
    said = caplog.text if partial else capsys.readouterr().err
    assert "1 prediction has no reference: z.nii.gz" in said
    assert f"1 reference has no prediction in {place / 'other'}: a" in said
    if partial:
        scores = Scores.read(place / "out")
        assert (scores.asked, scores.scored) == (3, 2)
        assert "Scored are 2 of 3 references" in (scores.facts.biases or [""])[0]


def test_what_lies_elsewhere_is_not_scored(place: Path) -> None:
    save(place / "other", "a", cube(2), spacing=2.0)
    save(place / "good", "b", cube(2, value=7))
    given = {"references": place / "refs", "labels": place / "labels.json", "output": place / "out"}
    with pytest.raises(CasesFailed, match="reference spacing 1×1×1 mm, prediction spacing 2×2×2 mm"):
        medseg.score_predictions(predictions={"other": str(place / "other")}, **given)
    assert list(json.loads((place / "out" / "failures.json").read_text())) == ["a"]
    assert (Scores.read(place / "out").asked, Scores.read(place / "out").scored) == (3, 2)
    with pytest.raises(CasesFailed, match="declared {0, 1}"):
        medseg.score_predictions(predictions={"good": str(place / "good")}, **given)


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"predictions": {"x": "nowhere"}}, "nowhere not found"),
        ({"references": "labels.json"}, "need 'training'"),
        ({"section": "test"}, "is a folder, which has no section 'test'"),
        ({"metrics": ["hd59"]}, "No metric 'hd59'. Did you mean 'hd95'"),
        ({"metrics": ["boundary_iou"]}, "boundary_iou is a score of 2D images"),
        ({"metrics": ["iou_at_2"]}, "iou takes no limit"),
        ({"empty": "penalti"}, "Did you mean 'penalty'"),
        ({"empty": "penalty:far"}, "expected such as penalty:374"),
        ({"empty": "penalty:-1"}, "expected 0 or more"),
    ],
)
def test_wrong_settings_are_said_before_any_score(place: Path, changed: dict[str, Any], sentence: str) -> None:
    given: dict[str, Any] = {"references": place / "refs", "predictions": {"x": place / "good"}}
    given |= {"labels": place / "labels.json", "output": place / "out"} | changed
    given["references"] = place / given["references"]
    given["predictions"] = {name: str(place / folder) for name, folder in given["predictions"].items()}
    with pytest.raises((ConfigError, DataError), match=sentence):
        medseg.score_predictions(**given)
    assert not (place / "out").exists()


@pytest.mark.parametrize(("empty", "dice"), [("penalty", None), ("challenge", 1.0)])
def test_two_empty_masks_count_by_the_option(place: Path, empty: str, dice: float | None) -> None:
    assert main([*arguments(place, str(place / "good")), "--empty", empty]) == 0
    row = json.loads((place / "out" / "metrics.json").read_text())
    assert row["cases"]["empty"]["organ"]["dice"] == dice and row["empty"] == empty
    assert row["labels"]["organ"]["dice"]["undefined"] == (dice is None)


def test_a_run_scores_the_same_and_is_compared_beside(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", write_cases(tmp_path, validation=2, labelled_test=True))
    own = medseg.evaluate(run, device="cpu")
    listed = run / "configs" / "datalist.json"
    command = ["evaluate", "--references", str(listed), "--section", "validation", "--labels", str(listed)]
    data = json.loads(listed.read_text()) | {"data_dir": str(tmp_path)}
    listed.write_text(json.dumps(data))
    folder = shutil.copytree(run / "predictions", tmp_path / "copied")
    assert main([*command, "--predictions", str(folder), "--output", str(tmp_path / "scored")]) == 0
    assert Scores.read(tmp_path / "scored").cases == own.cases
    page = (tmp_path / "scored" / "report.html").read_text()
    assert page.count("data:image/jpeg") == 2 and "No overlay" not in page
    compared = compare([run, tmp_path / "scored"], tmp_path / "compared")
    assert [row.mean_difference for row in compared.comparisons][-1] == 0


def summary(rows: dict[str, dict[str, dict[str, float]]]) -> str:
    """nnU-Net's file."""
    cases = [
        {"metrics": metrics, "prediction_file": f"/there/{case}.nii.gz", "reference_file": f"/there/gt/{case}.nii.gz"}
        for case, metrics in rows.items()
    ]
    return json.dumps({"foreground_mean": {}, "mean": {}, "metric_per_case": cases})


def test_nnunet_folders_are_scored_and_their_own_scores_compared(place: Path) -> None:
    model = place / "nnUNetTrainer__nnUNetPlans__3d_fullres"
    for number, names in enumerate((("a", "empty"), ("b",))):
        fold = model / f"fold_{number}" / "validation"
        fold.mkdir(parents=True)
        for name in names:
            shutil.copy(place / "other" / f"{name}.nii.gz", fold)
        dice = {"a": 0.75, "b": 1.0, "empty": math.nan}
        (fold / "summary.json").write_text(summary({n: {"1": {"Dice": dice[n], "IoU": 0.5}} for n in names}))
    assert main(arguments(place, f"nnunet={model}")) == 0
    scored = Scores.read(place / "out")
    with pytest.raises(DataError, match="no dataset.json that names its labels"):
        compare([place / "out", model], place / "compared")
    shutil.copy(place / "labels.json", model / "dataset.json")
    compared = compare([place / "out", model, model / "fold_0" / "validation"][:2], place / "compared")
    assert compared.runs[1].mean == pytest.approx(scored.mean_dice) == 0.875
    assert [row.mean_difference for row in compared.comparisons] == pytest.approx([0.0, 0.0])
    shutil.copy(model / "fold_0" / "validation" / "a.nii.gz", model / "fold_1" / "validation")
    with pytest.raises(DataError, match="are of one case, 'a'"):
        medseg.score_predictions(
            references=place / "refs",
            predictions={"n": str(model)},
            labels=place / "labels.json",
            output=place / "again",
        )


def test_nnunet_names_regions_by_their_values(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        labels = {"background": 0, "whole": [1, 2], "core": [2]}
        (tmp_path / name / "dataset.json").write_text(json.dumps({"labels": labels}))
        rows = {f"c{i}": {"(1, 2)": {"Dice": i / 8, "IoU": 0.1}, "2": {"Dice": 0.5, "IoU": 0.2}} for i in range(7)}
        (tmp_path / name / "summary.json").write_text(summary(rows))
    assert compare([tmp_path / "one", tmp_path / "two"], tmp_path / "out").labels == ["whole", "core"]
    (tmp_path / "one" / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "core": 2}}))
    with pytest.raises(DataError, match=r"a score of label '\(1, 2\)'"):
        compare([tmp_path / "one", tmp_path / "two"], tmp_path / "out")
    (tmp_path / "two" / "summary.json").write_text(summary({"c0": {"2": {"Dice": 1.5, "IoU": 0.2}}}))
    with pytest.raises(DataError):  # the other folder has other labels
        compare([tmp_path / "two", tmp_path / "one"], tmp_path / "out")
    assert "case 'c0' has a dice of 1.5 for label 'core'" in caplog.text


@pytest.mark.usefixtures("full_set")
def test_every_metric_is_reached_on_real_volumes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Hippocampi moved by a voxel: values that follow from the move, and each name from the command."""
    data = REAL / "Task04_Hippocampus"
    for path in sorted((data / "labelsTr").glob("*.nii.gz"))[:3]:
        image = nibabel.load(path)
        moved = np.roll(np.asarray(image.dataobj), 1, axis=1).astype(np.uint8)
        (tmp_path / "refs").mkdir(exist_ok=True)
        (tmp_path / "moved").mkdir(exist_ok=True)
        shutil.copy(path, tmp_path / "refs")
        nibabel.save(nibabel.Nifti1Image(moved, image.affine, image.header), tmp_path / "moved" / path.name)
    names = [line.split()[0] for line in list_metrics()]
    chosen = [name for name in names if name != "boundary_iou"] + ["surface_dice_at_2", "surface_dice_area_at_voxel"]
    command = ["evaluate", "--references", str(tmp_path / "refs"), "--predictions", str(tmp_path / "moved")]
    command += ["--labels", str(data / "dataset.json"), "--output", str(tmp_path / "out")]
    assert main([*command, "--metrics", ",".join(chosen)]) == 0
    assert "of 3 lesions found, sensitivity 1.000; 0 false per scan" in capsys.readouterr().out
    scores = Scores.read(tmp_path / "out")
    row = scores.labels["anterior hippocampus"]
    assert set(row) >= set(chosen) - {"detection", "instances"}
    assert row["hd95"].mean == row["hd95_pooled"].mean == row["surface_dice"].mean == row["instance_f1"].mean == 1
    assert row["volume_difference"].mean == 0 and 0 < row["boundary_iou_band"].mean < row["iou"].mean < 1
    assert row["lesion_dice_brats2023"].mean == pytest.approx(row["dice"].mean)
    assert scores.detection["anterior hippocampus"]["over 1 ml"].sensitivity == 1
    html = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "limits of agreement" in html and "lesion-wise Dice (BraTS 2023 MET)" in html


@pytest.mark.usefixtures("full_set")
def test_nuclei_are_scored_by_their_instance_numbers(tmp_path: Path) -> None:
    """Real nuclei: two touching ones are one instance as connected parts, two by their numbers."""
    data = REAL / "DSB2018_nuclei"
    (tmp_path / "labels.json").write_text(json.dumps({"labels": {"background": 0, "nucleus": 1}}))
    for path in sorted((data / "instancesTr").glob("*.png"))[:4]:
        numbers = np.asarray(Image.open(path)).astype(np.uint16)
        for name, mask in (("refs", numbers), ("merged", np.where(numbers == 2, 1, numbers))):
            (tmp_path / name).mkdir(exist_ok=True)
            Image.fromarray(mask.astype(np.uint16)).save(tmp_path / name / path.name)
    given = {
        "references": tmp_path / "refs",
        "labels": tmp_path / "labels.json",
        "metrics": ("instances", "boundary_iou"),
    }
    methods = {name: str(tmp_path / name) for name in ("refs", "merged")}
    found = medseg.score_predictions(predictions=methods, output=tmp_path / "out", instances=True, **given)
    same, merged = (found[name] for name in ("refs", "merged"))
    assert same.labels["nucleus"]["instance_mean_ap"].mean == same.labels["nucleus"]["boundary_iou"].mean == 1
    number = sum(int(rows["nucleus"]["instance_fn"]) for rows in merged.cases.values())
    assert number >= 4 and merged.labels["nucleus"]["dice"].mean == 1
    tp = sum(rows["nucleus"]["instance_tp"] for rows in merged.cases.values())
    fp = sum(rows["nucleus"]["instance_fp"] for rows in merged.cases.values())
    assert merged.pooled["nucleus"]["instance_f1"] == pytest.approx(2 * tp / (2 * tp + fp + number))
    with pytest.raises(ConfigError, match="instance numbers are of one label"):
        (tmp_path / "two.json").write_text(json.dumps(LABELS))
        medseg.score_predictions(
            predictions=methods, output=tmp_path / "two", instances=True, **given | {"labels": tmp_path / "two.json"}
        )


def test_validate_takes_names_and_a_rule(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path / "run", write_cases(tmp_path, validation=2))
    assert main(["validate", "--run", str(run), "--metrics", "assd,hd95_pooled", "--empty", "challenge"]) == 0
    content = json.loads((run / "metrics.json").read_text())
    assert list(content["metrics"]) == ["dice", "assd", "hd95_pooled"] and content["empty"] == "challenge"
    assert "HD95 (pooled), mm" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="name surface_dice_at_2"):
        medseg.evaluate(run, tolerance=2.0, metrics=["surface_dice"])


@pytest.mark.parametrize("kind", ["lesions", "skin"])
def test_a_datalist_goes_to_nnunet_and_back(tmp_path: Path, kind: Literal["lesions", "skin"]) -> None:
    listed = write_phantom(tmp_path / "phantom", kind=kind, cases=6)
    command = ["export-nnunet", "--json_list", str(listed), "--output", str(tmp_path / "n"), "--dataset_id", "7"]
    assert main(command) == 0
    (raw,) = (tmp_path / "n" / "nnUNet_raw").iterdir()
    table = json.loads((raw / "dataset.json").read_text())
    assert raw.name.startswith("Dataset007_") and table["numTraining"] == 6
    assert main(["datalist", str(raw), "--output", str(tmp_path / "back.json")]) == 0
    before, after = (read_datalist(path) for path in (listed, tmp_path / "back.json"))
    assert before.label_space.labels == after.label_space.labels and before.folds() == after.folds()
    for fold in before.folds():
        sides = zip(before.split(fold), after.split(fold), strict=True)
        assert all({case.id for case in one} == {case.id for case in other} for one, other in sides)
    assert main(command) == 2  # it exists


def test_values_are_numbered_and_channels_split_for_nnunet(tmp_path: Path) -> None:
    two = np.stack([cube(2), cube(3)], axis=-1).astype(np.int16)
    (tmp_path / "plans.json").write_text(json.dumps({"configurations": {"2d": {"spacing": [1, 1]}}}))
    for name in ("a", "b", "c"):
        save(tmp_path, f"{name}_label", cube(2, value=9) + cube(7, size=2, value=4))
        nibabel.save(nibabel.Nifti1Image(two, np.eye(4)), tmp_path / f"{name}.nii.gz")
    entries = [{"image": f"{name}.nii.gz", "label": f"{name}_label.nii.gz"} for name in ("a", "b", "c")]
    space = {
        "labels": {"background": 0, "x": 4, "y": 9},
        "regions": {"whole": ["x", "y"], "y": ["y"]},
        "mode": "sigmoid",
    }
    table = {"name": "t", "modality": {"0": "CT", "1": "PET"}, "label_space": space}
    listed = tmp_path / "list.json"
    listed.write_text(json.dumps(table | {"training": entries[:2], "validation": entries[2:]}))
    made = export_nnunet(listed, tmp_path / "n", plans=tmp_path / "plans.json")
    dataset = json.loads((made.raw / "dataset.json").read_text())
    assert dataset["labels"] == {"background": 0, "whole": [1, 2], "y": [2]} and dataset["regions_class_order"] == [
        1,
        2,
    ]
    assert made.splits == ((2, 1),) and made.tests == 0
    assert np.unique(nibabel.load(made.raw / "labelsTr" / "c.nii.gz").dataobj).tolist() == [0, 1, 2]
    second = nibabel.load(made.raw / "imagesTr" / "c_0001.nii.gz")
    assert np.array_equal(second.dataobj, two[..., 1])
    assert json.loads((made.preprocessed / "nnUNetPlans.json").read_text())["dataset_name"] == made.raw.name
    listed.write_text(json.dumps(table | {"label_space": {"datasets": {"d": space}}, "training": entries}))
    with pytest.raises(DataError, match="labels of several data sets"):
        export_nnunet(listed, tmp_path / "m")
    with pytest.raises(ConfigError, match="dataset_id 0 is not valid"):
        export_nnunet(listed, tmp_path / "m", dataset_id=0)
