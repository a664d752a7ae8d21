"""``medseg check --bundle``: every fault that the model zoo's verifier would find is found, offline."""

from __future__ import annotations

import json
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest

from medseg.bundle.schema import check_metadata
from medseg.bundle.verify import verify_bundle
from medseg.cli import main
from medseg.errors import ModelError

BUNDLE = Path(__file__).parents[2] / "bundles" / "ssh_unet_btcv_ct_segmentation"
LIGHT = {"network_def::filters": [4, 4, 4, 4, 4]}
MEDNEXT = {
    "network_def": {
        "_target_": "medseg.networks.MedNeXt",
        "spatial_dims": 3,
        "in_channels": 1,
        "out_channels": 14,
        "size": "S",
        "features": 4,
    }
}


@pytest.fixture(autouse=True)
def offline(monkeypatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("a bundle's acceptance must not reach the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)


@pytest.fixture
def bundle(tmp_path) -> Path:
    folder = tmp_path / "bundle"
    shutil.copytree(BUNDLE, folder, ignore=shutil.ignore_patterns("eval", "models"))
    return folder


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def metadata() -> dict[str, Any]:
    return json.loads((BUNDLE / "configs" / "metadata.json").read_text())


def test_a_sound_bundle_has_warnings_only(bundle) -> None:
    problems = verify_bundle(bundle, LIGHT)
    assert [problem for problem in problems if not problem.warning] == []
    said = {problem.case: f"{problem.message} {problem.remedy}" for problem in problems}
    assert "medseg import-weights" in said["models/model.pt"]
    assert "network_def" not in said  # ckpt_export scripts the network, as the zoo's verifier asks


def test_a_network_that_is_traced_only_is_a_warning(bundle) -> None:
    (problem,) = [problem for problem in verify_bundle(bundle, MEDNEXT) if problem.case == "network_def"]
    assert problem.warning and "cannot script" in problem.message and "--use_trace True" in problem.remedy


@pytest.mark.parametrize(
    ("file", "old", "new", "place", "sentence"),
    [
        ("inference.yaml", "in_channels: 1", "in_channels: 2", "configs/inference", "in_channels is 2, the metadata"),
        ("inference.yaml", "roi_size: [96, 96, 96]", "roi_size: [96, 96, 64]", "configs/inference", "roi_size is"),
        ("inference.yaml", "spleen: 1", "spleen: 1, extra: 99", "configs/inference", "labels"),
        ("inference.yaml", "gate_type: tsm", "gate_type: gsm", "configs/inference", "network_def differs"),
        ("inference.yaml", "inferer: {", "inferer_: {", "configs, infer", "inferer"),
        ("train.yaml", "learning_rate: 0.0004", "learning_rate: 4e-4", "configs/train.yaml", "4e-4 is a string"),
        ("train.yaml", "dataset_dir: /data/btcv", "dataset_dir: https://a.b", "configs/train.yaml", "an address"),
        ("train.yaml", "interval: '@val_interval'", "interval: '@epochs'", "configs, train", "val_interval"),
        ("train.yaml", "  handlers: []", "  handlers: \"@fold\"", "configs/train.yaml, validate::handlers", "no list"),
        ("metadata.json", '"0.1.0": "first', '"0.0.9": "first', "configs/metadata.json", "changelog: version 0.1.0 is"),
    ],
)  # fmt: skip
def test_a_fault_is_found_and_placed(file, old, new, place, sentence, bundle) -> None:
    edit(bundle / "configs" / file, old, new)
    found = [(problem.case, problem.message) for problem in verify_bundle(bundle, LIGHT) if not problem.warning]
    assert any(where == place and sentence in message for where, message in found), found


@pytest.mark.parametrize("name", ["LICENSE", "docs/README.md", "docs/data_license.txt", "configs/metadata.json"])
def test_a_missing_or_empty_file(name, bundle) -> None:
    (bundle / name).unlink()
    assert name in [problem.case for problem in verify_bundle(bundle) if not problem.warning]
    (bundle / name).touch()
    if name != "configs/metadata.json":
        assert name in [problem.case for problem in verify_bundle(bundle) if not problem.warning]


def test_code_and_links_have_no_place(bundle) -> None:
    (bundle / "scripts").mkdir()
    (bundle / "scripts" / "net.py").write_text("")
    (bundle / "docs" / "link").symlink_to("/etc/hostname")
    found = {problem.case for problem in verify_bundle(bundle) if not problem.warning}
    assert {"scripts/net.py", "docs/link"} <= found


def test_damaged_weights_are_named(bundle) -> None:
    (bundle / "models").mkdir()
    (bundle / "models" / "model.pt").write_bytes(b"PK cut")
    found = {problem.case: problem.message for problem in verify_bundle(bundle)}
    assert "damaged" in found["models/model.pt"]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"task": None}, "task: None"),
        ({"version": "1"}, "version: '1'; expected three numbers"),
        ({"schema": "x"}, "schema: 'x'"),
        ({"required_packages_version": {}}, "medseg is missing"),
        ({"references": "x"}, "references: 'x'"),
        ({"supported_apps": ["x"]}, "supported_apps"),
        ({"network_data_format": None}, "network_data_format: None"),
    ],
)
def test_metadata_field_by_field(change, sentence) -> None:
    assert list(check_metadata(metadata())) == []
    assert any(sentence in problem for problem in check_metadata(metadata() | change))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("type", "picture"), ("format", "hu"), ("num_channels", 0), ("num_channels", "1"), ("dtype", 32),
        ("spatial_shape", ["*", "*"]), ("spatial_shape", [96]), ("value_range", None), ("is_patch_data", "yes"),
        ("channel_def", {"1": "CT"}), ("channel_def", {"0": "a", "1": "b"}),
    ],
)  # fmt: skip
def test_tensor_by_field(field, value) -> None:
    meta = metadata()
    meta["network_data_format"]["inputs"]["image"][field] = value
    problems = list(check_metadata(meta))
    assert problems and all(problem.startswith("network_data_format::inputs::image::") for problem in problems)
    meta["network_data_format"]["inputs"]["image"] = metadata()["network_data_format"]["inputs"]["image"]
    meta["network_data_format"]["inputs"]["image"]["spatial_shape"] = ["32*n", "2**n", 96]
    assert list(check_metadata(meta)) == []


def test_by_command(bundle, capsys) -> None:
    edit(bundle / "configs" / "metadata.json", '"version": "0.1.0"', '"version": "1"')
    assert main(["check", "--bundle", str(bundle)]) == 4
    error = capsys.readouterr().err
    assert "is not a sound bundle" in error and "version: '1'" in error
    with pytest.raises(ModelError, match="Expected a bundle with configs/inference.yaml"):
        verify_bundle(bundle / "docs")
