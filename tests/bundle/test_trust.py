"""What a bundle may run unasked: the attacks that a config offers, and what must go on to work."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from torch import nn

from medseg.bundle.compose import load_workflow
from medseg.bundle.draft import Draft
from medseg.bundle.folder import TASKS, Bundle
from medseg.bundle.recipe import Layer, Recipe
from medseg.bundle.trust import foreign_code, remember_own, trusted_bundles
from medseg.cli import main
from medseg.errors import ModelError

BUNDLES = sorted((Path(__file__).parents[2] / "bundles").glob("*/configs"))
BUNDLE = Path(__file__).parents[2] / "bundles" / "ssh_unet_btcv_ct_segmentation"


class Own(nn.Module):
    """A network of the user's own."""


def foreign(config: dict[str, Any], *layers: Layer) -> list[Any]:
    """What is refused of a config from a file, each once."""
    found = foreign_code(Recipe.of(Layer(config, "bundle", "x.yaml"), *layers))
    return list(dict.fromkeys(str(value) for _, value in found))


@pytest.mark.parametrize("folder", BUNDLES, ids=lambda path: path.parent.name)
def test_our_own_bundles_need_no_permission(folder: Path) -> None:
    bundle = Bundle(folder.parent)
    tasks = [task for task, names in TASKS.items() if all(map(bundle.has, names))]
    for task in tasks:
        assert foreign_code(bundle.recipe(task)) == [], task
    for path in folder.glob("*.yaml"):
        text = path.read_text(encoding="utf-8")
        assert "$" not in text and "%" not in text, path


@pytest.mark.parametrize(
    "value",
    [
        "@network",
        "costs $5, or 5 % of __import__('os')",
        {"_target_": "torch.optim.AdamW", "params": "@parameters"},
        {"_target_": "medseg.transforms.preprocessing", "_mode_": "callable"},
        {"_target_": "medseg.workflows.device", "name": None},
        {"_target_": "SegResNet", "spatial_dims": 3},
        {"_target_": "monai.networks.nets.DynUNet"},
        {"_target_": "medseg.networks.SSHUNet"},
        {"_target_": "medseg.labels.LabelSpace.from_table", "table": "@labels"},
        {"_target_": "DiceCELoss", "softmax": True},
        {"_target_": "monai.transforms.RandFlipd", "keys": ["image", "label"], "prob": 0.5},
        {"_target_": "monai.networks.nets.resnet18", "pretrained": False} | {"_target_": "monai.networks.nets.ResNet"},
    ],
)
def test_known_parts_pass(value):
    assert foreign({"x": value}) == []


@pytest.mark.parametrize(
    "value",
    [
        "$1",
        "$@bundle_root + '/models/model.pt'",
        "$import medseg.transforms as t",
        "$__import__('os').system('id')",
        "$import os",
        "$@::a",
        "%a",
        "%::a",
        "%/tmp/other.yaml::x",
        {"_target_": "os.system", "command": "id"},
        {"_target_": "subprocess.Popen"},
        {"_target_": "builtins.eval"},
        {"_target_": "eval"},
        {"_target_": "medseg.transforms.save.os.replace"},
        {"_target_": "medseg.bundle.parts.os.system"},
        {"_target_": "medseg.networks.create_network", "name": "subprocess.Popen"},
        {"_target_": "medseg.cli.__main__"},
        {"_target_": "medseg.workflows.train"},
        {"_target_": "torch.load"},
        {"_target_": "torch.utils.cpp_extension.load"},
        {"_target_": "monai.utils.misc.run_cmd"},
        {"_target_": "monai.apps.download_url"},
        {"_target_": "PerceptualLoss"},
        {"_target_": "MLFlowHandler"},
        {"_target_": "my.own.Net"},
        {"_target_": "@x"},
        {"_target_": "$'os.' + 'system'"},
        {"_target_": ["os.system"]},
        {"_target_": "SegResNet", "_mode_": "debug"},
        {"_target_": "SegResNet", "_mode_": "callable"},
        {"_target_": "LoadImaged", "reader": "NibabelReader"},  # imports the reader that it is told
        {"_target_": "SaveImaged", "writer": "os.system"},
        {"_target_": "monai.networks.nets.ResNet", "pretrained": True},
        {"_target_": "monai.data.NumpyReader"},
    ],
)
def test_anything_else_is_listed(value):
    assert len(foreign({"x": value})) == 1


def test_a_patch_of_a_file_is_a_target_too() -> None:
    base = {"network_def": {"_target_": "SegResNet"}, "run": []}
    for kind in ("bundle", "overlay"):
        assert foreign(base, Layer({"network_def::_target_": "os.system"}, kind)) == ["os.system"]
        assert foreign(base, Layer({"+run": ["$1"]}, kind)) == ["$1"]
        assert foreign(base, Layer({"+network_def": {"pretrained": True}}, kind)) == ["True"]


@pytest.mark.parametrize("kind", ["user", "command", "plan", "base"])
def test_what_no_file_says_passes(kind) -> None:
    base = {"network_def": {"_target_": "SegResNet"}, "x": {"_target_": "os.system"}}
    given = Layer({"network_def::_target_": f"{__name__}.Own", "y": "$1 + 1", "x::command": "id"}, kind)
    assert foreign(base, given) == ["os.system"]


def test_a_network_of_the_users_own_runs_because_the_user_named_it() -> None:
    target = {"network_def": {"_target_": f"{__name__}.Own"}}
    assert foreign(target) == [f"{__name__}.Own"]
    remember_own({"network_def::_target_": f"{__name__}.Own"})
    assert foreign(target) == []
    assert foreign({"x": {"_target_": f"{__name__}.Own"}}) == [f"{__name__}.Own"]


