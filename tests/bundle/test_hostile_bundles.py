"""Bundles from strangers run nothing: the same bundle of ours with one hostile change, by every way that a config has.

Most are judged only; a few go through the real commands, where a canary file must not appear.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from medseg.bundle.compose import Workflow, load_workflow, resolve
from medseg.bundle.trust import trusted_bundles
from medseg.cli import main
from medseg.errors import ConfigError, MedsegError, ModelError

BUNDLE = Path(__file__).parents[2] / "bundles" / "ssh_unet_btcv_ct_segmentation"
RUN = "$__import__('os').system('touch {mark}')"


@pytest.fixture
def bundle(tmp_path) -> Path:
    shutil.copytree(BUNDLE, tmp_path / "bundle")
    return tmp_path / "bundle"


@pytest.fixture
def mark(tmp_path) -> Path:
    """The file that hostile code would write."""
    return tmp_path / "pwned"


def change(bundle: Path, name: str, **entries: Any) -> None:
    """Add or replace top-level entries of a config, and refer to them, as every unused id is refused anyway."""
    path = bundle / "configs" / name
    content = yaml.safe_load(path.read_text()) | entries
    path.write_text(yaml.safe_dump(content, sort_keys=False))


def refused(bundle: Path, task: str = "infer") -> str:
    modules = set(sys.modules)
    with pytest.raises(MedsegError) as error:
        load_workflow(bundle, task)
    assert not {"this", "antigravity", "turtledemo", "idlelib"} & (set(sys.modules) - modules)
    return str(error.value)


# ---------------------------------------------------------------------- entries of a config
TARGETS = [
    "os.system",
    "subprocess.Popen",
    "builtins.eval",
    "builtins.exec",
    "builtins.__import__",
    "pydoc.locate",
    "shutil.rmtree",
    "pickle.loads",
    "runpy.run_path",
    "importlib.import_module",
    "this.anything",
    "antigravity.fly",
    "turtledemo.Net",
    "torch.load",
    "torch.hub.load",
    "torch.hub.load_state_dict_from_url",
    "torch.jit.load",
    "torch.utils.cpp_extension.load_inline",
    "torch.nn.Module.__init__",
    "torchvision.models.resnet50",
    "numpy.load",
    "numpy.fromfile",
    "numpy.save",
    "monai.apps.download_and_extract",
    "monai.bundle.download",
    "monai.bundle.ConfigWorkflow",
    "monai.utils.optional_import",
    "monai.utils.run_cmd",
    "monai.networks.nets.EfficientNetBN",
    "monai.networks.nets.ResNetFeatures",
    "monai.networks.nets.MILModel",
    "monai.networks.nets.FlexibleUNet",
    "monai.networks.nets.Transchex",
    "monai.networks.nets.AHNet",
    "EfficientNetBN",
    "ResNetEncoder",
    "FCN",
    "PerceptualLoss",
    "PersistentDataset",
    "LMDBDataset",
    "DecathlonDataset",
    "LoadImaged",
    "SaveImaged",
    "SaveImage",
    "Lambdad",
    "CheckpointSaver",
    "CheckpointLoader",
    "MetricsSaver",
    "LogfileHandler",
    "TensorBoardStatsHandler",
    "MLFlowHandler",
    "ClearMLHandler",
    "ignite.handlers.Checkpoint",
    "medseg.networks.create_network",
    "medseg.networks.registry.create_network",
    "medseg.workflows.train",
    "medseg.bundle.parts.os.system",
    "medseg.metrics.Scores",
    "medseg.transforms.write_label_map",
    "medseg.weights.save_file",
    "medseg.cli.main",
    "monai_extra.Net",
    "exactnet.Threshold",
    ".os.system",
    "os",
    "",
]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("place", ["network_def", "deep"])
def test_a_target_outside_the_list_is_never_imported(target, place, bundle) -> None:
    component = {"_target_": target, "spatial_dims": 3, "in_channels": 1}
    entry = {"network_def": component} if place == "network_def" else {"a": [{"b": {"c": component}}], "use": "@a"}
    change(bundle, "inference.yaml", **entry)
    assert target in refused(bundle)


EXPRESSIONS = [
    "$10**10**8",
    "$__import__('os')",
    "$open('/etc/passwd').read()",
    "$import os",
    "$ open('x')",
    "$",
    "$@",
    "$@text",
    "$::a",
    "$@::text",
    "$w.device()",
    "$@bundle_root + '/models/model.pt'",
    "$" + "-" * 3000 + "1",
    "$" + "(" * 300 + ")" * 300,
    "%::text",
    "%text",
    "%/etc/passwd.yaml::root",
    "%train.yaml::run",
]


@pytest.mark.parametrize("expression", EXPRESSIONS)
@pytest.mark.parametrize("name", ["inference.yaml", "metadata.json"])
def test_an_expression_or_macro_is_refused(expression, name, bundle) -> None:
    change(
        bundle, "inference.yaml", text="aaaa", list=[1, 2], batch=3, outside="/tmp", use=["@text", "@list", "@batch"]
    )
    if name == "metadata.json":
        path = bundle / "configs" / name
        path.write_text(json.dumps(json.loads(path.read_text()) | {"authors": expression}))
    else:
        change(bundle, name, more={"deep": [expression]}, again="@more")
    refused(bundle)


@pytest.mark.parametrize(
    "entries",
    [
        {"x": {"_target_": "Compose", "_mode_": "debug"}},
        {"x": {"_target_": "Compose", "_debug_": True}},
        {"x": {"_target_": "@text"}},
        {"x": {"_target_": "%text"}, "text": "os.system"},
        {"x": {"_target_": ["os.system"]}},
        {"x": {"_target_": {"a": "os.system"}}},
        {"x": {"_target_": "Compose", "_requires_": "$open('y')"}},
        {"x": {"_target_": "Compose", "_disabled_": "$open('y')"}},
        {"x": {"_target_": "Compose", "_desc_": "$open('y')"}},
        {"x": {"a::b": 1}},
        {"x": {"a#_target_": "os.system"}},
        {"x": "%hidden::y", "hidden": {"y": {"_target_": "os.system"}}},
        {"_meta_": {"a": "$open('y')"}},
        {"_meta_": {"a": {"_target_": "os.system"}}},
        {"x": {"_target_": "monai.networks.nets.ResNet", "pretrained": True}},
        {"output_dir": "/tmp/elsewhere"},
        {"output_dir": {"_target_": "medseg.workflows.inside", "root": "@bundle_root", "name": "../elsewhere"}},
        {"output_dir": {"_target_": "medseg.workflows.inside", "root": "/tmp", "name": "elsewhere"}},
        {"output_dir": {"_target_": "medseg.workflows.inside", "root": "@bundle_root", "name": "@x"}, "x": "/.."},
        {"output_dir": "@x", "x": "~/elsewhere"},
        {"output_dir": "relative/to/here"},
        {"x": {"_target_": "medseg.engines.CaseScores", "label_space": "@label_space", "output_dir": "/tmp"}},
        {"x": {"_target_": "medseg.data.make_dataset", "cache_dir": "/tmp"}},
        {"x": {"_target_": "medseg.engines.Checkpoint", "directory": "/home", "model_path": "/etc/passwd"}},
        {"x": {"_target_": "medseg.engines.CaseScores", "output_dir": "$str(@text)"}, "text": "/tmp"},
    ],
    ids=str,
)
def test_no_key_passes_by(entries, bundle) -> None:
    if "_meta_" in entries:
        (bundle / "configs" / "metadata.json").unlink()
    change(bundle, "inference.yaml", **{"text": "a", **entries}, use=["@x", "@text"] if "x" in entries else ["@text"])
    refused(bundle)


@pytest.mark.parametrize(
    ("overlay", "task"),
    [
        ({"network_def::_target_": "os.system"}, "infer"),
        ({"network_def#_target_": "os.system"}, "infer"),
        ({"+network_def": {"_target_": "os.system"}}, "infer"),
        ({"+run": ["$__import__('os').getcwd()"]}, "infer"),
        ({"postprocessing::transforms::0": {"_target_": "os.system"}}, "infer"),
        ({"postprocessing::transforms::1::output_dir": "/tmp"}, "infer"),
        ({"imports": ["$import os as w"]}, "infer"),
        ({"+imports": ["$import os as t"]}, "infer"),
        ({"validate::handlers": [{"_target_": "CheckpointLoader"}]}, "evaluate"),
        ({"train::handlers::0::_target_": "MLFlowHandler"}, "evaluate"),
    ],
    ids=str,
)
def test_an_overlay_is_judged_after_the_merge(overlay, task, bundle) -> None:
    (bundle / "configs" / "extra.yaml").write_text(yaml.safe_dump(overlay))
    load_workflow(bundle, task)
    with pytest.raises(MedsegError):
        load_workflow(bundle, task, overlays=["extra"])


def test_a_config_in_json_and_one_with_anchors(bundle) -> None:
    path = bundle / "configs" / "inference.yaml"
    content = yaml.safe_load(path.read_text())
    text = yaml.safe_dump(content | {"base": {"evil": "os.system"}, "use": ["@base", "@again"]})
    path.write_text(text.replace("evil:", "evil: &evil") + "again:\n  _target_: *evil\n  command: id\n")
    refused(bundle)
    path.unlink()
    json_path = path.with_suffix(".json")
    json_path.write_text(json.dumps(content | {"x": {"_target_": "os.system"}, "use": "@x"}))
    assert f"{json_path}, line 1: 'os.system'" in refused(bundle)


# ---------------------------------------------------------------------- size of what is written out
def test_references_that_multiply_are_refused(bundle) -> None:
    names = [chr(97 + number) * 5 for number in range(20)]
    entries = {name: [f"@{before}"] * 10 for before, name in zip(names, names[1:], strict=False)}
    change(bundle, "inference.yaml", **{names[0]: ["a"] * 10}, **entries, use=f"@{names[-1]}")
    with pytest.raises(ConfigError, match="written out"):
        load_workflow(bundle, "infer")


@pytest.mark.parametrize("entries", [{"x": ["@x"]}, {"x": "@y", "y": {"z": "@x"}}, {"x": "@"}], ids=str)
def test_a_reference_to_itself_is_refused(entries, bundle) -> None:
    change(bundle, "inference.yaml", **entries, use="@x")
    refused(bundle)


def test_what_the_user_says_may_be_an_expression_or_a_macro(bundle) -> None:
    change(bundle, "inference.yaml", a={"b": [1, 2]}, c=None, d=None, use=["@a", "@c", "@d"])
    parser = load_workflow(bundle, "infer", {"c": "%a::b", "d": "$1 + 1"}).parser
    assert parser.get_parsed_content("c") == [1, 2]
    assert parser.get_parsed_content("d") == 2


# ---------------------------------------------------------------------- judged = evaluated
def test_what_changes_after_the_judgement_is_not_evaluated(bundle) -> None:
    tree = resolve(bundle, "infer").tree
    with pytest.raises(AssertionError, match="between its judgement"):
        Workflow({**tree, "a": "%text", "text": "x"}, "infer").initialize()


def test_nothing_of_the_current_folder_is_read(bundle, tmp_path, monkeypatch) -> None:
    (tmp_path / "here" / "configs").mkdir(parents=True)
    (tmp_path / "here" / "configs" / "metadata.json").write_text('{"a": "$open(1)"}')
    (tmp_path / "here" / "configs" / "logging.conf").write_text("[loggers]\nkeys=$")
    (tmp_path / "here" / "logging.conf").write_text("[loggers]\nkeys=$")
    (bundle / "configs" / "metadata.json").unlink()
    monkeypatch.chdir(tmp_path / "here")
    assert load_workflow(bundle, "infer").parser.get("_meta_::a") is None


def test_running_leaves_the_import_path_alone(bundle, monkeypatch) -> None:
    before = list(sys.path)
    change(bundle, "inference.yaml", run=[{"_target_": "torch.nn.Identity"}])
    assert load_workflow(bundle, "infer").run()
    assert sys.path == before


# ---------------------------------------------------------------------- files beside the configs
@pytest.mark.parametrize("name", ["log.txt", "predictions", "configs/extra.yaml", "models/model.pt"])
def test_a_link_out_of_the_bundle_is_refused(name, bundle, tmp_path) -> None:
    (tmp_path / "outside").mkdir()
    (bundle / name).parent.mkdir(exist_ok=True)
    (bundle / name).symlink_to(tmp_path / "outside")
    assert "lead out of it" in refused(bundle)
    with trusted_bundles():
        load_workflow(bundle, "infer")


def test_a_link_inside_the_bundle_is_none_of_that(bundle) -> None:
    (bundle / "models").mkdir(exist_ok=True)
    (bundle / "models" / "best.pt").symlink_to("model.pt")
    load_workflow(bundle, "infer")


@pytest.mark.parametrize("entry", ["{bundle}", "{bundle}/configs", ""])
def test_a_bundle_on_the_import_path_may_hold_no_python(entry, bundle, mark, monkeypatch) -> None:
    monkeypatch.chdir(bundle)
    monkeypatch.setattr(sys, "path", [*sys.path, entry.format(bundle=bundle)])
    load_workflow(bundle, "infer")
    folder = Path(entry.format(bundle=bundle) or ".")
    (folder / "nrrd.py").write_text(f"open({str(mark)!r}, 'w')")
    assert "import path" in refused(bundle)


# ---------------------------------------------------------------------- through the commands
Spoil = Callable[[Path, Path], None]


def _meta(bundle: Path, mark: Path) -> None:
    (bundle / "configs" / "metadata.json").unlink()
    for name in ("train.yaml", "inference.yaml"):
        change(bundle, name, _meta_={"version": RUN.format(mark=mark)})


def _linked(bundle: Path, mark: Path) -> None:
    for name in ("train.yaml", "inference.yaml"):
        change(bundle, name, extra=RUN.format(mark=mark), use="@extra")
        shutil.move(bundle / "configs" / name, mark.parent / name)
        (bundle / "configs" / name).symlink_to(mark.parent / name)


def _network(bundle: Path, mark: Path) -> None:
    """A module that anything which imports it would find: the current folder's and the bundle's are on the path."""
    for name in ("train.yaml", "inference.yaml"):
        content = yaml.safe_load((bundle / "configs" / name).read_text())
        change(bundle, name, network_def=content["network_def"] | {"_target_": "canary_module.deep.Net"})
    (mark.parent / "canary_module").mkdir()
    (mark.parent / "canary_module" / "__init__.py").write_text(f"open({str(mark)!r}, 'w')")


def _readers(bundle: Path, mark: Path) -> None:
    """Modules that MONAI's readers look for, beside sound configs: never imported."""
    for name in ("itk", "nrrd", "cucim", "pydicom", "tifffile", "zarr"):
        for folder in (bundle, bundle / "configs"):
            (folder / f"{name}.py").write_text(f"open({str(mark)!r}, 'w')")


