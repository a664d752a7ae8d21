"""Universal training of two data sets by one command, its scores per data set and task, and prediction by task."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
import yaml

from medseg.cli import main
from medseg.engines.run_facts import read_facts
from medseg.errors import ConfigError, DataError
from medseg.networks import create_network
from medseg.storage import read_yaml
from medseg.weights import read_state_dict
from medseg.workflows.export import export
from medseg.workflows.prediction import predict
from medseg.workflows.training import train
from medseg.workflows.validation import evaluate

SHAPE = (18, 16, 14)


def write_list(folder: Path, labels: dict[str, int], modality: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    folder.mkdir()
    cases = []
    for number in range(3):
        label = np.zeros(SHAPE, np.uint8)
        for place, value in enumerate(labels.values()):
            label[3 + 6 * place : 9 + 6 * place, 4:11, 3:10] = value
        image = (rng.normal(size=SHAPE) + 3.0 * label).astype(np.float32)
        for kind, array in (("", image), ("_gt", label)):
            nibabel.save(nibabel.Nifti1Image(array, np.diag([1.5, 1.5, 1.5, 1])), folder / f"{number}{kind}.nii.gz")
        cases.append({"image": f"{number}.nii.gz", "label": f"{number}_gt.nii.gz"})
    table = {"modality": {"0": modality}, "labels": {"background": 0, **labels}}
    table |= {"training": cases[:2], "validation": cases[2:], "test": cases[2:]}
    (folder / "list.json").write_text(json.dumps(table))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("universal")
    write_list(folder / "a", {"spleen": 1, "liver": 2}, "CT", 0)
    write_list(folder / "b", {"spleen": 7}, "MRI", 1)
    parts = {"first": {"json_list": "a/list.json", "weight": 2.0}, "second": "b/list.json"}
    (folder / "union.yaml").write_text(yaml.safe_dump({"tasks": {"liver": 3}, "datasets": parts}))
    return folder


SETTINGS: dict[str, Any] = {
    "roi_size": [16, 16, 16],
    "batch_size": 2,
    "iterations": 2,
    "val_interval": 1,
    "cache": "plain",
    "num_workers": 0,
    "warmup": 0.0,
}


@pytest.fixture(scope="module")
def run(data: Path) -> Path:
    return train(
        output=data / "run",
        json_list=data / "union.yaml",
        network="hermes_resunet",
        epochs=1,
        device="cpu",
        overrides=SETTINGS,
    )


def test_trained_on_all(run: Path) -> None:
    config = yaml.safe_load((run / "configs" / "train.yaml").read_text())
    assert config["weights"] == {"first": 2.0, "second": pytest.approx(2**-0.5)} and config["iterations"] == 2
    assert config["network_def"]["out_channels"] == 4 and config["network_def"]["num_modalities"] == 2
    assert config["augment"]["intensity_of"] == {"second": 0.2}
    assert (run / "metrics.csv").read_text().splitlines()[1].startswith("1,2,")  # iterations as asked
    cases = json.loads((run / "configs" / "datalist.json").read_text())["training"]
    assert [case["dataset"] for case in cases] == ["first", "first", "second", "second"]


def test_limited_time(data: Path, tmp_path: Path) -> None:
    """Whatever the machine's speed: the run ends with a score, and the same command finds nothing changed."""
    free = {key: value for key, value in SETTINGS.items() if key not in ("iterations", "val_interval")}
    command: dict[str, Any] = {"json_list": data / "union.yaml", "network": "hermes_resunet", "device": "cpu"}
    command |= {"output": tmp_path / "run", "max_minutes": 0.1, "overrides": free}
    run = train(**command)
    rows = list(csv.DictReader((run / "metrics.csv").open()))
    assert rows[-1]["mean_dice"] and read_facts(run).schedule_completed
    assert read_facts(run).fitted_to_time
    (run / "run.json").write_text((run / "run.json").read_text().replace('"finished"', '"started"'))
    assert train(**command) == run