def test_an_own_loss_is_kept_with_its_arguments() -> None:
    loss = {"_target_": "my.Loss", "weight": 0.5}
    remember_own({"loss": loss, "learning_rate": 0.1, "optimizer": {"_target_": "torch.optim.SGD"}})
    assert foreign({"loss": loss}) == []
    assert foreign({"loss": loss | {"weight": "$open('x')"}}) == ["my.Loss", "$open('x')"]
    assert foreign({"other": loss}) == ["my.Loss"]


def test_without_a_state_folder_it_is_said(tmp_path, monkeypatch, caplog) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    remember_own({"network_def::_target_": "unwritable.Net"})
    assert "need --trust_bundle" in caplog.text
    assert foreign({"network_def": {"_target_": "unwritable.Net"}}) == []  # in this process


INSIDE = "medseg.workflows.inside"


@pytest.mark.parametrize(
    ("value", "refused"),
    [
        ({"_target_": INSIDE, "root": "@bundle_root", "name": "eval/scores"}, False),
        ({"_target_": INSIDE, "root": {"_target_": INSIDE, "root": "@bundle_root", "name": "a"}, "name": "@b"}, False),
        (None, False),
        ("@other", False),
        ({"_target_": INSIDE, "root": "@bundle_root", "name": "../x"}, True),
        ({"_target_": INSIDE, "root": "@bundle_root", "name": "/tmp"}, True),
        ({"_target_": INSIDE, "root": "@bundle_root", "name": "@up"}, True),
        ({"_target_": INSIDE, "root": "/tmp", "name": "x"}, True),
        ({"_target_": INSIDE, "root": "@json_list", "name": "x"}, True),
        ({"a": 1}, True),
        (["/tmp"], True),
        ("/tmp", True),
        ("relative", True),
        ("@missing", True),
        ("@output_dir", True),
    ],
    ids=str,
)
def test_what_is_written_lies_below_the_bundle(value, refused) -> None:
    other = {"_target_": INSIDE, "root": "@bundle_root", "name": "other"}
    config = {"bundle_root": "/b", "b": "plain", "up": "a/../..", "json_list": "/lists", "other": other}
    recipe = Recipe.of(Layer(config | {"output_dir": value}, "bundle"), Layer({"bundle_root": "/b"}, "command"))
    assert bool(foreign_code(recipe)) == refused


def test_the_user_writes_where_the_user_says() -> None:
    config = {"bundle_root": "/b", "output_dir": None, "x": {"directory": "@output_dir"}}
    assert foreign(config, Layer({"output_dir": "/elsewhere"}, "command")) == []
    assert foreign(config, Layer({"output_dir": "/elsewhere"}, "overlay")) == ["/elsewhere", "@output_dir"]


# ---------------------------------------------------------------------- the commands
@pytest.fixture
def hostile(tmp_path) -> Path:
    """A copy of a bundle of ours with one expression more, which would write a file."""
    folder = tmp_path / "bundle"
    shutil.copytree(BUNDLE, folder)
    (folder / "models").mkdir()
    (folder / "models" / "model.pt").write_bytes(b"")
    for name in ("inference", "train"):
        path = folder / "configs" / f"{name}.yaml"
        path.write_text(path.read_text() + f"\nextra: \"$open('{tmp_path}/pwned', 'w').close()\"\nuse: '@extra'\n")
    return folder


def test_a_bundle_is_refused_before_anything_runs_and_says_where(hostile, tmp_path) -> None:
    mark = tmp_path / "pwned"
    lines = len((BUNDLE / "configs" / "inference.yaml").read_text().splitlines())
    with pytest.raises(ModelError, match=rf"inference.yaml, line {lines + 2}: '\$open\(.*--trust_bundle"):
        load_workflow(hostile, "infer")
    with pytest.raises(ModelError, match="trust_bundle"):
        Draft.copied(Bundle(hostile), (), None).check()
    assert not mark.exists()
    with trusted_bundles():
        load_workflow(hostile, "infer").parser.get_parsed_content("extra")
    assert mark.exists()
    with pytest.raises(ModelError, match="trust_bundle"):
        load_workflow(hostile, "infer")


def test_metadata_are_a_config_too(tmp_path) -> None:
    shutil.copytree(BUNDLE, tmp_path / "bundle")
    path = tmp_path / "bundle" / "configs" / "metadata.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"version": "$open('x')"}, indent=1))
    with pytest.raises(ModelError, match=r"metadata.json, line 3: '\$open"):
        load_workflow(tmp_path / "bundle", "infer")


@pytest.mark.parametrize("command", ["export", "check"])
def test_commands_refuse_it_with_status_4(command, hostile, tmp_path, capsys) -> None:
    arguments = [str(hostile), "--output", str(tmp_path / "out"), "--format", "torchscript"]
    assert main([command, *(arguments if command == "export" else ["--bundle", str(hostile)])]) == 4
    assert "$open(" in capsys.readouterr().err
    assert not (tmp_path / "pwned").exists()


def test_many_findings_are_counted(tmp_path) -> None:
    (tmp_path / "configs").mkdir()
    content = yaml.safe_dump({f"x{i}": f"$open('{i}')" for i in range(14)})
    (tmp_path / "configs" / "inference.yaml").write_text(content)
    with pytest.raises(ModelError, match="and 9 more"):
        load_workflow(tmp_path, "infer")
