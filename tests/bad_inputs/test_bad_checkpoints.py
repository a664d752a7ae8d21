"""Checkpoints (numbers 55 to 58 of the matrix)."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from medseg.engines import Checkpoint
from medseg.errors import ModelError
from medseg.weights import load_weights, save_file


def _network(width: int = 4, classes: int = 2, extra: bool = False) -> nn.Sequential:
    layers = {"stem": nn.Conv3d(1, width, 3), **({"norm": nn.BatchNorm3d(width)} if extra else {})}
    return nn.Sequential(torch.nn.modules.container.OrderedDict(layers | {"head": nn.Conv3d(width, classes, 1)}))


def _refusal(network: nn.Module, path: Path) -> str:
    with pytest.raises(ModelError) as error:
        load_weights(network, path)
    assert error.value.status == 4
    return str(error.value)


def _saver(folder: Path) -> Checkpoint:
    network = _network()
    return Checkpoint(folder, folder / "model.pt", network, torch.optim.SGD(network.parameters(), 0.1))


def test_55_missing_and_damaged(tmp_path: Path) -> None:
    assert f"Checkpoint {tmp_path / 'no.pt'} not found; train first" in _refusal(_network(), tmp_path / "no.pt")
    path = tmp_path / "last.pt"
    save_file(_network().state_dict(), path)
    whole = path.read_bytes()
    for damage in (whole[: len(whole) // 2], b"", b"<html>", whole[:200] + bytes(64) + whole[264:]):
        path.write_bytes(damage)
        sentence = _refusal(_network(), path)
        assert sentence.startswith(f"{path} ")
        assert "copy or train it again" in sentence or "which can run code" in sentence


def test_55_resume_falls_back_to_the_previous_state(tmp_path: Path, caplog: Any) -> None:
    caplog.set_level(logging.WARNING, "medseg")
    whole = {"network": _network().state_dict(), "optimizer": {}, "scaler": {}, "lr_scheduler": None, "average": None}
    whole |= {"epoch_length": 4, "best_metric_epoch": 1, "threads": 1}
    whole |= {"loss_sum": 0.5, "best_metric": 0.5, "elapsed_seconds": 1.0, "iteration": 41}
    save_file(whole, tmp_path / "previous.pt")
    save_file(whole | {"iteration": 42}, tmp_path / "last.pt")
    sound = (tmp_path / "last.pt").read_bytes()
    weights = sound.index(whole["network"]["stem.weight"].numpy().tobytes())
    flipped = bytearray(sound)
    flipped[weights] ^= 1  # one bit of one weight: torch would load it
    save_file({"iteration": 42}, tmp_path / "other.pt")
    for damage in (b"PK\x03\x04 cut", b"", sound[:-30], bytes(flipped), (tmp_path / "other.pt").read_bytes()):
        (tmp_path / "last.pt").write_bytes(damage)
        caplog.clear()
        state = _saver(tmp_path)._newest()
        assert state is not None and state["iteration"] == 41
        assert f"{tmp_path / 'last.pt'} is damaged" in caplog.text
        assert "Resuming from previous.pt, iteration 41." in caplog.text
    (tmp_path / "last.pt").write_bytes(b"PK\x03\x04 cut")
    _saver(tmp_path)._newest()
    assert f"{tmp_path / 'last.pt'} is damaged (" in caplog.text
    assert "Resuming from previous.pt, iteration 41." in caplog.text
    (tmp_path / "previous.pt").write_bytes(b"")
    with pytest.raises(ModelError, match="No other state is left; remove .* to start from scratch"):
        _saver(tmp_path)._newest()


def test_56_weights_of_another_network(tmp_path: Path) -> None:
    save_file({"swin.block.weight": torch.zeros(3), "swin.norm.bias": torch.zeros(3)}, tmp_path / "m.pt")
    sentence = _refusal(_network(), tmp_path / "m.pt")
    assert "has keys like 'swin.block.weight'; network Sequential matches 0 of 4" in sentence
    assert "name the network it was trained with" in sentence


def test_57_partial_match(tmp_path: Path) -> None:
    save_file(_network(extra=True).state_dict(), tmp_path / "m.pt")
    sentence = _refusal(_network(), tmp_path / "m.pt")
    assert "fits Sequential only in part: 5 unexpected (norm.weight, norm.bias, " in sentence
    save_file(_network().state_dict(), tmp_path / "m.pt")
    sentence = _refusal(_network(width=6, extra=True), tmp_path / "m.pt")
    assert "5 missing (norm.weight" in sentence
    assert "3 of another shape (stem.weight, stem.bias, head.weight)" in sentence
    assert "use the weights of exactly this network" in sentence


def test_58_other_classes(tmp_path: Path) -> None:
    save_file(_network(classes=14).state_dict(), tmp_path / "m.pt")
    sentence = _refusal(_network(classes=4), tmp_path / "m.pt")
    assert "has a head of 14 channels ('head.bias'), the network 4; use weights of the same label space" in sentence


def test_no_state_dict(tmp_path: Path) -> None:
    save_file([1, 2], tmp_path / "m.pt")
    assert "holds no state dict; expected tensors by name" in _refusal(_network(), tmp_path / "m.pt")
