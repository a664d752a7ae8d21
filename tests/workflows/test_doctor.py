"""`medseg doctor`: what it finds, what it calls slow or wrong, and a report without private names."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from medseg.cli import main
from medseg.workflows import doctor as module
from medseg.workflows.doctor import TESTED, Symptom, doctor

ROOT = Path(__file__).parents[2]


def found(**settings: Any) -> dict[str, Symptom]:
    return {symptom.name: symptom for symptom in doctor(no_test=True, **settings)}


def test_the_tested_versions_are_the_pinned_ones() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = dict(line.partition(";")[0].split("==") for line in reversed(lines) if "==" in line)
    assert {name: pinned[name] for name in TESTED} == TESTED


def test_a_package_that_is_missing_or_other(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    versions = {"monai": None, "scipy": "1.12.1", "torch": "2.13.9+cpu"}
    monkeypatch.setattr(module, "_installed", lambda name: versions.get(name, TESTED.get(name)))
    symptoms = found()
    assert symptoms["monai"].verdict == "wrong" and "install monai==" in symptoms["monai"].advice
    assert symptoms["scipy"].verdict == "ok" and "tested with 1.17.1" in symptoms["scipy"].advice
    assert symptoms["torch"] == Symptom("torch", "2.13.9+cpu")
    assert main(["doctor", "--no_test"]) == 5
    assert "monai: not as medseg needs it" in capsys.readouterr().err


def test_what_will_be_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(64)), raising=False)
    monkeypatch.setattr(os, "getloadavg", lambda: (128.0, 0.0, 0.0), raising=False)
    monkeypatch.setattr(module, "available_gib", lambda: 1.5)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    slow = {name: s.advice for name, s in found().items() if s.verdict == "slow"}
    assert {"threads of torch", "load", "free memory", "GPU"} <= set(slow)
    assert "3 times as long" in slow["load"] and "unset OMP_NUM_THREADS" in slow["threads of torch"]


def test_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    class About:
        name, major, minor = "Some GPU", 7, 5

    free = iter([(4, 16), (15, 16)])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda number: About)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda number: tuple(n * 2**30 for n in next(free)))
    symptoms = found()
    assert "4.0 of 16.0 GiB" in symptoms["GPU 0"].value and "smaller roi_size" in symptoms["GPU 0"].advice
    assert "plans take fp16" in symptoms["GPU 1"].advice


def test_the_self_test_and_the_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["doctor", "--report"]) == 0
    text = capsys.readouterr().out
    assert re.search(r"\| self-test +\| +trained and segmented in \d+ s", text)
    private = (str(Path.home()), str(tmp_path), os.uname().nodename)
    assert not [name for name in private if len(name) > 2 and re.search(rf"\b{re.escape(name)}\b", text)]
    assert not list(tmp_path.iterdir())


def test_a_self_test_that_fails_names_no_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(**_: Any) -> None:
        raise OSError("No space left on /home/somebody/tmp for it\nsecond line")

    monkeypatch.setattr(module, "train", fails)
    symptom = module._self_test()
    assert symptom.verdict == "wrong" and symptom.value == "OSError: No space left on … for it"
