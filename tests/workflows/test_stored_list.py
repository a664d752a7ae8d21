"""The list in a run is a file from whoever made it: what leaves the data root needs the user's word."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from medseg.bundle.trust import trusted_bundles
from medseg.data import read_datalist
from medseg.errors import DataError
from medseg.workflows.stored_list import read_stored_list, remember_list


@pytest.fixture
def run(tmp_path) -> Path:
    (tmp_path / "run" / "configs").mkdir(parents=True)
    (tmp_path / "data" / "images").mkdir(parents=True)
    return tmp_path / "run"


def write(run: Path, **entry: object) -> Path:
    table = {"name": run.parent.name, "labels": {"0": "background", "1": "a"}, "modality": {"0": "CT"}}
    case = {"image": "images/a.nii.gz", "label": "labels/a.nii.gz", **entry}
    path = run / "configs" / "datalist.json"
    path.write_text(json.dumps(table | {"training": [case]}))
    return path


@pytest.mark.parametrize(
    "entry",
    [
        {"image": "/etc/a.nii.gz"},
        {"image": "../other/a.nii.gz"},
        {"image": "images/../../a.nii.gz"},
        {"label": "/etc/b.nii.gz"},
        {"image": "../data_of_another/a.nii.gz"},
    ],
    ids=str,
)
def test_an_entry_that_leaves_the_root_is_refused(entry, run) -> None:
    path = write(run, **entry)
    with pytest.raises(DataError, match=r"training\[0\]\.(image|label) .* leaves the data root .*--data_dir"):
        read_stored_list(run, run.parent / "data")
    assert read_datalist(path, run.parent / "data").sections["training"]  # named on a command line
    with trusted_bundles():
        read_stored_list(run, run.parent / "data")


def test_a_list_that_the_user_trained_on_is_read(run) -> None:
    path = write(run, image="../elsewhere/a.nii.gz")
    remember_list(run, read_datalist(path, run.parent / "data"))
    read_stored_list(run, run.parent / "data")
    write(run, image="../elsewhere/b.nii.gz")
    with pytest.raises(DataError, match="leaves the data root"):
        read_stored_list(run, run.parent / "data")


def test_entries_below_the_root_are_read_however_they_are_written(run) -> None:
    write(run, image=str(run.parent / "data" / "images" / "a.nii.gz"), label="labels/../labels/a.nii.gz")
    read_stored_list(run, run.parent / "data")
