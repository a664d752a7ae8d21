"""The ready datalists: counts, ids, folds, subjects on one side, and agreement with the published files."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path, PurePosixPath

import pytest
from full_set import FULL_SET

from medseg.data import read_datalist
from medseg.datasets import datasets

ROOT = Path(__file__).parents[2]
LISTS = sorted((ROOT / "data_json").rglob("*.json"))
HERMES = FULL_SET / "hermes" / "splits.json"
SECTIONS = ("training", "validation", "test")
PUBLISHED = FULL_SET / "sshunet" / "datalists"


def ids(entries: list[dict], key: str = "image") -> set[int]:
    return {int(PurePosixPath(e[key]).name.split(".")[0].strip("imglabeos_")) for e in entries}


@pytest.mark.parametrize("path", LISTS, ids=lambda p: p.stem)
def test_a_datalist_is_clean(path, tmp_path):
    table = json.loads(path.read_text())
    datalist = read_datalist(path, tmp_path)  # refuses cases that are listed twice or in two sections
    for section, counter in (("training", "numTraining"), ("validation", "numValidation"), ("test", "numTest")):
        listed = len(datalist.sections[section])
        assert listed == len(table.get(section, []))
        assert table.get(counter, listed) == listed, counter
    files = [image for cases in datalist.sections.values() for case in cases for image in case.images]
    assert len(files) == len(set(files))
    for image in (Path(file).relative_to(tmp_path) for file in files):
        assert not image.is_absolute() and ".." not in image.parts
    assert datalist.channels


@pytest.mark.parametrize("path", LISTS, ids=lambda p: p.stem)
def test_no_subject_is_on_two_sides(path, tmp_path):
    datalist = read_datalist(path, tmp_path)
    subjects = {name: {case.group for case in cases} for name, cases in datalist.sections.items()}
    for one, two in itertools.combinations(subjects, 2):
        assert subjects[one] & subjects[two] <= datalist.known_overlaps, (one, two)
    folds = datalist.folds()
    if folds:
        assert folds == list(range(len(folds)))
        sizes = [len(datalist.split(fold)[1]) for fold in folds]
        assert min(sizes) > 0
    for fold in folds:
        training, validation = ({case.group for case in cases} for cases in datalist.split(fold))
        assert training & validation <= datalist.known_overlaps


@pytest.mark.parametrize("path", LISTS, ids=lambda p: p.stem)
def test_only_true_overlaps_are_declared(path, tmp_path):
    """A subject on two sides, or, of AMOS'22 of RepUX-Net, a case of the other list of the same images."""
    datalist = read_datalist(path, tmp_path)
    sides = [{case.group for case in cases} for cases in datalist.sections.values()]
    shared = {name for one, two in itertools.combinations(sides, 2) for name in one & two}
    if path.stem == "amos22_repux":
        other = read_datalist(path.with_name("amos_task01.json"), tmp_path)
        shared |= {case.id for case in datalist.sections["test"]} & {case.id for case in other.sections["training"]}
    assert shared == datalist.known_overlaps


@pytest.mark.parametrize("path", LISTS, ids=lambda p: p.stem)
def test_its_provenance_is_told(path):
    readme = (ROOT / "data_json" / "README.md").read_text()
    assert f"`{path.relative_to(ROOT / 'data_json').as_posix()}`" in readme


@pytest.mark.parametrize(("name", "dataset"), [("btcv", "btcv"), ("amos_task01", "amos")])
def test_labels_and_numbers_are_the_data_sets(name, dataset):
    table, facts = json.loads((ROOT / "data_json" / f"{name}.json").read_text()), datasets()[dataset]
    assert table["labels"] == {str(value): label for value, label in facts.labels.items()}
    assert tuple(table["modality"].values()) == facts.modality
    assert {section: len(table[section]) for section in facts.splits} == facts.splits
    for section in ("training", "validation"):
        assert all(ids([entry]) == ids([entry], "label") for entry in table[section])


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


