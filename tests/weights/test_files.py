"""Files of weights: whole or not at all, no code, and a sentence for each misfit."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from medseg.errors import ModelError, ResourceError
from medseg.weights import load_file, load_weights, save_file


class Trap:
    def __reduce__(self) -> tuple:
        return os.getcwd, ()


def test_round_trip(tmp_path: Path) -> None:
    content = {"network": {"w": torch.arange(3.0)}, "iteration": 7, "list": [1, None, "x"]}
    save_file(content, tmp_path / "deep" / "state.pt")
    loaded = load_file(tmp_path / "deep" / "state.pt")
    assert torch.equal(loaded["network"]["w"], content["network"]["w"]) and loaded["list"] == content["list"]
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["state.pt"]


def test_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "state.pt"
    save_file({"a": 1}, path)

    def full(number: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ResourceError, match="old file is kept"):
        save_file({"a": 2}, path)
    assert load_file(path) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["state.pt"]


def test_missing_damaged_and_dangerous(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="not found"):
        load_file(tmp_path / "none.pt")
    path = tmp_path / "state.pt"
    save_file({"a": torch.zeros(1000)}, path)
    whole = path.read_bytes()
    for damaged in (b"", b"hello", whole[:100], whole[: len(whole) // 2], whole[:-20]):
        path.write_bytes(damaged)
        with pytest.raises(ModelError, match="damaged"):
            load_file(path)
    torch.save({"a": Trap()}, path)
    with pytest.raises(ModelError, match="can run code"):
        load_file(path)


@pytest.mark.parametrize("key", [None, "network", "model", "state_dict"])
def test_plain_or_nested(tmp_path: Path, key: str | None) -> None:
    source, target = nn.Linear(2, 3), nn.Linear(2, 3)
    state = source.state_dict()
    save_file(state if key is None else {key: state, "epoch": 3}, tmp_path / "w.pt")
    load_weights(target, tmp_path / "w.pt")
    assert torch.equal(source.weight, target.weight)


def test_average_of_a_training_state_counts(tmp_path: Path) -> None:
    """The last state of a run with averaged weights is evaluated with what its validation saw."""
    network, target = nn.Linear(2, 3), nn.Linear(2, 3)
    average = AveragedModel(nn.Linear(2, 3), use_buffers=True)
    save_file({"network": network.state_dict(), "average": average.state_dict()}, tmp_path / "last.pt")
    load_weights(target, tmp_path / "last.pt")
    assert torch.equal(target.weight, average.module.weight)
    save_file({"network": network.state_dict(), "average": None}, tmp_path / "last.pt")
    load_weights(target, tmp_path / "last.pt")
    assert torch.equal(target.weight, network.weight)


def test_misfits(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    save_file({"swin.weight": torch.zeros(3)}, path)
    with pytest.raises(ModelError, match="matches 0 of 2"):
        load_weights(nn.Linear(2, 3), path)
    save_file(nn.Linear(2, 5).state_dict(), path)
    with pytest.raises(ModelError, match="head of 5 channels"):
        load_weights(nn.Linear(2, 3), path)
    save_file({**nn.Linear(2, 3).state_dict(), "extra": torch.zeros(1)}, path)
    with pytest.raises(ModelError, match="1 unexpected"):
        load_weights(nn.Linear(2, 3), path)
    save_file([1, 2], path)
    with pytest.raises(ModelError, match="no state dict"):
        load_weights(nn.Linear(2, 3), path)
