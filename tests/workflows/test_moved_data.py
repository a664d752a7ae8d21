"""A run knows the data that it was trained on: moved ones serve it, changed ones are refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from brightness import write_cases

from medseg.cli import main
from medseg.data.fingerprint import DataFingerprint
from medseg.engines.run_facts import RunFacts, read_facts, write_facts

Train = Callable[..., int]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the data ``d``, a datalist that names them, and a run of one epoch."""
    folder = tmp_path_factory.mktemp("moved data é")
    (folder / "d").mkdir()
    write_cases(folder / "d", validation=2)
    assert train(folder) == 0
    return folder


def train(folder: Path, *options: Any, epochs: int = 1) -> int:
    listed = next(folder.glob("*/*.json"))
    arguments = ["train", "--network", "brightness.Brightness", "--json_list", listed, "--output", folder / "run"]
    arguments += ["--device", "cpu", "--epochs", epochs, "--set", "repeats=2", "--set", "roi_size=[16,16,8]", *options]
    return main([str(argument) for argument in arguments])


@pytest.fixture
def study(trained: Path, tmp_path: Path) -> Path:
    """The same in a folder of its own: run and data are moved both."""
    folder = tmp_path / "copy"
    shutil.copytree(trained / "d", folder / "new place")
    shutil.copytree(trained / "run", folder / "run")
    return folder


def spoil(study: Path, name: str) -> None:
    path = study / "new place" / name
    volume = nibabel.load(path)
    values = np.asarray(volume.dataobj).copy()
    values[0, 0, 0] = 1
    nibabel.save(nibabel.Nifti1Image(values, volume.affine), path)


def test_the_fingerprint_is_of_what_is_trained_and_validated_on(trained: Path) -> None:
    stored = read_facts(trained / "run").data
    assert stored is not None and set(stored.cases) == {f"case_{i}_image" for i in range(4)}
    assert all(len(hashes) == 2 for hashes in stored.cases.values())
    assert DataFingerprint.from_table({}) is None and DataFingerprint.from_table(None) is None


def test_moved_data_serve_the_run(study: Path) -> None:
    assert train(study, epochs=2) == 0  # the list lies in the new place, so its data do too
    assert read_facts(study / "run").epochs_done == 2
    assert main(["validate", "--run", str(study / "run"), "--device", "cpu"]) == 0  # the run knows the new place


@pytest.mark.parametrize(("name", "what"), [("case_0_image.nii.gz", "image"), ("case_2_label.nii.gz", "label")])
def test_changed_data_are_refused_by_name(study: Path, name: str, what: str, capsys: Any) -> None:
    spoil(study, name)
    assert train(study, epochs=2) == 3
    said = capsys.readouterr().err
    assert f"{name[:6]}_image ({what}) changed, 1 of 4 cases" in said and "another --output folder" in said
    assert read_facts(study / "run").epochs_done == 1
    arguments = ["--run", str(study / "run"), "--data_dir", str(study / "new place")]
    if what == "label":  # of a validation case
        twin = shutil.copytree(study / "run", study / "twin")
        for command in (["validate"], ["ensemble", "--output", str(study / "joined"), "--run", str(twin)]):
            assert main([*command, *arguments, "--device", "cpu"]) == 3
            assert "case_2_image (label) changed, 1 of 2 cases" in capsys.readouterr().err


def test_runs_of_earlier_versions_go_on_where_their_data_are(study: Path, trained: Path, caplog: Any) -> None:
    caplog.set_level("INFO", "medseg")
    facts = json.loads((study / "run" / "run.json").read_text())
    del facts["data"]
    (study / "run" / "run.json").write_text(json.dumps(facts))
    shutil.copyfile(trained / "d" / "list.json", study / "new place" / "list.json")
    assert train(study, "--data_dir", trained / "d") == 0
    assert "has no fingerprint of its data" in caplog.text
    assert train(study, epochs=2) == 2  # whether these are the same data is not known


