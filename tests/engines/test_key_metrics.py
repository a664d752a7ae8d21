"""Several key metrics: the best weights of each are kept, scored and used by name."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from medseg.cli import main
from medseg.engines import Checkpoint, target_maps
from medseg.errors import ConfigError
from medseg.labels import LabelSpace
from medseg.weights import load_file


def make(folder: Path, **more: Any) -> Checkpoint:
    network = nn.Linear(1, 1)
    metric = SimpleNamespace(best_metric=0.0, best_metric_epoch=-1, epoch=0, metrics={})
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    return Checkpoint(
        folder / "checkpoints", folder / "model.pt", network, optimizer, evaluator=SimpleNamespace(state=metric), **more
    )


def finish_epoch(checkpoint: Checkpoint, epoch: int, metrics: dict[str, float]) -> SimpleNamespace:
    """The end of an epoch whose validation gave ``metrics``; the weights are the epoch's number."""
    checkpoint.evaluator.state.epoch, checkpoint.evaluator.state.metrics = epoch, metrics
    with torch.no_grad():
        checkpoint.network.weight.fill_(epoch)
    engine = SimpleNamespace(
        state=SimpleNamespace(rank=0, epoch=epoch, iteration=epoch, epoch_length=1, device="cpu"),
        grad_scaler=SimpleNamespace(state_dict=dict),
        data_loader=SimpleNamespace(sampler=SimpleNamespace(skip=0), batch_size=1, __len__=lambda: 1),
        losses=[],
        patch_by_patch=False,
    )
    checkpoint._epoch_completed(engine)
    return engine


def test_each_metric_keeps_its_best_weights(tmp_path: Path) -> None:
    checkpoint = make(tmp_path, key_metrics={"mean_iou": "max", "error": "min"})
    for epoch, (iou, error) in enumerate([(0.5, 0.3), (0.4, 0.2), (math.nan, 0.2), (0.5, 0.4)], 1):
        finish_epoch(checkpoint, epoch, {"mean_iou": iou, "error": error})
    kept = {name: load_file(tmp_path / "checkpoints" / f"best_{name}.pt") for name in ("mean_iou", "error")}
    assert [(kept[n]["epoch"], kept[n]["metric"]) for n in kept] == [(1, 0.5), (2, 0.2)]  # strictly better only
    assert [float(kept[n]["network"]["weight"]) for n in kept] == [1, 2]
    assert load_file(tmp_path / "checkpoints" / "last.pt")["best_values"] == {"mean_iou": 0.5, "error": 0.2}


def test_epochs_without_validation_change_nothing(tmp_path: Path) -> None:
    checkpoint = make(tmp_path, key_metrics={"mean_iou": "max"})
    engine = finish_epoch(checkpoint, 1, {"mean_iou": 0.5})
    engine.state.epoch = 2
    checkpoint.evaluator.state.metrics = {"mean_iou": 0.9}  # still those of epoch 1
    checkpoint._epoch_completed(engine)
    assert load_file(tmp_path / "checkpoints" / "best_mean_iou.pt")["epoch"] == 1


def test_early_epochs_can_be_left_out_of_the_choice(tmp_path: Path) -> None:
    """As MONAI's evaluator does: the first validation is the best so far, then the better ones; here less is better."""
    checkpoint = make(tmp_path, select_after=2)
    state = checkpoint.evaluator.state
    chosen = []
    for epoch, loss in enumerate([0.1, 0.2, 0.5, 0.4, 0.6], 1):
        if state.best_metric_epoch == -1 or loss < state.best_metric:
            state.best_metric, state.best_metric_epoch = loss, epoch
        finish_epoch(checkpoint, epoch, {"loss": loss})
        chosen.append(load_file(tmp_path / "checkpoints" / "best.pt")["epoch"])
    assert chosen == [1, 2, 3, 4, 4]  # the last weights until epoch 3, then the lowest loss
    assert float(load_file(tmp_path / "model.pt")["weight"]) == 4