def test_scores_per_data_set_and_task(run: Path) -> None:
    result = evaluate(run, device="cpu")
    assert {*result.labels} == {"first: spleen", "first: liver", "second: spleen"}
    assert {*result.cases["second_2"]} == {"second: spleen"}
    prediction = nibabel.load(run / "predictions" / "second_2.nii.gz")
    assert prediction.shape == SHAPE and {*np.unique(prediction.get_fdata())} <= {0, 7}  # the set's own value


def test_asking_for_one_task_changes_nothing(run: Path, data: Path, tmp_path: Path) -> None:
    """A single file of no data set: all passes, and the task alone gives the same voxels where nothing competes."""
    images = [data / "a" / "2.nii.gz"]
    both = predict(run, tmp_path / "all", inputs=images, modality="ct", device="cpu")[0]
    spleen = predict(run, tmp_path / "one", inputs=images, modality="ct", tasks=["spleen"], device="cpu")[0]
    whole, alone = (np.asarray(nibabel.load(path).dataobj) for path in (both, spleen))
    assert {*np.unique(alone)} <= {0, 1} and np.all(alone[whole == 1] == 1)
    assert json.loads((tmp_path / "all" / "labels.json").read_text()) == {
        "0": "background",
        "1": "spleen",
        "2": "liver",
    }


def test_the_published_protocol(run: Path, tmp_path: Path) -> None:
    """On the model's grid, by half steps, which inference takes as well."""
    result = evaluate(run, device="cpu", overlays=["evaluate_published"], into="published")
    assert result.definition.space == "model" and {*result.labels} == {
        "first: spleen",
        "first: liver",
        "second: spleen",
    }
    assert [*result.cases["second_2"]["second: spleen"]] == ["dice"]
    half = {"window": {"_target_": "medseg.inferers.HalfStepWindow", "roi_size": "@roi_size"}}
    command: dict[str, Any] = {"json_list": run / "configs" / "datalist.json", "data_dir": run.parent, "device": "cpu"}
    assert len(predict(run, tmp_path, tasks=["spleen"], overrides=half, **command)) == 2


