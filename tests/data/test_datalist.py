"""Reading datalists, splits and folds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from medseg.data import Datalist, assign_folds, read_datalist
from medseg.data.folds import subject_of
from medseg.errors import DataError


def _write(folder: Path, training: list[Any], **top: Any) -> Path:
    table = {"modality": {"0": "CT"}, "labels": {"0": "background", "1": "liver"}, "training": training, **top}
    path = folder / "list.json"
    path.write_text(json.dumps(table), encoding="utf-8")
    return path


def _read(folder: Path, training: list[Any], **top: Any) -> Datalist:
    return read_datalist(_write(folder, training, **top))


def _case(name: str, **more: Any) -> dict[str, Any]:
    return {"image": f"images/{name}.nii.gz", "label": f"labels/{name}.nii.gz", **more}


def _ids(cases: list[dict[str, Any]]) -> list[str]:
    return [case.id for case in cases]


def test_paths_are_absolute_and_own_keys_are_kept(tmp_path: Path) -> None:
    datalist = _read(tmp_path, [_case("a", mask="m.nii.gz", instances="i.png", fold=0, subject="s")], name="Mine")
    case = datalist.sections["training"][0]
    assert case.images[0] == str(tmp_path / "images/a.nii.gz")
    assert case.label == str(tmp_path / "labels/a.nii.gz")
    assert (case.own["mask"], case.own["instances"], case.subject, case.id) == ("m.nii.gz", "i.png", "s", "a")
    assert datalist.name == "Mine"
    assert read_datalist(datalist.path, "/").sections["training"][0].images[0] == "/images/a.nii.gz"


def test_test_section_as_bare_strings_and_by_its_other_name(tmp_path: Path) -> None:
    datalist = _read(tmp_path, [_case("a")], test=["t/x.nii.gz"], testing=[["t/y_0000.nii.gz", "t/y_0001.nii.gz"]])
    assert _ids(datalist.sections["test"]) == ["x", "y"]
    assert list(datalist.sections["test"][1].images) == [str(tmp_path / f"t/y_000{i}.nii.gz") for i in (0, 1)]
    assert "testing" not in datalist.sections


@pytest.mark.parametrize(
    ("files", "name"),
    [
        (["case_100_0000", "case_100_0001"], "case_100"),  # zeros of the case's own number stay
        (["case_0_0000", "case_0_0001", "case_0_0002"], "case_0"),
        (["10_0009", "10_0010"], "10"),
        (["p1000.t1", "p1000.t2"], "p1000.t"),
        (["s20-flair", "s20-t1"], "s20"),
        (["t1", "flair"], "t1"),
    ],
)
def test_a_case_of_several_files_is_named_by_what_they_share(tmp_path: Path, files: list[str], name: str) -> None:
    datalist = _read(tmp_path, [_case("a")], test=[[f"{file}.nii.gz" for file in files]])
    assert _ids(datalist.sections["test"]) == [name]


def test_lists_that_are_no_sections_are_left_alone(tmp_path: Path) -> None:
    datalist = _read(
        tmp_path, [_case("a")], regions_class_order=[1, 2], tags=["ct"], known_overlaps=["z"], holdout=[_case("h")]
    )
    assert set(datalist.sections) == {"training", "validation", "test", "holdout"}
    assert datalist.known_overlaps == {"z"}


@pytest.mark.parametrize(
    ("key", "meant"),
    [("lables", "labels"), ("regoins", "regions"), ("validaton", "validation"), ("dat_dir", "data_dir")],
)
def test_a_misspelt_top_level_key_is_refused_with_the_nearest(tmp_path: Path, key: str, meant: str) -> None:
    with pytest.raises(DataError, match=f"list.json has unknown key '{key}'. Did you mean '{meant}'"):
        path = _write(tmp_path, [_case("a")])
        table = {k: v for k, v in json.loads(path.read_text()).items() if k != meant}
        path.write_text(json.dumps(table | {key: [_case("b")]}))
        read_datalist(path)


def test_top_level_keys_that_nothing_reads_are_named(tmp_path: Path, caplog: Any) -> None:
    _read(tmp_path, [_case("a")], relase="1.0", site="Oslo", numTest=0, holdout=[_case("h")])
    assert "unknown keys are ignored: relase, site." in caplog.text
    assert "holdout" not in caplog.text


def test_channel_names_in_order_of_their_numbers(tmp_path: Path) -> None:
    assert _read(tmp_path, [_case("a")], modality={str(i): f"c{i}" for i in (10, 2, 0)}).channels == ("c0", "c2", "c10")
    assert _read(tmp_path, [_case("a")], modality=["T1", "T2"]).channels == ("T1", "T2")
    assert _read(tmp_path, [_case("a")], modality="CT").channels == ("CT",)
    with pytest.raises(DataError, match="'modality' is {'CT': 0}; expected for example"):
        _read(tmp_path, [_case("a")], modality={"CT": 0})


def test_ids_of_colliding_stems_come_from_the_folders(tmp_path: Path) -> None:
    cases = [{"image": f"{p}/scan.nii.gz", "label": f"{p}/seg.nii.gz"} for p in ("p1/pre", "p2/pre")]
    datalist = _read(tmp_path, [*cases, _case("other")])
    assert _ids(datalist.sections["training"]) == ["p1_pre_scan", "p2_pre_scan", "other"]
    channels = {"image": ["s_flair.nii.gz", "s_t1.nii.gz"], "label": "s.nii.gz"}
    assert _ids(_read(tmp_path, [channels]).sections["training"]) == ["s"]


@pytest.mark.parametrize("case_id", ["../up", "a/b", "a\\b", "..", " "])
def test_ids_are_no_paths(tmp_path: Path, case_id: str) -> None:
    with pytest.raises(DataError, match="expected a plain name"):
        _read(tmp_path, [_case("a", case_id=case_id)])


def test_split_by_validation_section_by_fold_and_by_folds_made_on_the_spot(tmp_path: Path) -> None:
    folds = [_case(name, fold=i % 2) for i, name in enumerate("abcd")]
    datalist = _read(tmp_path, folds, validation=[_case("v")])
    assert [_ids(part) for part in datalist.split()] == [["a", "b", "c", "d"], ["v"]]
    assert [_ids(part) for part in datalist.split(1)] == [["a", "c"], ["b", "d"]]
    assert datalist.folds() == [0, 1]
    with pytest.raises(DataError, match=r"no fold 7; the training section has folds \[0, 1\]"):
        datalist.split(7)
    plain = _read(tmp_path, [_case(name) for name in "abcdefg"])
    training, validation = plain.split(2)
    assert set(_ids(training)) | set(_ids(validation)) == set("abcdefg")
    assert not set(_ids(training)) & set(_ids(validation))
    assert plain.split(2) == (training, validation)
    assert sorted(sum((_ids(plain.split(k)[1]) for k in range(5)), [])) == list("abcdefg")


def test_too_few_cases_for_folds(tmp_path: Path, caplog: Any) -> None:
    three = _read(tmp_path, [_case(name) for name in "abc"])
    assert [len(part) for part in three.split(2)] == [2, 1]
    assert "3 cases cannot give 5 folds; using 3" in caplog.text
    one = _read(tmp_path, [_case("a")])
    assert [len(part) for part in one.split(0)] == [1, 0]
    assert "too few training cases to split into folds; training goes without validation" in caplog.text


def test_folds_keep_subjects_together_and_are_even() -> None:
    cases = [{"case_id": f"{s}{v}", "subject": s} for s in "abcdefghij" for v in range(1 + (s in "abc"))]
    dealt = assign_folds(cases, 5, seed=3)
    assert assign_folds(cases, 5, seed=3) == dealt
    assert assign_folds(cases, 5, seed=4) != dealt
    assert "fold" not in cases[0]
    of_subject: dict[str, set[int]] = {}
    for case in dealt:
        of_subject.setdefault(subject_of(case), set()).add(case["fold"])
    assert all(len(folds) == 1 for folds in of_subject.values())
    sizes = [sum(case["fold"] == k for case in dealt) for k in range(5)]
    assert sum(sizes) == 13
    assert max(sizes) - min(sizes) <= 1


def test_known_overlaps_allow_a_published_split(tmp_path: Path, caplog: Any) -> None:
    training, validation = [_case("a", subject="s1"), _case("b")], [_case("c", subject="s1")]
    with pytest.raises(DataError, match="Subject s1 is in both training and validation"):
        _read(tmp_path, training, validation=validation)
    assert _read(tmp_path, training, validation=validation, known_overlaps=["s1"]).known_overlaps == {"s1"}
    assert "Subject s1 is in both training and validation" in caplog.text


def test_label_space_wins_over_labels(tmp_path: Path) -> None:
    space = {"labels": {"background": 0, "nodule": 255}}
    assert _read(tmp_path, [_case("a")], label_space=space).label_space.labels == ("nodule",)


def test_regions_and_ignored_values_beside_labels(tmp_path: Path) -> None:
    labels = {"0": "background", "1": "core", "2": "edema"}
    space = _read(tmp_path, [_case("a")], labels=labels, regions={"whole": ["core", "edema"]}, ignore=[9]).label_space
    assert (space.mode, space.regions, space.fragment("").ignore) == ("softmax", {"whole": ("core", "edema")}, (9,))
    with pytest.raises(DataError, match="'oedema'"):
        _read(tmp_path, [_case("a")], labels=labels, regions={"whole": ["core", "oedema"]})


def test_locate(tmp_path: Path) -> None:
    datalist = _read(tmp_path, [_case("a"), _case("b")], test=["t.nii.gz"])
    assert datalist.locate(datalist.sections["training"][1]) == "training[1]"
    assert datalist.locate(datalist.sections["test"][0]) == "test[0]"


def test_every_data_set_at_hand_is_sound() -> None:
    folder = Path(__file__).parents[2].parent / "shared" / "data"
    lists = sorted(folder.glob("*/dataset.json"))
    if not lists:
        pytest.skip(f"no data sets in {folder}")
    for path in lists:
        datalist = read_datalist(path)
        training, validation = datalist.split()
        assert training and not {case.id for case in training} & {case.id for case in validation}
        assert all(Path(file).is_file() for case in (*training, *validation) for file in case.files)
