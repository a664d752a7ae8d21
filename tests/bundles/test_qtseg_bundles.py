"""The five bundles of QTSeg: the published settings, overlays, key metrics, starting encoder and MONAI's tracking."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow
from PIL import Image

from medseg.cli import main
from medseg.datasets import datasets
from medseg.labels import LabelSpace
from medseg.networks import create_network
from medseg.weights import load_file, save_file
from medseg.workflows.run_folder import differences

BUNDLES = {path.name: path / "configs" for path in sorted((Path(__file__).parents[2] / "bundles").glob("qtseg_*"))}
DATASETS = {name: next(d for d in ("isic", "busi", "bkai", "dsb2018", "fives") if d in name) for name in BUNDLES}
LIGHT = {"width": 4, "depths": [1, 1, 1], "num_heads": 4, "mlp_dim": 16}


def parser(name: str, *files: str) -> ConfigParser:
    config = ConfigParser()
    config.read_config([str(BUNDLES[name] / f"{file}.yaml") for file in files])
    return config


@pytest.mark.parametrize("name", BUNDLES)
def test_the_values_are_the_publications(name: str) -> None:
    fives = DATASETS[name] == "fives"
    train = parser(name, "train")
    size = 1024 if fives else 512
    assert train["epochs"] == 350 and train["val_interval"] == 1 and train["precision"] == "fp32"
    assert train["roi_size"] == [size, size] and train["batch_size"] == (4 if fives else 32)
    assert train["learning_rate"] == (0.01 if fives else 0.001) and train["weight_decay"] == (3e-5 if fives else 1e-4)
    assert train["preprocess::fit"] == "stretch" and train["preprocess::color"] == "rgb"
    optimizer = train["optimizer"]
    if fives:
        assert (optimizer["_target_"], optimizer["momentum"], optimizer["nesterov"]) == ("torch.optim.SGD", 0.99, True)
        assert (train["lr_scheduler::name"], train["lr_scheduler::hold"]) == ("poly", 1)
    else:
        assert optimizer["_target_"] == "torch.optim.AdamW"
        assert [train[f"lr_scheduler::{key}"] for key in ("name", "every", "gamma")] == ["step", 50, 0.5]
    assert train["lr_scheduler::floor"] == 1e-5
    assert train.get_parsed_content("freeze_epochs") == 0
    train["initial::path"] = "encoder.pt"
    assert train.get_parsed_content("freeze_epochs") == 49
    newer = parser(name, "train", "dma")
    assert newer["weight_decay"] == 3e-5 and newer["preprocess::fit"] == "longest"
    assert newer["preprocess::color"] == ("ycrcb" if DATASETS[name] == "isic" else "rgb")
    for config, parameters in ((train, 9_687_184), (newer, 9_214_850)):
        with torch.device("meta"):
            assert sum(p.numel() for p in config.get_parsed_content("network_def").parameters()) == parameters


@pytest.mark.parametrize("name", BUNDLES)
def test_its_labels_are_those_of_the_data_set(name: str) -> None:
    declared = LabelSpace.from_table(parser(name, "train")["labels"]).fragment().declared
    assert declared == set(datasets()[DATASETS[name]].labels)


def test_the_bundles_differ_in_their_settings_alone() -> None:
    """A bundle stands by itself, so that the wiring stands in each; here nothing but the settings may drift."""
    names = list(BUNDLES)
    first = BUNDLES[names[0]]
    allowed = {
        "dataset_dir",
        "json_list",
        "json_list::name",
        "batch_size",
        "cache",
        "roi_size",
        "learning_rate",
        "weight_decay",
    }
    for name in names[1:]:
        for file in ("evaluate", "evaluate_published", "multi_gpu_train"):
            assert (first / f"{file}.yaml").read_bytes() == (BUNDLES[name] / f"{file}.yaml").read_bytes()
        for file in ("train", "inference"):
            found = differences(parser(names[0], file).get(), parser(name, file).get())
            settings = {key for key in found if key.split("::")[0] not in ("labels", "optimizer", "lr_scheduler")}
            assert settings <= allowed, (name, file)


def test_three_classes_of_polyps() -> None:
    name = next(name for name in BUNDLES if DATASETS[name] == "bkai")
    train = parser(name, "train", "three_classes")
    assert LabelSpace.from_table(train["labels"]).num_channels == train["network_def::out_channels"] == 3
    loss = train.get_parsed_content("loss")
    logits, label = torch.randn(2, 3, 8, 8), torch.randint(0, 3, (2, 1, 8, 8))
    p, y = logits.softmax(1), torch.nn.functional.one_hot(label[:, 0], 3).movedim(-1, 1).float()
    dice = 1 - (2 * (p * y).sum((2, 3)) + 1e-6) / (p.sum((2, 3)) + y.sum((2, 3)) + 1e-6)
    expected = torch.nn.functional.cross_entropy(logits, label[:, 0]) + dice.sum(1).mean()
    assert float(loss(logits, label)) == pytest.approx(float(expected), rel=1e-5)


def test_tracking_is_monais_own(tmp_path: Path) -> None:
    name = next(iter(BUNDLES))
    workflow = ConfigWorkflow(
        config_file=str(BUNDLES[name] / "train.yaml"),
        logging_file=False,
        workflow_type="train",
        tracking="mlflow",
        bundle_root=str(tmp_path),
    )
    for section in ("train", "validate"):
        assert workflow.parser[f"{section}::handlers"][-1]["_target_"] == "MLFlowHandler"
    assert workflow.parser.get_parsed_content("tracking_uri").endswith("eval/mlruns.db")


def _pictures(folder: Path) -> Path:
    for number in range(5):
        rng = np.random.default_rng(number)
        mask = np.zeros((24, 30), np.uint8)
        row, column = rng.integers(0, 14), rng.integers(0, 20)
        mask[row : row + 10, column : column + 10] = 255
        pixels = rng.integers(60, 120, (24, 30, 3)) + (mask[..., None] > 0) * 90
        for part, content in (("images", pixels.astype(np.uint8)), ("labels", mask)):
            (folder / part).mkdir(exist_ok=True)
            Image.fromarray(content).save(folder / part / f"{number}.png")
    cases = [{"image": f"images/{number}.png", "label": f"labels/{number}.png"} for number in range(5)]
    training = [case | {"fold": number % 2} for number, case in enumerate(cases[:4])]
    table: dict[str, Any] = {"modality": {"0": "RGB"}, "labels": {"background": 0, "lesion": 255}}
    table |= {"training": training, "test": cases[4:]}
    (folder / "list.json").write_text(json.dumps(table))
    return folder / "list.json"


def test_masks_of_other_values_are_refused_at_once(tmp_path: Path, capsys: Any) -> None:
    datalist = _pictures(tmp_path)
    for path in (tmp_path / "labels").iterdir():
        Image.fromarray(np.asarray(Image.open(path)) // 255).save(path)
    datalist.write_text(datalist.read_text().replace("255", "1"))
    bundle = next(path.parent for name, path in BUNDLES.items() if DATASETS[name] == "busi")
    command = ["train", "--bundle", str(bundle), "--json_list", str(datalist), "--output", str(tmp_path / "run")]
    assert main([*command, "--device", "cpu"]) == 2
    said = capsys.readouterr().err
    assert "reads the label values [0, 255], the datalist declares [1] besides" in said
    assert '--set labels::labels={"background": 0, "lesion": 1}' in said


def test_from_training_to_the_last_score(tmp_path: Path, capsys: Any) -> None:
    """`train` with an encoder's file, `validate --checkpoint all`, the published protocol, the test set, `infer`."""
    datalist = _pictures(tmp_path)
    torch.manual_seed(1)
    network = create_network("qtseg", spatial_dims=2, in_channels=3, out_channels=2, decoder="mqm", **LIGHT)
    encoder = {key: value for key, value in network.state_dict().items() if key.startswith("encoder.")}
    save_file(encoder, tmp_path / "encoder.pt")
    settings = [f"network_def::{key}={value}" for key, value in LIGHT.items()]
    settings += ["roi_size=[32,32]", "num_workers=0", "batch_size=2", f"initial::path={tmp_path / 'encoder.pt'}"]
    run = tmp_path / "run"
    arguments = ["--device", "cpu", *(part for setting in settings for part in ("--set", setting))]
    bundle = next(path.parent for name, path in BUNDLES.items() if DATASETS[name] == "busi")
    command = ["train", "--bundle", str(bundle), "--json_list", str(datalist), "--fold", "0", "--epochs", "2"]
    assert main([*command, "--output", str(run), *arguments]) == 0
    trained = load_file(run / "models" / "model.pt")
    frozen = [key for key in encoder if key.endswith("conv.weight")]
    assert frozen and all(torch.equal(trained[key], encoder[key]) for key in frozen)
    kept = {"best", "best_val_loss", "best_mean_absolute_error", "best_accuracy", "best_mean_iou"}
    assert {path.stem for path in (run / "checkpoints").glob("best*.pt")} == kept

    capsys.readouterr()
    assert main(["validate", "--run", str(run), "--checkpoint", "all", "--device", "cpu"]) == 0
    said = capsys.readouterr().out
    assert {line.split()[1] for line in said.splitlines() if line.startswith("checkpoint ")} == {*kept, "last"}
    assert re.search("HD95.*px", said)
    assert {path.name for path in (run / "predictions").iterdir()} == {"0.png", "2.png"}
    assert Image.open(run / "predictions" / "0.png").size == (30, 24)
    assert main(["validate", "--run", str(run), "--section", "test", "--device", "cpu"]) == 0
    assert list(json.loads((run / "scores" / "test" / "metrics.json").read_text())["cases"]) == ["4"]
    assert main(["validate", "--run", str(run), "--overlay", "evaluate_published", "--device", "cpu"]) == 0
    published = json.loads((run / "metrics.json").read_text())
    assert published["space"] == "model" and set(published["cases"]["0"]["lesion"]) >= {"dice", "iou", "mae"}

    out = ["--device", "cpu", "--output", str(tmp_path / "out")]
    assert main(["infer", str(tmp_path / "images"), "--run", str(run), *out]) == 0
    assert {path.name for path in (tmp_path / "out").glob("*.png")} == {f"{n}.png" for n in range(5)}
    assert main(["report", "--run", str(run)]) == 0
