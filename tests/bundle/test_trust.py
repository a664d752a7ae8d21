"""What a bundle may run unasked: the attacks that a config offers, and what must go on to work."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from monai.bundle import ConfigParser
from torch import nn

from medseg.bundle.compose import changed_configs, load_workflow
from medseg.bundle.own_words import own_words, user_speaks
from medseg.bundle.trust import foreign_code, remember_own, trusted_bundles
from medseg.cli import main
from medseg.errors import ModelError

BUNDLES = sorted((Path(__file__).parents[2] / "bundles").glob("*/configs"))
BUNDLE = Path(__file__).parents[2] / "bundles" / "ssh_unet_btcv_ct_segmentation"
IMPORTS = ["$import medseg.workflows as w", "$import medseg.transforms as t", "$import medseg.engines as e"]


class Own(nn.Module):
    """A network of the user's own."""


def foreign(config: dict[str, Any]) -> list[str]:
    return foreign_code({"imports": IMPORTS, **config})


@pytest.mark.parametrize("folder", BUNDLES, ids=lambda path: path.parent.name)
def test_our_own_bundles_need_no_permission(folder: Path) -> None:
    for path in (*folder.glob("*.yaml"), folder / "metadata.json"):
        assert foreign(ConfigParser.load_config_file(str(path))) == [], path


@pytest.mark.parametrize(
    "value",
    [
        "$w.device()",
        "$@bundle_root + '/models/model.pt'",
        "$'fp16' if str(@device).startswith('cuda') else 'fp32'",
        "$@epochs * len(@train::dataloader)",
        "$t.preprocessing(['image'], **@preprocess) + t.load(['label'], @label_space)",
        "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "$monai.utils.set_determinism(0)",
        "$[t.LogitsToLabelsd('pred', @label_space)]",
        "$[x + 1 for x in @roi_size]",
        "$w.cases(@json_list, @dataset_dir, @fold, 'training')",
        "$import monai.transforms as m",
        "$from medseg.transforms import load",
        "%preprocess",
        "@network",
        "costs $5, or 5 % of __import__('os')",
        {"_target_": "torch.optim.AdamW", "params": "$@network.parameters()"},
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
        "$__import__('os').system('id')",
        "$open('x', 'w')",
        "$eval('1')",
        "$(lambda: 1)()",
        "$f'{@network}'",
        "$@network.__class__.__init__.__globals__",
        "$@network.register_forward_hook(@x)",
        "$[t for t in (1, 2)]",
        "$[x.__class__ for x in (1, 2)]",
        "$[x.system for x in (1, 2)]",
        "$torch.load('x.pt')",
        "$torch.hub.load('a/b', 'c')",
        "$torch.os.system('id')",
        "$np.load('x.npy', allow_pickle=True)",
        "$monai.bundle.download('x')",
        "$monai.transforms.LoadImaged('image', 'os.system')",
        "$t.save.os.system('id')",
        "$t.reader.Path('x').unlink()",
        "$w.predict('b', 'out')",
        "$w",
        "$import os",
        "$import subprocess as t",
        "$from os import system as s",
        "$1 +",
        "$@a[1 #__import__('os').system('id')]\n]",
        "$@::a",
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
        {"_target_": "SegResNet", "_mode_": "callable"},
        {"_target_": "LoadImaged", "reader": "NibabelReader"},  # imports the reader that it is told
        {"_target_": "SaveImaged", "writer": "os.system"},
        {"_target_": "monai.networks.nets.ResNet", "pretrained": True},
        {"_target_": "monai.data.NumpyReader"},
    ],
)
def test_anything_else_is_listed(value):
    assert len(foreign({"x": value})) == 1


def test_a_patch_is_a_target_too() -> None:
    assert foreign({"network_def::_target_": "os.system"}) == ["os.system"]
    assert foreign({"+run": ["$__import__('os')"]}) == ["$__import__('os')"]
    assert foreign({"network_def::pretrained": True}) == ["pretrained: True"]


def test_an_alias_of_two_packages_is_judged_by_both() -> None:
    assert foreign({"x": "$t.load(['image'])"}) == []
    assert len(foreign({"x": "$t.load(['image'])", "y": "$import shutil as t"})) == 2


def test_what_a_part_imports_for_itself_is_no_part() -> None:
    config = {"more": "$from medseg.transforms.save import os as o", "x": "$o.system('id')", "y": "$o"}
    assert foreign(config) == ["$from medseg.transforms.save import os as o", "$o.system('id')", "$o"]


def test_a_network_of_the_users_own_runs_because_the_user_named_it() -> None:
    target = {"network_def": {"_target_": f"{__name__}.Own"}}
    assert foreign(target) == [f"{__name__}.Own"]
    with own_words({"network_def::_target_": f"{__name__}.Own"}):
        assert foreign(target) == []
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


def test_the_outer_function_speaks_for_the_user() -> None:
    @user_speaks("overrides")
    def inner(overrides: dict) -> list[str]:
        return foreign(overrides)

    @user_speaks("overrides")
    def outer(overrides: dict) -> list[str]:
        return inner(overrides | {"from a file": "$open('y')"})

    assert inner({"x": "$open('x')"}) == []
    assert outer({"x": "$open('x')"}) == ["$open('y')"]
    assert foreign({"x": "$open('x')"}) == ["$open('x')"]


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
        changed_configs(hostile)
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