def test_a_changed_image_is_not_taken_from_the_cache(tmp_path: Path) -> None:
    from monai.transforms import Compose, LoadImaged

    from medseg.data import make_dataset

    path = tmp_path / "a.nii.gz"
    cache = {"kind": "persistent", "cache_dir": tmp_path / "cache"}

    def value() -> float:
        return float(make_dataset([{"image": str(path)}], Compose([LoadImaged("image")]), **cache)[0]["image"].max())

    for number in (1, 2):
        nibabel.save(nibabel.Nifti1Image(np.full((4, 4, 4), number, np.uint8), np.eye(4)), path)
        assert value() == value() == number
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_background_alone_is_warned_of(study: Path, capsys: Any, caplog: Any) -> None:
    """With weights that make every voxel background: in log, summary and report of each command, with status 0."""
    run, data = study / "run", study / "new place"
    weights = torch.load(run / "models" / "model.pt")
    torch.save({name: torch.zeros_like(value) for name, value in weights.items()}, run / "models" / "model.pt")
    where = ["--device", "cpu", "--data_dir", str(data)]
    sentence = "Entirely background: the predictions of 2 of 2 cases (case_2_image, case_3_image)."
    assert main(["validate", "--run", str(run), *where]) == 0
    assert f"warning: {sentence}" in capsys.readouterr().out and sentence in caplog.text
    assert main(["report", "--run", str(run), "--data_dir", str(data)]) == 0
    assert (run / "report.html").read_text().count(sentence) == 1
    caplog.clear()
    image, again = str(data / "case_0_image.nii.gz"), str(study / "out")
    for _ in range(2):  # the second call keeps the prediction
        assert main(["infer", "--run", str(run), "--device", "cpu", "--output", again, image]) == 0
        assert "warning: Entirely background: the predictions of 1 of 1 case (case_0_image)." in capsys.readouterr().out
        assert "Entirely background" in caplog.text
    twin = shutil.copytree(run, study / "twin")
    for section in ("validation", "test"):
        caplog.clear()
        options = [
            "--run",
            str(run),
            "--run",
            str(twin),
            "--output",
            str(study / section),
            "--section",
            section,
            *where,
        ]
        assert main(["ensemble", *options]) == 0
        assert "warning: Entirely background" in capsys.readouterr().out and "Entirely background" in caplog.text


def test_weights_that_are_not_finite_are_refused(study: Path, capsys: Any) -> None:
    run, data = study / "run", study / "new place"
    for value in (float("nan"), float("inf")):
        torch.save({"sharpness": torch.tensor(value)}, study / "bad.pt")
        shutil.copyfile(study / "bad.pt", run / "models" / "model.pt")
        twin = shutil.copytree(run, study.with_name("twin"), dirs_exist_ok=True)
        for arguments in (
            ["infer", "--run", run, "--output", study / "out", data / "case_0_image.nii.gz", "--device", "cpu"],
            ["validate", "--run", run, "--data_dir", data, "--device", "cpu"],
            ["ensemble", "--run", run, "--run", twin, "--output", study / "e", "--data_dir", data, "--device", "cpu"],
            ["export", run, "--output", study / "deployed"],
        ):
            assert main([str(argument) for argument in arguments]) == 4, arguments
            assert "tensor 'sharpness' holds" in capsys.readouterr().err
    write_facts(run, RunFacts(status="started"))
    state = torch.load(run / "checkpoints" / "last.pt")
    state["network"]["sharpness"] = torch.tensor(float("nan"))
    torch.save(state, run / "checkpoints" / "last.pt")
    (run / "checkpoints" / "previous.pt").unlink(missing_ok=True)
    assert train(study, epochs=2) == 4
    assert "last.pt, network: tensor 'sharpness' holds 1 NaN" in capsys.readouterr().err
    options = ["--data_dir", data, "--transfer", study / "bad.pt"]
    shutil.rmtree(run)
    assert train(study, *options) == 4
    assert "tensor 'sharpness' holds" in capsys.readouterr().err
