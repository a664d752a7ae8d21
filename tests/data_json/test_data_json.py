"""The ready datalists: counts, ids, disjoint sections, and agreement with the published files where present."""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath

import pytest

from medseg.data import read_datalist

ROOT = Path(__file__).parents[2]
LISTS = sorted((ROOT / "data_json").glob("*.json"))
PUBLISHED = ROOT.parent / "shared" / "fixtures" / "sshunet" / "datalists"


def ids(entries: list[dict], key: str = "image") -> set[int]:
    return {int(PurePosixPath(e[key]).name.split(".")[0].strip("imglabeos_")) for e in entries}


@pytest.mark.parametrize("path", LISTS, ids=lambda p: p.stem)
def test_a_datalist_is_clean(path, tmp_path):
    table = json.loads(path.read_text())
    datalist = read_datalist(path, tmp_path)  # refuses cases that are listed twice or in two sections
    counters = {"training": "numTraining", "validation": "numValidation", "test": "numTest"}
    for section, counter in counters.items():
        assert table.get(counter, 0) == len(table.get(section, [])) == len(datalist.sections[section])
    images = [entry["image"] for section in counters for entry in table.get(section, [])]
    assert len(images) == len({PurePosixPath(image).name for image in images})
    assert not any(PurePosixPath(image).is_absolute() or ".." in image for image in images)


@pytest.mark.parametrize("name", ["btcv", "amos_task01"])
def test_a_datalist_of_volumes_pairs_equal_ids(name, tmp_path):
    table = json.loads((ROOT / "data_json" / f"{name}.json").read_text())
    datalist = read_datalist(ROOT / "data_json" / f"{name}.json", tmp_path)
    assert datalist.channels == ("CT",)
    for section in ("training", "validation"):
        assert all(ids([e]) == ids([e], "label") for e in table[section])
    assert list(table["labels"]) == [str(i) for i in range(len(table["labels"]))]
    assert datalist.label_space.is_identity


def test_btcv_is_the_24_6_split():
    table = json.loads((ROOT / "data_json" / "btcv.json").read_text())
    assert ids(table["training"]) == {*range(1, 11), *range(21, 35)}
    assert ids(table["validation"]) == set(range(35, 41))
    assert ids(table["test"]) == set(range(61, 81))
    assert len(table["labels"]) == 14
    assert table["labels"]["8"] == "aorta"


def test_amos_is_the_200_100_split():
    table = json.loads((ROOT / "data_json" / "amos_task01.json").read_text())
    assert [len(table[s]) for s in ("training", "validation", "test")] == [200, 100, 199]
    spans = [(min(ids(table[s])), max(ids(table[s]))) for s in ("training", "validation", "test")]
    assert spans == [(1, 410), (8, 409), (2, 499)]
    assert len(table["labels"]) == 16
    assert "arota" not in table["labels"].values()


@pytest.mark.parametrize(
    ("ours", "theirs"), [("btcv", "btcv_dataset"), ("amos_task01", "amos_task01_dataset")], ids=["btcv", "amos"]
)
def test_the_sections_are_the_published_ones(ours, theirs):
    published = PUBLISHED / f"{theirs}.json"
    if not published.is_file():
        pytest.skip(f"the published datalist {published} is not here")
    mine, other = json.loads((ROOT / "data_json" / f"{ours}.json").read_text()), json.loads(published.read_text())
    for section in ("training", "validation", "test"):
        assert mine[section] == [{"image": e} if isinstance(e, str) else e for e in other[section]]
    assert mine["labels"].keys() == other["labels"].keys()