def numbers(entries: list[dict]) -> set[int]:
    return {int(re.search(r"_(\d{3,4})", PurePosixPath(entry["image"]).name)[1]) for entry in entries}


def test_the_splits_of_repuxnet():
    flare = json.loads((ROOT / "data_json" / "flare21.json").read_text())
    assert numbers(flare["training"]) | numbers(flare["test"]) == set(range(361))
    assert sorted(numbers(flare["test"]))[:3] == [36, 39, 44] and len(numbers(flare["test"])) == 20
    assert flare["labels"] == {str(value): name for value, name in datasets()["flare"].labels.items()}
    ours = json.loads((ROOT / "data_json" / "amos22_repux.json").read_text())
    challenge = json.loads((ROOT / "data_json" / "amos_task01.json").read_text())
    assert numbers(ours["training"]) | numbers(ours["test"]) == numbers(challenge["training"])
    assert (len(ours["training"]), len(ours["test"])) == (180, 20)
    assert set(ours["known_overlaps"]) == {f"amos_{number:04}" for number in numbers(ours["test"])}
    assert ours["labels"] == challenge["labels"]
    assert all("label" in entry for table in (ours, flare) for entry in table["test"])
    for table in (ours, flare):
        sizes = [sum(entry["fold"] == fold for entry in table["training"]) for fold in range(5)]
        assert max(sizes) - min(sizes) <= 1


def hermes(name: str) -> dict[str, list[str]]:
    """Section -> ids or, where a subject has several cases, subjects."""
    table = json.loads((ROOT / "data_json" / "hermes" / f"{name}.json").read_text())
    cut = "subject" if name in ("chaos", "mnm") else "case_id"
    return {section: list(dict.fromkeys(case[cut] for case in table[section])) for section in SECTIONS}


@pytest.mark.parametrize(
    ("name", "numbers"),
    [
        ("lits", range(131)),
        ("kits", range(210)),
        ("structseg_oar", range(1, 51)),
        ("structseg_head_oar", range(1, 51)),
        ("bcv", (*range(1, 11), *range(21, 41))),
    ],
)
def test_the_lists_of_hermes_hold_every_case_once(name, numbers):
    listed = [int(case.removeprefix("img")) for cases in hermes(name).values() for case in cases]
    assert sorted(listed) == sorted(numbers)


def test_hermes_splits_amos_almost_as_the_challenge_does():
    challenge = json.loads((ROOT / "data_json" / "amos_task01.json").read_text())
    ct, mr = hermes("amos_ct"), hermes("amos_mr")
    tested, others = {int(case) for case in ct["test"]}, {int(case) for case in ct["training"] + ct["validation"]}
    assert tested | others == ids(challenge["validation"]) | ids(challenge["training"])
    assert len(tested & ids(challenge["training"])) == len(others & ids(challenge["validation"])) == 9
    assert all(500 < int(case) <= 600 for cases in mr.values() for case in cases)


@pytest.mark.usefixtures("full_set")
def test_the_sections_of_hermes_are_the_published_ones():
    for name, published in json.loads(HERMES.read_text())["splits"].items():
        ours = hermes(name)
        for section, theirs in zip(SECTIONS, ("train", "val", "test"), strict=True):
            assert ours[section] == list(dict.fromkeys(map(str, published[theirs]))), (name, section)


@pytest.mark.usefixtures("full_set")
@pytest.mark.parametrize(
    ("ours", "theirs"), [("btcv", "btcv_dataset"), ("amos_task01", "amos_task01_dataset")], ids=["btcv", "amos"]
)
def test_the_sections_are_the_published_ones(ours, theirs):
    published = PUBLISHED / f"{theirs}.json"
    mine, other = json.loads((ROOT / "data_json" / f"{ours}.json").read_text()), json.loads(published.read_text())
    for section in ("training", "validation", "test"):
        assert mine[section] == [{"image": e} if isinstance(e, str) else e for e in other[section]]
    assert mine["labels"].keys() == other["labels"].keys()
