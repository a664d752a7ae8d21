"""Several datalists as one: tasks, modalities, weights, channels, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from medseg.data import read_datalist
from medseg.data.union import is_union
from medseg.errors import DataError

LIVER = {
    "name": "livers",
    "modality": {"0": "CT"},
    "labels": {"0": "background", "1": "liver", "2": "tumour"},
    "training": [
        {"image": f"{i}.nii.gz", "label": f"{i}_gt.nii.gz", "fold": i % 2, "subject": str(i)} for i in range(4)
    ],
}
PELVIS = {
    "name": "pelvis",
    "modality": {"0": "PET SUV", "1": "T2 MRI"},
    "labels": {"0": "background", "1": "bladder", "2": "liver"},
    "training": [
        {"image": [f"s{i + 1}_pet.nii.gz", f"s{i + 1}_t2.nii.gz"], "label": f"s{i + 1}_gt.nii.gz"} for i in range(2)
    ],
    "validation": [{"image": ["s9_pet.nii.gz", "s9_t2.nii.gz"], "label": "s9_gt.nii.gz", "modality": "pet"}],
}


def write(folder: Path, union: dict[str, Any] | str, **lists: dict[str, Any]) -> Path:
    for name, table in {"a": LIVER, "b": PELVIS, **lists}.items():
        (folder / name).mkdir(exist_ok=True)
        (folder / name / "list.json").write_text(json.dumps(table))
    text = union if isinstance(union, str) else yaml.safe_dump(union)
    (folder / "union.yaml").write_text(text)
    return folder / "union.yaml"


def union(**more: Any) -> dict[str, Any]:
    parts = {"one": "a/list.json", "two": {"json_list": "b/list.json", "channel": "T2 MRI", "weight": 0.5}}
    return {"tasks": {"bladder": 4}, "datasets": parts, **more}


def test_two_lists_become_one(tmp_path: Path) -> None:
    datalist = read_datalist(write(tmp_path, union()))
    space = datalist.label_space
    assert is_union(space) and not is_union(read_datalist(tmp_path / "a" / "list.json").label_space)
    assert dict(zip(space.labels, space.task_ids, strict=True)) == {"liver": 0, "tumour": 1, "bladder": 4}
    assert [*space.dataset_tasks("one")] == [0, 1] and [*space.dataset_tasks("two")] == [0, 4]  # liver is shared
    assert space.modalities == {"ct": 0, "mr": 1, "pet": 2}
    training, validation = datalist.split()
    assert [case.id for case in training] == ["one_1", "one_3", "two_s1", "two_s2"]
    assert [case.modality for case in training] == ["ct", "ct", "mr", "mr"]
    assert {case.dataset for case in validation} == {"one", "two"}
    assert validation[-1].modality == "pet"  # its own
    assert training[2].images[0] == str(tmp_path / "b" / "s1_t2.nii.gz") and datalist.data_dir == tmp_path
    assert training[0].subject == "one/1"
    assert datalist.table["weights"] == {"one": pytest.approx(2**-0.5), "two": 0.5}  # one: two cases to train on


def test_the_copy_reads_back(tmp_path: Path) -> None:
    datalist = read_datalist(write(tmp_path, union(capacity=9)))
    (tmp_path / "datalist.json").write_bytes(datalist.as_stored())
    again = read_datalist(tmp_path / "datalist.json", datalist.data_dir)
    assert again.split() == datalist.split() and again.label_space == datalist.label_space
    assert again.table["capacity"] == 9


def test_a_data_set_more_is_two_files_and_keeps_ids(tmp_path: Path) -> None:
    before = read_datalist(write(tmp_path, union())).label_space
    grown = union()
    grown["datasets"]["three"] = {"json_list": "c/list.json", "labels": {"background": 0, "heart": [1, 2]}}
    grown["tasks"] = dict(zip(before.labels, before.task_ids, strict=True))
    after = read_datalist(write(tmp_path, grown, c=LIVER)).label_space
    ids = dict(zip(after.labels, after.task_ids, strict=True))
    assert ids == {"liver": 0, "tumour": 1, "heart": 2, "bladder": 4}
    assert after.fragment("three").values == {"heart": (1, 2)}


def changed(**part: Any) -> dict[str, Any]:
    content = union()
    content["datasets"]["two"] |= part
    return content


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({"datasets": {}}, "has no 'datasets'"),
        (union(datasetz=1), "unknown key 'datasetz'"),
        (union(tasks={"blader": 1}), "'blader', which no data set annotates.* 'bladder'"),
        (union(tasks={"liver": 3, "bladder": 3}), "id 3 is used by both"),
        (union(capacity=2), "'capacity' is 2; expected at least 5"),
        (changed(weight=0), "weight 0; expected a number above 0"),
        (changed(weight="much"), "weight 'much'"),
        (changed(channel="T3 MRI"), "no channel 'T3 MRI'.*'T2 MRI'"),
        (changed(channel=2), "channel 2; expected a name or a number from 0 to 1"),
        (changed(fold="x"), "fold 'x'"),
        (changed(json_list="b/none.json"), "not found"),
        (changed(jsonlist="b/list.json"), "unknown key 'jsonlist'"),
        ("datasets: {one: a/list.json, one: b/list.json}", "key 'one' appears twice"),
        ("- a/list.json", "expected a mapping"),
        ("datasets: {two: b/list.json}", "2 channels per case"),
    ],
)
def test_refused(tmp_path: Path, content: Any, sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        read_datalist(write(tmp_path, content))


def test_an_image_in_training_and_validation_of_two_sets(tmp_path: Path) -> None:
    parts = {name: {"json_list": "a/list.json", "fold": number} for number, name in enumerate(("first", "second"))}
    with pytest.raises(DataError, match=r"0\.nii\.gz is in training as second_0 and in validation as first_0"):
        read_datalist(write(tmp_path, {"datasets": parts}))


def test_overlaps_that_a_list_declares_hold_in_the_union(tmp_path: Path) -> None:
    """A subject of a published split that is on both sides."""
    again = {"image": "9.nii.gz", "label": "9_gt.nii.gz", "subject": "0"}
    overlapping = {**LIVER, "validation": [again], "known_overlaps": ["0"]}
    datalist = read_datalist(write(tmp_path, union(), a=overlapping))
    assert "one/0" in datalist.known_overlaps
    with pytest.raises(DataError, match="Subject 0 is in both"):
        read_datalist(write(tmp_path, union(), a={**overlapping, "known_overlaps": []}))


def test_a_union_in_a_union_keeps_its_weights_and_ids(tmp_path: Path) -> None:
    """So that a data set more is two files of one's own."""
    write(tmp_path, union(), c=LIVER)
    parts = {
        "old": "union.yaml",
        "mine": {"json_list": "c/list.json", "weight": 3.0, "labels": {"heart": 1, "lung": 2}},
    }
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"datasets": parts}))
    datalist = read_datalist(tmp_path / "mine.yaml")
    assert datalist.table["weights"] == {"one": pytest.approx(2**-0.5), "two": 0.5, "mine": 3.0}
    ids = dict(zip(datalist.label_space.labels, datalist.label_space.task_ids, strict=True))
    assert ids == {"liver": 0, "tumour": 1, "bladder": 4, "heart": 2, "lung": 3}
    assert sorted(case.dataset for case in datalist.split()[0]) == ["mine"] * 2 + ["one"] * 2 + ["two"] * 2


def test_tasks_of_images_that_are_not_at_hand(tmp_path: Path) -> None:
    table = union()
    table["datasets"]["gone"] = {"labels": {"background": 0, "heart": 3}}
    table["tasks"]["heart"] = 2
    datalist = read_datalist(write(tmp_path, table))
    assert "heart" in datalist.label_space.labels and [*datalist.label_space.dataset_tasks("gone")] == [2]
    assert {case.dataset for case in datalist.sections["training"]} == {"one", "two"}
    with pytest.raises(DataError, match="no data set with images"):
        read_datalist(write(tmp_path, {"datasets": {"gone": {"labels": {"heart": 3}}}}))
