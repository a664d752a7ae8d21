"""`medseg init`: the datalist, what is said of the folder, and commands that can be used as they stand."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from medseg.cli.parser import CommandParser
from medseg.data import read_datalist
from medseg.data.phantom import write_phantom
from medseg.errors import ConfigError
from medseg.metrics import MedianInterval
from medseg.workflows import init as module
from medseg.workflows.init import Cost, init


def folder_of(tmp_path: Path, kind: str, cases: int) -> Path:
    (tmp_path / "my data").mkdir()
    write_phantom(output=tmp_path / "my data", kind=kind, cases=cases)
    (tmp_path / "my data" / "dataset.json").unlink()
    return tmp_path / "my data"


def commands(lines: list[str]) -> list[list[str]]:
    return [shlex.split(line) for line in lines if line.startswith("  medseg ")]


def test_volumes(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "lesions", 5)
    names = {"modality": ("T1", "T2", "FLAIR"), "label_names": ("background", "oedema", "core")}
    lines = init(folder=folder, network="UNet", device="cpu", recipe="standard", **names)
    text = "\n".join(lines)
    assert "volumes (T1, T2, FLAIR); 5 training, 2 test cases; 5 subjects, 5 folds" in text
    assert re.search(r"sizes: \S+ to \S+ voxels\nspacing: \S+ to \S+ mm\n", text)
    assert "label oedema: value 1, in 5 of 5 cases" in text
    datalist = read_datalist(folder / "datalist.json")
    assert datalist.channels == names["modality"] and datalist.folds() == [0, 1, 2, 3, 4]
    train, validate, infer = commands(lines)
    for words in (train, validate, infer):
        CommandParser(words[1]).parse(words[2:])
    assert train[train.index("--recipe") + 1] == "standard" and "--recipe" not in validate
    assert train[train.index("--json_list") + 1] == str(folder / "datalist.json")
    assert re.search(r"about [\d.]+ (s|min|h) and \d+\.\d GiB on the CPU with \d+ threads?: \d+ steps of \S+ s", text)
    with pytest.raises(ConfigError, match="exists"):
        init(folder=folder)


def test_2d_images_and_another_place(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "skin", 4)
    lines = init(folder=folder, output=tmp_path / "lists" / "skin.json", network="UNet", device="cpu")
    text = "\n".join(lines)
    assert "2D images" in text and "sizes: 112×128 pixels" in text and "spacing" not in text
    assert len(json.loads((tmp_path / "lists" / "skin.json").read_text())["training"]) == 4


def test_the_cost_of_slices_is_that_of_a_2d_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = folder_of(tmp_path, "organs", 2)
    measured: list[Any] = []

    def times(candidates: Any, conditions: Any, *args: Any) -> Any:
        measured.append((candidates[0].arguments["spatial_dims"], len(conditions.size)))
        return [(MedianInterval(1.0, 1.0, 1.0), MedianInterval(1.0, 1.0, 1.0))]

    monkeypatch.setattr(module, "times", times)
    monkeypatch.setattr(module, "peak_memory", lambda *args: None)
    lines = init(folder=folder, device="cpu", configuration="2d")
    train = commands(lines)[0]
    CommandParser("train").parse(train[2:])
    assert train[train.index("--configuration") + 1] == "2d" and measured == [(2, 2), (2, 2)]
    with pytest.raises(ConfigError, match="Did you mean '2d'"):
        init(folder=folder, configuration="2")


def test_what_a_training_takes() -> None:
    cost = Cost(steps=100, step=0.5, patches=8, patch=0.25, validations=10, memory=2**30, cache=2**30)
    assert cost.training == 70 and cost.case == 2.5 and cost.room == " and 2.0 GiB"
    assert Cost(1, 1, 1, 1, 1, None, 0).room == "" and Cost(1, 1, 2, 1, 0, None, 0, mirrors=4).case == 8.5
