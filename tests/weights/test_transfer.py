"""Weights of another training: loaded, started anew, or left, and nothing in silence."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from medseg.errors import ConfigError, ModelError
from medseg.weights import save_file, transfer_weights
from medseg.workflows.train_settings import TrainSettings


def network(labels: int = 2, width: int = 3) -> nn.Module:
    return nn.ModuleDict({"stem": nn.Linear(1, width), "body": nn.Linear(width, 4), "head": nn.Linear(4, labels)})


def test_what_is_named_keeps_its_fresh_values_and_the_rest_is_loaded(tmp_path: Path) -> None:
    source, target = network(2), network(3)
    save_file(source.state_dict(), tmp_path / "a.pt")
    fresh = {k: v.clone() for k, v in target.state_dict().items()}
    report = transfer_weights(target, tmp_path / "a.pt", reinitialize=["head.*"])
    assert report.reinitialized == report.left == ("head.weight", "head.bias")
    for name, value in target.state_dict().items():
        assert torch.equal(value, (fresh if name.startswith("head") else source.state_dict())[name]), name
    assert "2 tensors re-initialised (head.weight, head.bias)" in report.lines()[1]


def test_what_does_not_fit_is_refused_unless_partial(tmp_path: Path) -> None:
    save_file({**network(2).state_dict(), "extra": torch.ones(1)}, tmp_path / "a.pt")
    with pytest.raises(
        ModelError, match=r"2 parameters are missing or of another shape \(head.weight, head.bias\), 1 unex"
    ):
        transfer_weights(network(3), tmp_path / "a.pt")
    report = transfer_weights(network(3), tmp_path / "a.pt", partial=True)
    assert len(report.loaded) == 4 and "extra" in report.left


def test_another_network_or_a_pattern_without_a_tensor_is_refused(tmp_path: Path) -> None:
    save_file({"swin.weight": torch.ones(1)}, tmp_path / "a.pt")
    with pytest.raises(ModelError, match="matches 0 of 6"):
        transfer_weights(network(), tmp_path / "a.pt", partial=True)
    save_file(network().state_dict(), tmp_path / "b.pt")
    with pytest.raises(ModelError, match="'decoder\\*' matches no tensor"):
        transfer_weights(network(), tmp_path / "b.pt", reinitialize=["decoder*"])
    with pytest.raises(ModelError, match="re-initialise less"):
        transfer_weights(network(), tmp_path / "b.pt", reinitialize=["*"])


def test_each_fold_starts_from_the_weights_of_its_own(tmp_path: Path) -> None:
    for number in (0, 2):
        (tmp_path / f"fold{number}" / "configs").mkdir(parents=True)
        (tmp_path / f"fold{number}" / "configs" / "train.yaml").touch()
    settings = TrainSettings(output=tmp_path, json_list="a.json", network="UNet", transfer=tmp_path, fold=2)
    request = settings.transfer_request()
    assert request is not None and request.source == tmp_path / "fold2"
    for fold, lacking in ((1, "fold1"), (None, "not given")):
        with pytest.raises(ConfigError, match=f"holds the runs fold0, fold2; expected .*{lacking}"):
            replace(settings, fold=fold).transfer_request()
