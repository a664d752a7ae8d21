"""The contract of every data set module, and the Decathlon's module on its layout."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from pathlib import Path

import layouts
import pytest

from medseg.data import inspect_cases, read_datalist
from medseg.datasets import DatasetFacts, dataset_module, datasets
from medseg.datasets.msd import prepare
from medseg.errors import ConfigError, DataError

ROOT = Path(__file__).parents[2]
HIPPOCAMPUS = ROOT.parent / "shared" / "data" / "Task04_Hippocampus"


@pytest.mark.parametrize("name", datasets())
def test_a_module_keeps_the_contract(name):
    module, facts = dataset_module(name), datasets()[name]
    assert isinstance(facts, DatasetFacts)
    assert module.__doc__
    assert facts.title and facts.source and facts.terms and facts.layout
    assert facts.spatial_dims in (2, 3)
    assert not facts.labels or facts.labels[0] == "background"
    signature = inspect.signature(module.prepare)
    assert list(signature.parameters)[:2] == ["raw_dir", "out_dir"]
    options = list(signature.parameters.values())[2:]
    assert all(p.kind is p.KEYWORD_ONLY and p.default is not p.empty for p in options)


def test_listing_needs_no_torch():
    code = "import sys, medseg.datasets as d; assert d.datasets(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, timeout=60)


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(ConfigError, match="No data set 'mds'. Did you mean 'msd'"):
        dataset_module("mds")


@pytest.fixture
def task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return layouts.msd(tmp_path / "Task99_Tiny", monkeypatch)


def test_a_decathlon_task_becomes_a_checked_datalist(task, tmp_path):
    path = prepare(task, tmp_path / "out")
    assert path == tmp_path / "out" / "msd_tiny.json"
    table = json.loads(path.read_text())
    assert table["numTraining"] == 7
    assert table["numTest"] == 2
    assert table["training"][0]["image"] == "imagesTr/tiny_000.nii.gz"
    datalist = read_datalist(path, task)
    assert datalist.folds() == [0, 1, 2, 3, 4]
    assert [case.id for case in datalist.sections["test"]] == ["tiny_007", "tiny_008"]
    cases = [case for section in datalist.sections.values() for case in section]
    assert not any(facts.broken for facts in inspect_cases(cases, datalist.label_space))
    first = path.read_bytes()
    assert prepare(task, tmp_path / "out", seed=1).read_bytes() != first


def test_missing_files_are_counted(task, tmp_path):
    (task / "labelsTr" / "tiny_003.nii.gz").unlink()
    with pytest.raises(DataError, match=r"1 of 16 files .* missing, the first is .*tiny_003"):
        prepare(task, tmp_path / "out")


def test_folds_of_the_archive_are_kept(task, tmp_path):
    source = task / "dataset.json"
    table = json.loads(source.read_text())
    table["training"] = [entry | {"fold": number % 2} for number, entry in enumerate(table["training"])]
    source.write_text(json.dumps(table))
    written = json.loads(prepare(task, tmp_path / "out").read_text())
    assert [entry["fold"] for entry in written["training"]] == [0, 1, 0, 1, 0, 1, 0]


def test_the_hippocampus_task(tmp_path):
    if not HIPPOCAMPUS.is_dir():
        pytest.skip(f"{HIPPOCAMPUS} is not here")
    datalist = read_datalist(prepare(HIPPOCAMPUS, tmp_path), HIPPOCAMPUS)
    assert len(datalist.sections["training"]) == 139
    assert len(datalist.sections["validation"]) == 20
    assert datalist.label_space.labels == ("anterior hippocampus", "posterior hippocampus")