@pytest.mark.parametrize("spoil", [_meta, _linked, _network], ids=lambda f: f.__name__)
@pytest.mark.parametrize("command", ["check", "export", "train", "infer"])
def test_no_command_runs_it(command, spoil, bundle, mark, tmp_path, monkeypatch, capsys) -> None:
    spoil(bundle, mark)
    (bundle / "models").mkdir(exist_ok=True)
    (bundle / "models" / "model.pt").write_bytes(b"")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert main([command, *_arguments(command, bundle, tmp_path)]) in (2, 3, 4)
    said = capsys.readouterr().err
    assert "internal error" not in said
    assert not mark.exists()
    assert "canary_module" not in sys.modules


def _arguments(command: str, bundle: Path, folder: Path) -> list[str]:
    data = json.dumps({"training": [], "labels": {"0": "background", "1": "a"}, "modality": {"0": "CT"}})
    (folder / "list.json").write_text(data)
    common = ["--output", str(folder / "out")]
    return {
        "check": ["--bundle", str(bundle)],
        "export": [str(bundle), *common, "--format", "torchscript"],
        "train": ["--bundle", str(bundle), "--json_list", str(folder / "list.json"), *common],
        "infer": ["--bundle", str(bundle), str(BUNDLE / "LICENSE"), *common],
    }[command]


