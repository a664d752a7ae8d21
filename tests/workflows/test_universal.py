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

from medseg.errors import ConfigError, DataError
from medseg.networks import create_network
from medseg.weights import read_state_dict
from medseg.workflows.compose import merged_config
from medseg.workflows.evaluation import evaluate
from medseg.workflows.prediction import predict
from medseg.workflows.training import train

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
    assert config["augment"] == {"intensity_of": {"second": 0.2}}
    assert (run / "metrics.csv").read_text().splitlines()[1].startswith("1,2,")  # iterations as asked
    cases = json.loads((run / "configs" / "datalist.json").read_text())["training"]
    assert [case["dataset"] for case in cases] == ["first", "first", "second", "second"]


def test_fitted_to_the_time(data: Path, tmp_path: Path) -> None:
    """Whatever the machine's speed: the epochs are fitted, the run ends, and the same command finds nothing changed."""
    free = {key: value for key, value in SETTINGS.items() if key not in ("iterations", "val_interval")}
    settings: dict[str, Any] = {"json_list": data / "union.yaml", "network": "hermes_resunet", "device": "cpu"}
    run = train(output=tmp_path / "run", max_minutes=0.1, overrides=free, **settings)
    rows = list(csv.DictReader((run / "metrics.csv").open()))
    config = yaml.safe_load((run / "configs" / "train.yaml").read_text())
    facts = json.loads((run / "run.json").read_text())
    assert facts["fitted_epochs"] == config["epochs"] >= int(rows[-1]["epoch"]) == len(rows)
    (run / "run.json").write_text((run / "run.json").read_text().replace('"finished"', '"started"'))
    train(output=run, max_minutes=0.1, overrides=free, **settings)  # what was fitted is no other setting


def test_scores_per_data_set_and_task(run: Path) -> None:
    result = evaluate(run, device="cpu")
    assert {*result["labels"]} == {"first: spleen", "first: liver", "second: spleen"}
    assert {*result["cases"]["second_2"]} == {"second: spleen"}
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


def network_of(run: Path) -> Any:
    definition = dict(merged_config([run / "configs" / "train.yaml"])["network_def"])
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
    assert merged_config([grown / "configs" / "train.yaml"])["new_tasks"] == [0]
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


def before_ids(run: Path) -> list[int]:
    table = merged_config([run / "configs" / "train.yaml"])["labels"]["tasks"]
    return [table["spleen"], table["liver"]]


def test_refused(run: Path, data: Path, tmp_path: Path) -> None:
    images = [data / "a" / "2.nii.gz"]
    with pytest.raises(DataError, match=r"No task 'splen'.*'spleen'"):
        predict(run, tmp_path / "x", inputs=images, modality="ct", tasks=["splen"])
    with pytest.raises(ConfigError, match=r"say their modality \(--modality\): ct, mr"):
        predict(run, tmp_path / "x", inputs=images)
    with pytest.raises(ConfigError, match="cannot be asked for tasks"):
        train(output=tmp_path / "y", json_list=data / "union.yaml", network="BasicUNet", device="cpu")
