"""What a bundle may run unasked: the attacks that a config offers, and what must go on to work."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from monai.bundle import ConfigParser

from medseg.cli import main
from medseg.errors import ModelError
from medseg.workflows.compose import load_workflow, require_trusted
from medseg.workflows.trust import foreign_parts

BUNDLES = Path(__file__).parents[2] / "bundles"
BUNDLE = BUNDLES / "ssh_unet_btcv_ct_segmentation"
IMPORTS = ["$import medseg.workflows as w", "$import medseg.transforms as t", "$import medseg.engines as e"]


def foreign(config: dict[str, Any], **named: Any) -> list[str]:
    return foreign_parts({"a.yaml": {"imports": IMPORTS, **config}}, **named)


@pytest.mark.parametrize("folder", sorted(BUNDLES.glob("*/configs")), ids=lambda path: path.parent.name)
def test_every_bundle_of_ours_is_known(folder):
    files = [path for path in folder.glob("*") if path.suffix in (".yaml", ".json")]
    assert len(files) > 3
    assert foreign_parts({path.name: ConfigParser.load_config_file(str(path)) for path in files}) == []


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
        {"_target_": "LoadImaged", "keys": "image", "reader": "NibabelReader"},
        {"_target_": "LoadImaged", "keys": "image", "reader": "$t.VolumeReader"},
        {"_target_": "LoadImaged", "keys": "image", "reader": "medseg.transforms.VolumeReader"},
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
        "$[x for x in (1, 2)]",
        "$f'{@network}'",
        "$@network.__class__.__init__.__globals__",
        "$@network.register_forward_hook(@x)",
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
        {"_target_": "medseg.workflows.parts.os.system"},
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
        {"_target_": "LoadImaged", "reader": "os.system"},
        {"_target_": "LoadImaged", "reader": ["open"]},
        {"_target_": "LoadImaged", "reader": "@x"},
        {"_target_": "LoadImaged", "reader": "$'os.' + 'system'"},
        {"_target_": "SaveImaged", "writer": "os.system"},
        {"_target_": "monai.networks.nets.ResNet", "pretrained": True},
        {"_target_": "monai.data.NumpyReader", "allow_pickle": True},
    ],
)
def test_anything_else_is_listed(value):
    (line,) = foreign({"x": value})
    assert line.startswith("a.yaml, x")


def test_a_patch_is_a_target_too():
    assert foreign({"network_def::_target_": "os.system"}) == ["a.yaml, network_def::_target_: os.system"]
    assert foreign({"a#reader": "os.system"})
    assert foreign({"+run": ["$__import__('os')"]}) == ["a.yaml, +run::0: $__import__('os')"]


def test_an_alias_means_the_same_in_every_file():
    """``t`` of one file must not hide what another file makes of it."""
    configs = {"a.yaml": {"imports": IMPORTS, "x": "$t.load(['image'])"}}
    assert foreign_parts(configs) == []
    assert len(foreign_parts(configs | {"b.yaml": {"imports": ["$import shutil as t"]}})) == 2


def test_what_a_part_imports_for_itself_is_no_part():
    config = {"more": "$from medseg.transforms.save import os as o", "x": "$o.system('id')", "y": "$o"}
    assert [line.partition(":")[0] for line in foreign(config)] == ["a.yaml, x", "a.yaml, y"]


def test_the_class_that_the_user_named_is_known_in_that_call():
    config = {"network_def": {"_target_": "my.own.Net"}}
    assert foreign(config, named={"my.own.Net"}) == []
    assert len(foreign(config, named={"my.own.Other"})) == 1


# ---------------------------------------------------------------------- the commands
@pytest.fixture
def hostile(tmp_path) -> Path:
    """A copy of a bundle of ours with one expression more; it would write a file."""
    folder = tmp_path / "bundle"
    shutil.copytree(BUNDLE, folder)
    (folder / "models").mkdir()
    (folder / "models" / "model.pt").write_bytes(b"")
    path = folder / "configs" / "inference.yaml"
    path.write_text(path.read_text() + f"\nextra: \"$open('{tmp_path}/pwned', 'w').close()\"\nuse: '@extra'\n")
    return folder


def test_a_foreign_bundle_is_refused_before_anything_runs(hostile, tmp_path):
    with pytest.raises(ModelError, match=r"(?s)inference.yaml, extra: \$open\(.*--allow_expressions"):
        load_workflow(hostile, "infer")
    with pytest.raises(ModelError, match="inference.yaml, extra"):  # also where the command reads another config
        load_workflow(hostile, "train")
    assert not (tmp_path / "pwned").exists()


def test_it_runs_once_the_user_allows_it_and_says_what(hostile, tmp_path, caplog):
    workflow = load_workflow(hostile, "infer", allow_expressions=True)
    assert "inference.yaml, extra: $open(" in caplog.text
    workflow.parser.get_parsed_content("extra")
    assert (tmp_path / "pwned").exists()


@pytest.mark.parametrize(
    "command",
    [
        ["train", "--bundle", "{b}", "--json_list", "{d}/absent.json", "--output", "{d}/run"],
        ["validate", "--run", "{b}"],
        ["export", "{b}", "--output", "{d}/out", "--format", "torchscript"],
        ["check", "--bundle", "{b}"],
    ],
    ids=lambda command: command[0],
)
def test_every_command_refuses_it_with_status_4(command, hostile, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if command[0] == "validate":  # needs its data first
        table = {"labels": {"0": "background", "1": "a"}, "training": [], "validation": []}
        (hostile / "configs" / "datalist.json").write_text(json.dumps(table))
        with pytest.raises(ModelError, match="extra"):
            load_workflow(hostile, "evaluate")
        return
    assert main([part.format(b=hostile, d=tmp_path) for part in command]) == 4
    error = capsys.readouterr().err
    assert "would run more than parts of medseg, MONAI and torch" in error
    assert "inference.yaml, extra: $open(" in error
    assert not (tmp_path / "pwned").exists()


def test_a_module_of_the_bundle_is_not_imported(hostile, tmp_path, monkeypatch):
    (hostile / "evil.py").write_text(f"open({str(tmp_path / 'imported')!r}, 'w')")
    monkeypatch.chdir(hostile)
    monkeypatch.syspath_prepend(str(hostile))
    (hostile / "configs" / "inference.yaml").write_text(yaml.safe_dump({"network_def": {"_target_": "evil.Net"}}))
    with pytest.raises(ModelError, match="network_def::_target_: evil.Net"):
        load_workflow(hostile, "infer")
    assert not (tmp_path / "imported").exists()


def test_many_findings_are_counted(tmp_path):
    configs = tmp_path / "configs"
    configs.mkdir()
    (configs / "inference.yaml").write_text(yaml.safe_dump({f"x{i}": f"$open('{i}')" for i in range(14)}))
    with pytest.raises(ModelError, match=r"(?s)x5: .*… and 4 more"):
        require_trusted(tmp_path)
