"""Overrides that no training works with are refused before it, or by name of the part that refuses them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import torch

from medseg.bundle.compose import parse_assignments
from medseg.bundle.config_check import check_overrides
from medseg.cli.process import open_streams
from medseg.engines.run_facts import RunFacts
from medseg.engines.trainer import loss_refusal
from medseg.errors import ConfigError, DataError, ModelError
from medseg.networks import network_target
from medseg.storage import read_json
from medseg.workflows.start_in_run import require_state

CONFIG: dict[str, Any] = {
    "loss": {"_target_": "DiceLoss"},
    "optimizer": {"_target_": "torch.optim.AdamW"},
    "augment": {"flip_axes": [0]},
    "network_def": {"_target_": "SegResNet"},
    "train": {"trainer": {"_target_": "medseg.engines.SegmentationTrainer"}},
    "average": {"_target_": "medseg.engines.make_average"},
    "num_workers": 0,
}


@pytest.mark.parametrize(
    "assignment",
    [
        *("loss=Foo", "loss=[1]", "loss=null", "optimizer=3", "optimizer=null", "network_def=3", "augment=null"),
        *("train::trainer=null", "num_workers=99999", "num_workers=-1"),
    ],
)
def test_parts_stay_parts(assignment: str) -> None:
    with pytest.raises(ConfigError, match=f"{assignment.partition('=')[0]}: expected"):
        check_overrides(CONFIG, parse_assignments([assignment]))


@pytest.mark.parametrize("assignment", ["average=null", "loss=$@other", "loss={_target_: DiceCELoss}", "num_workers=4"])
def test_what_a_config_may_be_changed_to(assignment: str) -> None:
    check_overrides(CONFIG | {"other": None}, parse_assignments([assignment]))


def test_a_loss_that_refuses_is_named() -> None:
    with (
        pytest.raises(ConfigError, match="Loss Identity does not take the network's logits and the labels"),
        loss_refusal(torch.nn.Identity()),
    ):
        torch.nn.Identity()(1, 2)
    with pytest.raises(DataError), loss_refusal(torch.nn.Identity()):
        raise DataError("of its own")


@pytest.mark.parametrize("name", [".", "..", ".a", "a."])
def test_names_that_are_no_path(name: str) -> None:
    with pytest.raises(ConfigError, match="No network"):
        network_target(name)


def test_a_run_without_its_states_does_not_start_again(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="was trained for 3 epochs, but checkpoints/ holds no state"):
        require_state(tmp_path, RunFacts(epochs_done=3))
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.pt").touch()
    require_state(tmp_path, RunFacts(epochs_done=3))


def test_a_key_twice_in_json(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"labels": {"0": "a", "0": "b"}}')
    with pytest.raises(DataError, match="key '0' appears twice"):
        read_json(tmp_path / "a.json")


def test_a_closed_standard_output(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout", None)
    open_streams()
    import sys

    assert isinstance(sys.stdout, io.TextIOBase)
    print("to nowhere")
