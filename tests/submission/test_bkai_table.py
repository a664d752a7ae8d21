"""NeoPolyp's table of run-length codes: read back to the masks, and refused for two classes or other pictures."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medseg.cli import main
from medseg.submission.challenges.bkai import encode_runs

SHAPE = (6, 9)


@pytest.fixture
def datalist(tmp_path: Path) -> Path:
    """200 pictures and their predictions."""
    for name in ("images", "predictions"):
        (tmp_path / name).mkdir()
    for number in range(200):
        Image.fromarray(np.full((*SHAPE, 3), number, np.uint8)).save(tmp_path / "images" / f"p{number:03}.jpeg")
        labels = np.random.default_rng(number).integers(0, 3, SHAPE).astype(np.uint8)
        Image.fromarray(labels).save(tmp_path / "predictions" / f"p{number:03}.png")
    table = {
        "modality": {"0": "RGB"},
        "labels": {"background": 0, "a": 1, "b": 2},
        "training": [{"image": "images/p000.jpeg", "label": "x.png"}],
        "test": [{"image": f"images/p{number:03}.jpeg"} for number in range(200)],
    }
    path = tmp_path / "list.json"
    path.write_text(json.dumps(table))
    return path


def submit(datalist: Path) -> int:
    folder = datalist.parent
    arguments = ["--predictions", str(folder / "predictions"), "--json_list", str(datalist)]
    return main(["submit", "bkai", *arguments, "--output", str(folder / "made.csv")])


def decoded(runs: str) -> np.ndarray:
    pixels, numbers = np.zeros(SHAPE, bool).ravel(), iter(map(int, runs.split()))
    for start, length in zip(numbers, numbers, strict=True):
        pixels[start - 1 : start - 1 + length] = True
    return pixels.reshape(SHAPE)


def test_runs_by_hand() -> None:
    assert encode_runs(np.array([[0, 1, 1], [1, 0, 0], [0, 0, 1]]) == 1) == "2 3 9 1"
    assert encode_runs(np.zeros((2, 3), bool)) == "" and encode_runs(np.ones((2, 3), bool)) == "1 6"


def test_the_table_holds_the_masks(datalist: Path) -> None:
    assert submit(datalist) == 0
    with (datalist.parent / "made.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 400 and [row["Ids"] for row in rows[:3]] == ["p000_0", "p000_1", "p001_0"]
    for number in (0, 137):
        labels = np.asarray(Image.open(datalist.parent / "predictions" / f"p{number:03}.png"))
        for row, value in enumerate((2, 1)):
            runs = next(entry["Expected"] for entry in rows if entry["Ids"] == f"p{number:03}_{row}")
            np.testing.assert_array_equal(decoded(runs), labels == value)


def test_predictions_of_two_classes_are_refused(datalist: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in (datalist.parent / "predictions").iterdir():
        Image.fromarray(np.asarray(Image.open(path)) % 2).save(path)
    assert submit(datalist) == 3
    assert "None of the 200 predictions holds a neoplastic polyp" in capsys.readouterr().err
    assert not (datalist.parent / "made.csv").exists()


def test_a_prediction_of_another_size_is_refused(datalist: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.fromarray(np.ones((5, 5), np.uint8)).save(datalist.parent / "predictions" / "p007.png")
    assert submit(datalist) == 3
    assert "p007: image 6×9, prediction 5×5" in capsys.readouterr().err


def test_other_pictures_are_refused(datalist: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = json.loads(datalist.read_text())
    table["test"] = table["test"][:-1]
    datalist.write_text(json.dumps(table))
    assert submit(datalist) == 3
    assert "The section has 199 cases; BKAI-IGH NeoPolyp takes exactly 200" in capsys.readouterr().err
