"""What every module owes its users, on its archive's layout: raw files untouched, resumed, refused in one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest
from layouts import LAYOUTS

from medseg.data import Datalist, inspect_cases
from medseg.data.files import read_volume
from medseg.data.voxels import count_values
from medseg.datasets import dataset_module, datasets
from medseg.errors import CasesFailed, ConfigError, DataError
from medseg.workflows.prepare import prepare


def snapshot(root: Path) -> dict[str, tuple[bytes, int]]:
    files = (path for path in sorted(root.rglob("*")) if path.is_file())
    return {path.relative_to(root).as_posix(): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


@pytest.mark.parametrize("name", datasets())
def test_an_archive_is_prepared_and_resumed(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw, out = LAYOUTS[name](tmp_path / "raw", monkeypatch), tmp_path / "out"
    before = snapshot(raw)
    prepared = prepare(name, raw, out)
    assert snapshot(raw) == before
    datalist = prepared.datalist
    assert str(datalist.path) in prepared.lines()[0] and dataset_module(name).FACTS.terms in prepared.lines()[1]
    cases = [case for section in datalist.sections.values() for case in section]
    made = [path for path in out.rglob("*") if path.is_file() and path != datalist.path and path.name != "form.json"]
    if datalist.data_dir == out and name != "btcv":  # whose files are empty here
        facts = inspect_cases(cases, datalist.label_space, datalist.channels)
        assert not [problem for case in facts for problem in case.problems if not problem.warning]

    listed, times = datalist.path.read_bytes(), {path: path.lstat().st_mtime_ns for path in made}
    lost = sorted(made)[len(made) // 2 :][:1]
    for path in lost:
        path.unlink()
    assert prepare(name, raw, out).datalist.path.read_bytes() == listed
    assert all(path.exists() for path in made)
    again = {path.name.replace("_gt.", ".") for path in made if path.lstat().st_mtime_ns != times[path]}
    assert again == {path.name.replace("_gt.", ".") for path in lost}  # an image and its label are made together
    assert snapshot(raw) == before


def found_values(datalist: Datalist) -> dict[str, set[float]]:
    """Data set of the label table -> the values in the label files of its cases."""
    found: dict[str, set[float]] = {}
    for case in (case for cases in datalist.sections.values() for case in cases if case.label):
        values = count_values(read_volume(case.label, mask=True).channels[0])
        found.setdefault(case.dataset or "", set()).update(values)
    return found


@pytest.mark.parametrize("name", datasets())
def test_declared_values_are_those_of_the_files(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The synthetic archives hold every published value; a table that states another one is wrong."""
    datalist = prepare(name, LAYOUTS[name](tmp_path / "raw", monkeypatch), tmp_path / "out").datalist
    assert found_values(datalist) == {"": set(datalist.label_space.fragment().declared)}


@pytest.mark.parametrize("name", [name for name, facts in datasets().items() if facts.labels])
def test_a_wrong_label_value_is_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One label gets the value after it: a file holds a value that nothing declares."""
    raw, labels = LAYOUTS[name](tmp_path / "raw", monkeypatch), datasets()[name].labels
    value = max(labels)
    monkeypatch.setitem(labels, value + 1, labels[value])
    monkeypatch.delitem(labels, value)
    with pytest.raises((DataError, CasesFailed), match=rf"declare.*\b{value}\b") as error:
        prepare(name, raw, tmp_path / "out")
    assert any(part in str(error.value) for part in (".nii.gz", ".png")) and "\n" not in str(error.value)


@pytest.mark.parametrize("name", datasets())
def test_another_folder_is_refused_in_one_sentence(name: str, tmp_path: Path) -> None:
    raw = tmp_path / "holiday"
    (raw / "beach").mkdir(parents=True)
    (raw / "beach" / "IMG_0001.txt").write_text("sand")
    with pytest.raises(DataError) as error:
        prepare(name, raw, tmp_path / "out")
    message = str(error.value)
    assert str(raw) in message and "\n" not in message and message.endswith((".", "?")) and len(message) < 700
    assert not (tmp_path / "out").exists()
    with pytest.raises(ConfigError, match="not found; --raw names the unpacked archive"):
        prepare(name, tmp_path / "nowhere", tmp_path / "out")
    with pytest.raises(ConfigError, match="lies in the raw folder"):
        prepare(name, raw, raw / "out")