def test_report_and_rules(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evaluate(run, device="cpu")
    assert main(["postprocess", "--run", str(run)]) == 0
    assert main(["report", "--run", str(run)]) == 0
    page = (run / "report.html").read_text()
    assert "first: liver" in page and page.count("data:image/jpeg") >= 2  # both cases are shown
    assert main(["ensemble", "--run", str(run), "--run", str(run), "--output", str(run / "joint")]) == 2
    assert "joins runs on one. Predict with each run alone" in capsys.readouterr().err


def test_export_of_one_data_sets_tasks(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="name it with --dataset.*first, second"):
        export(run, tmp_path, format="torchscript")
    settings: dict[str, Any] = {"format": "torchscript", "sizes": [[16, 16, 32]]}
    content = export(run, tmp_path, dataset="first", modality="ct", **settings)
    assert content.labels["channels"] == ["spleen", "liver"] and content.dataset == "first"
    assert content.inference["kind"] == "sliding_window" and not (tmp_path / "predict.py").exists()
    image = torch.randn(1, 1, 16, 16, 16)
    with torch.no_grad():
        found = torch.jit.load(str(tmp_path / "model.ts"))(image)
        expected = network_of(run)(image, torch.tensor([before_ids(run)]), torch.tensor([0]))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def network_of(run: Path) -> Any:
    definition = dict(read_yaml(run / "configs" / "train.yaml")["network_def"])
    network = create_network(definition.pop("_target_"), **definition)
    network.load_state_dict(read_state_dict(run / "models" / "model.pt"))
    return network.eval()


def test_new_tasks_leave_old_predictions_as_they_were(run: Path, data: Path) -> None:
    write_list(data / "c", {"heart": 1}, "CT", 2)
    parts = yaml.safe_load((data / "union.yaml").read_text())["datasets"] | {"third": "c/list.json"}
    # The datalist is another, and ids have moved: rows are found by name.
    tasks = {"spleen": 5, "liver": 1, "heart": 0}
    (data / "grown.yaml").write_text(yaml.safe_dump({"tasks": tasks, "modalities": {"mr": 0}, "datasets": parts}))
    grown = train(
        output=data / "grown",
        json_list=data / "grown.yaml",
        network="hermes_resunet",
        epochs=1,
        device="cpu",
        overrides=SETTINGS | {"learning_rate": 0.1},
        transfer=run,
        new_tasks_only=True,
    )
    assert read_yaml(grown / "configs" / "train.yaml")["new_tasks"] == [0]
    before, after = network_of(run), network_of(grown)
    image = torch.randn(1, 1, 16, 16, 16, generator=torch.Generator().manual_seed(0))
    ids = dict(zip(("spleen", "liver"), before_ids(run), strict=True))
    with torch.no_grad():
        old = before(image, torch.tensor([[ids["spleen"], ids["liver"]]]), torch.tensor([1]))
        new = after(image, torch.tensor([[5, 1]]), torch.tensor([0]))
    assert torch.equal(old, new)
    learned = after.encoder_priors[0].priors.task[0]
    initial = read_state_dict(grown / "models" / "initial.pt")["encoder_priors.0.priors.task"][0]
    assert not torch.equal(learned, initial)
    with pytest.raises(ConfigError, match="knows all tasks of the datalist already"):
        train(
            output=data / "again",
            json_list=data / "union.yaml",
            network="hermes_resunet",
            device="cpu",
            overrides=SETTINGS,
            transfer=run,
            new_tasks_only=True,
        )


def test_old_tasks_are_held_by_replay_and_distillation(run: Path, data: Path) -> None:
    """The second data set is no longer at hand: its tasks stay by their names. The head learns with the new task."""
    write_list(data / "d", {"lung": 1}, "CT", 3)
    parts = {"third": "d/list.json", "first": "a/list.json", "second": {"labels": {"background": 0, "spleen": 7}}}
    ids = {"tasks": {"lung": 0}, "modalities": {"ct": 0, "mr": 1}}
    (data / "later.yaml").write_text(yaml.safe_dump({**ids, "datasets": parts}))
    settings = SETTINGS | {"learn_also": ["head.*"], "learning_rate": 0.1}
    command: dict[str, Any] = {
        "json_list": data / "later.yaml",
        "network": "hermes_resunet",
        "epochs": 1,
        "transfer": run,
    }
    command |= {"device": "cpu", "new_tasks_only": True, "overrides": settings}
    later = train(output=data / "later", replay=0.25, distill=2.0, **command)
    config = read_yaml(later / "configs" / "train.yaml")
    assert config["new_tasks"] == [0] and config["train"]["inferer"]["datasets"] == ["first", "second"]
    assert config["loss"]["weight"] == 2.0
    weights = config["weights"]  # two training cases each
    assert 2 * weights["first"] == pytest.approx(0.25) and 2 * weights["third"] == pytest.approx(0.75)
    before, after = (read_state_dict(later / "models" / name) for name in ("initial.pt", "model.pt"))
    moved = {name for name, value in before.items() if not torch.equal(value, after[name])}
    assert moved and all(name.startswith("head.") or name.endswith("priors.task") for name in moved)
    with pytest.raises(ConfigError, match="no parameter is named 'hed"):
        train(output=data / "wrong", **command | {"overrides": settings | {"learn_also": ["hed.*"]}})
    with pytest.raises(ConfigError, match="expected a share between 0 and 1, got 1.5"):
        train(output=data / "wrong", replay=1.5, **command)
    with pytest.raises(ConfigError, match="name their source with --transfer"):
        train(output=data / "wrong", replay=0.5, json_list=data / "later.yaml", network="hermes_resunet")


def before_ids(run: Path) -> list[int]:
    table = read_yaml(run / "configs" / "train.yaml")["labels"]["tasks"]
    return [table["spleen"], table["liver"]]


def test_refused(run: Path, data: Path, tmp_path: Path) -> None:
    images = [data / "a" / "2.nii.gz"]
    with pytest.raises(DataError, match=r"No task 'splen'.*'spleen'"):
        predict(run, tmp_path / "x", inputs=images, modality="ct", tasks=["splen"])
    with pytest.raises(ConfigError, match=r"name their modality \(--modality\): ct, mr"):
        predict(run, tmp_path / "x", inputs=images)
    with pytest.raises(ConfigError, match="cannot be asked for tasks"):
        train(output=tmp_path / "y", json_list=data / "union.yaml", network="BasicUNet", device="cpu")
