"""How often a command opens each file to read it; what is read more than once has its reason here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from medseg.data.phantom import write_phantom

# Counts the files below the current folder that are opened to be read; the flush of a file that is being written is
# not a reading.
_COUNTING = """
import collections, json, os, sys
reads, here = collections.Counter(), os.getcwd()
def hook(event, arguments):
    if event == "open" and isinstance(arguments[0], (str, os.PathLike)):
        path, mode, flags = os.path.abspath(arguments[0]), arguments[1] or "", arguments[2] or 0
        writes = set(mode) & set("wax+") or (not mode and flags & (os.O_WRONLY | os.O_RDWR))
        if path.startswith(here) and os.path.isfile(path) and not writes and ".partial" not in path:
            reads[os.path.relpath(path, here)] += 1
sys.addaudithook(hook)
from medseg.cli import main
status = main(sys.argv[1:])
json.dump(reads, open("reads.json", "w"))
sys.exit(status)
"""


def _read_again(folder: Path, *command: str) -> dict[str, int]:
    subprocess.run([sys.executable, "-c", _COUNTING, *command], cwd=folder, check=True)
    counts = json.loads((folder / "reads.json").read_text(encoding="utf-8"))
    assert counts
    return {file: number for file, number in counts.items() if number > 1}


@pytest.mark.slow
def test_each_file_is_read_once(tmp_path: Path) -> None:
    write_phantom(output=tmp_path / "data", cases=4)
    train = [
        "train",
        "--network",
        "SegResNet",
        "--json_list",
        "data/dataset.json",
        "--output",
        "run",
        "--device",
        "cpu",
    ]
    train += ["--set", "roi_size=[16,16,16]", "--set", "repeats=1", "--set", "network_def::init_filters=8", "--epochs"]
    cases = json.loads((tmp_path / "data" / "dataset.json").read_text(encoding="utf-8"))["training"]
    used = {f"data/{case[key]}": case for case in cases for key in ("image", "label")}
    # Once for the checks and the plan, once to fill the cache with the planned preprocessing. The config tells the time
    # limit, is run, and is the tracker's table of settings.
    twice = dict.fromkeys(used, 2) | {"run/configs/train.yaml": 3}
    assert _read_again(tmp_path, *train, "1") == twice
    # The config is held against the command; its first line is kept as it is rewritten; what it then says is run. The
    # origins of its values are held against the command, shown and rewritten; the facts tell what it was planned for.
    resumed = {"run/configs/train.yaml": 5, "run/configs/origin.json": 3, "run/run.json": 2}
    assert _read_again(tmp_path, *train, "2") == {**twice, **resumed}
    # Files and weights are hashed before anything runs; metrics.json grows by what a metric cannot know.
    validated = {file: 2 for file, case in used.items() if case["fold"] == 0}
    again = _read_again(tmp_path, "validate", "--run", "run", "--device", "cpu")
    assert again.pop("run/metrics.json") <= 5
    assert again == {**validated, "run/models/model.pt": 2}
    image = cases[0]["image"]
    again = _read_again(tmp_path, "infer", "--run", "run", "--device", "cpu", "--output", "out", f"data/{image}")
    assert {file: number for file, number in again.items() if "provenance" not in file} == {"run/models/model.pt": 2}
