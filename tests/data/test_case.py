"""Every case has one id, whatever its files are called, and one output of that name."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medseg.data import Case, read_datalist
from medseg.data.case import complete_channels, name_cases, numbered_channels, output_files
from medseg.errors import DataError
from medseg.transforms.reader import stem_of
from medseg.workflows.prediction import collect_cases


def _ids(*names: str) -> list[str]:
    return name_cases([[Path("/data") / name] for name in names], "/data")


@pytest.mark.parametrize(
    ("names", "ids"),
    [
        (["p1/anat/scan.nii.gz", "p2/anat/scan.nii.gz"], ["p1_anat_scan", "p2_anat_scan"]),
        (["scan.nii.gz", "scan_0000.nii.gz"], ["scan", "scan_0000"]),
        (["scan.nii.gz", "scan.nii"], ["scan.nii.gz", "scan.nii"]),
        (["a.nii.gz", "a.nii.gz.nii.gz"], ["a", "a.nii.gz"]),
        (["1.2.840.1_0000.nii.gz", "1.2.840.2_0000.nii.gz"], ["1.2.840.1", "1.2.840.2"]),
        (["p1/scan.nii.gz", "other.mha"], ["scan", "other"]),
        (["x_0001.png", "x_0002.png"], ["x_0001", "x_0002"]),
    ],
)
def test_the_shortest_name_that_no_other_case_has(names: list[str], ids: list[str]) -> None:
    assert _ids(*names) == ids


_part = st.text("ab_0.", min_size=1, max_size=6).filter(lambda text: text.strip("."))
_file = st.builds("{}/{}{}".format, _part, _part, st.sampled_from([".nii.gz", ".nii", "_0000.nii.gz", ".png"]))


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.lists(_file, min_size=2, max_size=8, unique=True))
def test_ids_differ_or_are_refused(names: list[str]) -> None:
    try:
        ids = _ids(*names)
    except DataError as error:
        assert "would both be case" in str(error)
    else:
        assert len(set(ids)) == len(names)


def test_the_same_file_twice_is_refused() -> None:
    with pytest.raises(
        DataError, match="would both be case 'a.nii.gz'; expected one name per case. List each file once"
    ):
        _ids("a.nii.gz", "a.nii.gz")


def test_channels_are_numbers_and_complete() -> None:
    numbered, others = numbered_channels(
        Path(name) for name in ("1.2_0001.nii.gz", "1.2_0000.nii.gz", "d/1.2_0000.nii.gz", "plain.nii.gz")
    )
    assert {stem_of(case): sorted(numbers) for case, numbers in list(numbered.items())[:1]} == {"1.2": [0, 1]}
    assert len(numbered) == 2 and others == [Path("plain.nii.gz")]
    with pytest.raises(DataError, match=r"d/1\.2\.nii\.gz has 0000, expected 0000, 0001"):
        complete_channels(numbered, 2)
    for numbers in ((0, 2), (1, 2), (0, 1, 2)):
        files = {f"{number}": Path(f"gap_{number:04}.nii.gz") for number in numbers}
        numbered, _ = numbered_channels(files.values())
        with pytest.raises(DataError, match="expected 0000, 0001"):
            complete_channels(numbered, 2)


def test_files_with_and_without_channel_numbers(tmp_path: Path) -> None:
    for name in ("1.2.3_0000.nii.gz", "1.2.3_0001.nii.gz", "whole.nii.gz"):
        (tmp_path / name).touch()
    cases = collect_cases([tmp_path], num_channels=2)
    assert [(case.id, len(case.images)) for case in cases] == [("1.2.3", 2), ("whole", 1)]
    (tmp_path / "1.2.4_0001.nii.gz").touch()
    with pytest.raises(DataError, match=r"1\.2\.4\.nii\.gz has 0001, expected 0000, 0001"):
        collect_cases([tmp_path], num_channels=2)


def test_outputs_have_names_of_their_own(tmp_path: Path) -> None:
    cases = [Case("a", ("x/1.nii.gz",)), Case("b", ("x/2.png",))]
    assert [path.name for path in output_files(cases, tmp_path).values()] == ["a.nii.gz", "b.png"]
    with pytest.raises(DataError, match="Case id 'a' stands for x/1.nii.gz and y/1.nii.gz"):
        output_files([cases[0], Case("a", ("y/1.nii.gz",))], tmp_path)
    with pytest.raises(DataError, match="The label map of a would replace the input"):
        output_files([Case("a", (str(tmp_path / "a.nii.gz"),))], tmp_path)


def test_a_datalist_has_one_id_per_case(tmp_path: Path) -> None:
    entry = {"image": "a.nii.gz", "label": "l.nii.gz", "case_id": "one"}
    other = {"image": "b.nii.gz", "case_id": "one"}
    path = tmp_path / "list.json"
    path.write_text(
        f'{{"labels": {{"0": "background", "1": "x"}}, "training": [{entry}], "test": [{other}]}}'.replace("'", '"')
    )
    with pytest.raises(DataError, match=r"case id 'one' stands for .*a\.nii\.gz and .*b\.nii\.gz"):
        read_datalist(path)


def test_a_case_becomes_monais_dictionary_once() -> None:
    case = Case.from_entry({"image": ["a", "b"], "label": "l", "fold": 0, "subject": 7, "scanner": "x"}, "id")
    assert case.to_dict() == {
        "image": ["a", "b"],
        "case_id": "id",
        "label": "l",
        "fold": 0,
        "subject": "7",
        "scanner": "x",
    }
    assert "label" not in case.to_dict(label=False) and case.group == "7" and case.files == ("a", "b", "l")
    assert Case("id", ("a",)).to_dict() == {"image": "a", "case_id": "id"} and Case("id", ("a",)).group == "id"