def test_files_beside_sound_configs_are_neither_imported_nor_copied(bundle, mark, tmp_path) -> None:
    from medseg.bundle import copy_texts

    _readers(bundle, mark)
    (bundle / "docs" / "more").symlink_to("/etc")
    (bundle / "scripts").mkdir()
    (bundle / "scripts" / "LICENSE").write_text("")
    copy_texts(bundle, tmp_path / "copy")
    copied = {path.relative_to(tmp_path / "copy").as_posix() for path in (tmp_path / "copy").rglob("*")}
    assert {"configs/train.yaml", "configs/metadata.json", "docs/README.md", "LICENSE"} <= copied
    assert not [name for name in copied if name.endswith(".py") or name.startswith(("scripts", "docs/more"))]
    assert not mark.exists()


def test_a_forged_run_needs_the_word_of_its_owner(bundle, tmp_path) -> None:
    """What a run's files say of trust is worth nothing."""
    content = yaml.safe_load((bundle / "configs" / "inference.yaml").read_text())
    change(bundle, "inference.yaml", network_def=content["network_def"] | {"_target_": "stranger.Net"})
    (bundle / "run.json").write_text(json.dumps({"trusted": True, "network": "stranger.Net"}))
    with pytest.raises(ModelError, match=r"inference.yaml, line \d+: 'stranger.Net'.*--trust_bundle"):
        load_workflow(bundle, "infer")
