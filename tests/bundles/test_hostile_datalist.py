"""Nothing that a datalist says is ever run or followed: names, paths, metadata and ids are data."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from monai.bundle import ConfigParser, ConfigWorkflow

from medseg.bundle.compose import load_workflow
from medseg.data import read_datalist
from medseg.errors import MedsegError
from medseg.workflows.new_bundle import new_bundle

NETWORK = {"network": "BasicUNet", "overrides": {"network_def::features": [4, 4, 4, 4, 4, 4], "roi_size": [32, 32, 32]}}


@pytest.fixture
def case(make_datalist, tmp_path) -> Path:
    """A copy of the tiny data set that a test may spoil."""
    shutil.copytree(make_datalist().parent, tmp_path / "data")
    return tmp_path / "data" / "datalist.json"


@pytest.fixture
def bomb(tmp_path, monkeypatch) -> Path:
    """The file that the hostile expressions would write."""
    monkeypatch.chdir(tmp_path)
    return tmp_path / "pwned"


EXPRESSION = "$open('pwned', 'w').close()"


def everything(folder: Path) -> None:
    """Resolve all that any tool may resolve of a bundle: every id of every config, metadata included."""
    for files, kind in (
        (["train.yaml"], "train"),
        (["train.yaml", "evaluate.yaml"], "train"),
        (["inference.yaml"], "infer"),
    ):
        workflow = ConfigWorkflow(
            config_file=[str(folder / "configs" / name) for name in files],
            meta_file=str(folder / "configs" / "metadata.json"),
            logging_file=False,
            workflow_type=kind,
            bundle_root=str(folder),
        )
        workflow.initialize()
        assert workflow.check_properties() == []
        workflow.parser.get_parsed_content("_meta_")
        for key in workflow.parser.get():
            if key not in ("run", "finalize"):
                workflow.parser.get_parsed_content(key)


def spoil(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


FREE_TEXT = {
    key: EXPRESSION
    for key in ("description", "reference", "licence", "license", "release", "author", "tensorImageSize")
}
REFUSED = {
    "name": {"name": EXPRESSION},
    "name, reference": {"name": "@train"},
    "name, macro": {"name": "%train.yaml::run"},
    "channel": {"modality": {"0": EXPRESSION}},
    "label": {"labels": {"0": "background", "1": EXPRESSION, "2": "b"}},
    "label, patch": {"labels": {"0": "background", "1": "train::trainer", "2": "b"}},
    "label, old patch": {"labels": {"0": "background", "1": "a#b", "2": "b"}},
    "label, merge": {"labels": {"0": "background", "1": "+run", "2": "b"}},
    "label, new line": {"labels": {"0": "background", "1": "a\n$b", "2": "b"}},
    "region": {"label_space": {"labels": {"a": 1, "b": 2}, "regions": {EXPRESSION: ["a"]}}},
    "data set": {"label_space": {"labels": {"a": 1, "b": 2}, "datasets": {EXPRESSION: {"labels": {"a": 1}}}}},
    "mode": {"label_space": {"labels": {"a": 1, "b": 2}, "mode": EXPRESSION}},
}


def test_free_text_stays_text(case, bomb, tmp_path):
    spoil(case, **FREE_TEXT)
    new_bundle(json_list=case, output=tmp_path / "bundle", **NETWORK)
    everything(tmp_path / "bundle")
    assert not bomb.exists()


@pytest.mark.parametrize("changes", REFUSED.values(), ids=REFUSED)
def test_a_name_that_a_parser_would_run_is_refused(changes, case, bomb, tmp_path):
    spoil(case, **changes)
    with pytest.raises(MedsegError):
        new_bundle(json_list=case, output=tmp_path / "bundle", **NETWORK)
    assert not bomb.exists()


def test_cases_with_hostile_paths_and_fields_run_nothing(case, bomb, tmp_path):
    table = json.loads(case.read_text())
    for number, entry in enumerate(table["training"]):
        hostile = f"$open('pwned','w').close() @train {number} ü.nii.gz"
        shutil.copy(case.parent / entry["image"], case.parent / hostile)
        entry |= {"image": hostile, "dataset": EXPRESSION, "subject": EXPRESSION + str(number), "modality": EXPRESSION}
    case.write_text(json.dumps(table))
    new_bundle(json_list=case, output=tmp_path / "bundle", **NETWORK)
    everything(tmp_path / "bundle")
    workflow = load_workflow(tmp_path / "bundle", "train", {"cache": "plain", "device": "cpu"})
    loader = workflow.parser.get_parsed_content("train::dataloader")
    assert next(iter(loader))["image"].shape[0] == 2
    assert not bomb.exists()


@pytest.mark.parametrize("name", ["$open('pwned','w').close()", "@train", "%x", "a b ü"])
def test_a_data_folder_of_any_name_is_a_path(name, make_datalist, bomb, tmp_path):
    shutil.copytree(make_datalist().parent, tmp_path / name)
    new_bundle(json_list=f"{name}/datalist.json", data_dir=name, output="bundle", **NETWORK)
    written = ConfigParser.load_config_file(str(tmp_path / "bundle" / "configs" / "train.yaml"))
    assert written["dataset_dir"] == str(tmp_path / name)
    everything(tmp_path / "bundle")
    assert not bomb.exists()


@pytest.mark.parametrize("case_id", ["../../outside", "/outside", "a/b", "..", "a\x00b", ""])
def test_a_case_id_that_leaves_the_output_folder_is_refused(case_id, case):
    table = json.loads(case.read_text())
    table["training"][0]["case_id"] = case_id
    case.write_text(json.dumps(table))
    with pytest.raises(MedsegError, match="case_id"):
        read_datalist(case)