def test_final_weights_are_delivered_whatever_their_score(tmp_path: Path) -> None:
    checkpoint = make(tmp_path, select="final")
    checkpoint.evaluator.state.best_metric, checkpoint.evaluator.state.best_metric_epoch = 0.9, 1
    for epoch, score in enumerate([0.9, 0.5], 1):
        finish_epoch(checkpoint, epoch, {"dice": score})
    assert float(load_file(tmp_path / "model.pt")["weight"]) == 2
    with pytest.raises(ConfigError, match="'first' is not a valid choice; use 'best' or 'final'"):
        make(tmp_path, select="first")


def test_a_metric_that_nobody_computes_is_refused(tmp_path: Path) -> None:
    checkpoint = make(tmp_path, key_metrics={"mean_iuo": "max"})
    with pytest.raises(ConfigError, match="no metric 'mean_iuo'. Did you mean 'mean_iou'"):
        finish_epoch(checkpoint, 1, {"mean_iou": 0.5})
    with pytest.raises(ConfigError, match="'largest' of 'mean_iou' is unknown; use 'max' or 'min'"):
        make(tmp_path, key_metrics={"mean_iou": "largest"})


def test_target_maps_leave_ignored_voxels_out() -> None:
    space = LabelSpace.from_table({"labels": {"background": 0, "a": 1, "b": 2}, "ignore": [9]})
    output = [{"pred": torch.tensor([[1, 2, 0, 2]]), "label": torch.tensor([[1, 0, 2, -1]])}]
    (pred,), (label,) = target_maps(space)(output)
    assert pred.tolist() == [[1, 0, 0, 0], [0, 1, 0, 0]]
    assert label.tolist() == [[1, 0, 0, 0], [0, 0, 1, 0]]


def test_all_checkpoints_are_scored_and_used(
    tiny_train: Callable[..., Path], datalist: Path, tmp_path: Path, capsys: Any
) -> None:
    run = tiny_train(tmp_path / "run", epochs=2, settings={"key_metrics": {"mean_iou": "max"}})
    assert {path.name for path in (run / "checkpoints").glob("best*")} == {"best.pt", "best_mean_iou.pt"}
    assert main(["validate", "--run", str(run), "--checkpoint", "all", "--device", "cpu"]) == 0
    said = capsys.readouterr().out
    assert [line for line in said.splitlines() if line.startswith("checkpoint ")] == [
        "checkpoint best",
        "checkpoint best_mean_iou",
        "checkpoint last",
    ]
    scores = {name: json.loads((run / name / "metrics.json").read_text()) for name in ("", "scores/last")}
    assert scores[""]["weights"].endswith("model.pt")
    assert scores["scores/last"]["weights"].endswith("last.pt")
    assert (run / "scores" / "best_mean_iou" / "predictions").is_dir()

    assert main(["validate", "--run", str(run), "--checkpoint", "all", "--section", "training"]) == 2
    assert "would choose the model on these cases" in capsys.readouterr().err
    assert main(["validate", "--run", str(run), "--section", "training", "--device", "cpu"]) == 0
    assert len(json.loads((run / "scores" / "training" / "metrics.json").read_text())["cases"]) == 4
    assert json.loads((run / "metrics.json").read_text()) == scores[""]  # the run's own scores stay

    image = datalist.parent / "v0_image.nii.gz"
    arguments = ["infer", str(image), "--run", str(run), "--device", "cpu", "--output", str(tmp_path / "out")]
    assert main([*arguments, "--checkpoint", "all"]) == 0
    made = sorted(path.parent.name for path in (tmp_path / "out").glob("*/v0_image.nii.gz"))
    assert made == ["best", "best_mean_iou", "last"]
    capsys.readouterr()
    assert main([*arguments, "--checkpoint", "best_dice"]) == 4
    assert "This one keeps best, best_mean_iou, last." in capsys.readouterr().err
