"""``medseg new-bundle``: a plan is printed, a complete bundle is written, nothing is trained."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

from medseg.cli import main
from medseg.data import read_datalist
from medseg.storage import read_yaml
from medseg.workflows import training
from medseg.workflows.start import Start
from medseg.workflows.train_settings import TrainSettings
from medseg.workflows.training import train


def run(*arguments: object) -> int:
    return main(["new-bundle", *map(str, arguments)])


def test_a_bundle_is_planned_and_written(make_datalist, tmp_path, capsys):
    out = tmp_path / "bundle"
    status = run(
        "--network", "SegResNet", "--json_list", make_datalist(), "--output", out, "--fold", 0, "--device", "cpu",
        "--set", "learning_rate=5e-4", "--set", "network_def::init_filters=16", "--set", "overlap=0.25",
    )  # fmt: skip
    assert status == 0
    printed = capsys.readouterr().out
    assert "spacing" in printed
    assert "roi_size" in printed
    assert f"bundle: {out}" in printed
    train, inference = (read_yaml(out / "configs" / f"{n}.yaml") for n in ("train", "inference"))
    assert (train["fold"], train["learning_rate"]) == (0, 0.0005)
    assert train["network_def"] == inference["network_def"]
    assert train["network_def"]["init_filters"] == 16
    assert train["overlap"] == inference["overlap"] == 0.25
    assert (out / "configs" / "datalist.json").read_bytes() == make_datalist().read_bytes()
    assert not (out / "checkpoints").exists()


def test_what_is_printed_and_documented_is_what_was_set(make_datalist, tmp_path, capsys):
    out = tmp_path / "bundle"
    changes = {
        "batch_size": 1,
        "roi_size": [16, 24, 16],
        "preprocess::spacing": [2, 2, 2],
        "augment::flip_axes": [1],
        "augment::scale": 0.07,
        "train::trainer::clip_norm": None,
        "network_def::init_filters": 16,
        "loss::batch": True,
    }
    command = ["--network", "SegResNet", "--json_list", make_datalist(), "--output", out, "--device", "cpu"]
    assert (
        run(*command, *(part for key, value in changes.items() for part in ("--set", f"{key}={json.dumps(value)}")))
        == 0
    )
    printed = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line.strip()}
    for key, value in {
        "batch_size": "1 ",
        "roi_size": "16 × 24 × 16 voxels",
        "preprocess::spacing": "2 × 2 × 2 mm",
        "augment::flip_axes": "1 ",
        "clip_norm": "none",
        "network_def::init_filters": "16 ",
        "loss::batch": "yes",
    }.items():
        assert value in printed[key] and printed[key].endswith("set by you"), printed[key]
    text = (out / "docs" / "README.md").read_text(encoding="utf-8")
    for said in ("size changed by up to 0.07", "mirrored along axis 1 (probability 0.5)", "intensity times 0.8 to 1.2"):
        assert said in text
    assert all(line in text for line in printed.values() if "set by you" in line)
    train, inference = (read_yaml(out / "configs" / f"{n}.yaml") for n in ("train", "inference"))
    assert inference["trained_mirror_axes"] == train["augment"]["flip_axes"] == [1]
    image = json.loads((out / "configs" / "metadata.json").read_text())["network_data_format"]["inputs"]["image"]
    assert image["spatial_shape"] == train["roi_size"] == inference["roi_size"] == [16, 24, 16]


def test_a_plan_for_a_gpu_needs_none(make_datalist, tmp_path):
    out = tmp_path / "bundle"
    assert run("--network", "DynUNet", "--json_list", make_datalist(), "--output", out, "--device", "cuda") == 0
    train = read_yaml(out / "configs" / "train.yaml")
    assert train["network_def"]["filters"][0] == 32 and train["augment_on_device"] is True


@pytest.mark.parametrize("changes", [{}, {"compile": True}])
def test_a_training_on_a_gpu_weighs_compiling(changes, make_datalist, tmp_path):
    listed = make_datalist()
    settings = TrainSettings(
        output=tmp_path / "run", json_list=listed, network="hnoseg_xs", fold=0, epochs=1, overrides=changes
    )
    start = Start.of(settings, read_datalist(listed), torch.device("cuda"))
    (line,) = (setting.line() for setting in start.draft.settings if setting.id == "compile")
    assert line.endswith("set by you") if changes else "no " in line and line.endswith("takes about 117 s")


def test_folds_and_a_resumed_run_are_planned_for_the_same_memory(make_datalist, tmp_path, monkeypatch):
    """Whatever is free on the GPU by then."""
    monkeypatch.setattr(training, "choose_device", lambda name: torch.device("cuda"))
    monkeypatch.setattr(training, "_run", lambda run, max_minutes, started, facts: None)

    def planned(free_mib: int, output: str) -> list[tuple[list[int], int]]:
        for place in ("medseg.workflows.start", "medseg.bundle.arguments"):
            monkeypatch.setattr(f"{place}.free_gpu_bytes", lambda: free_mib * 2**20)
        train(network="SegResNet", json_list=make_datalist(), output=tmp_path / output, fold="all", epochs=1)
        configs = [read_yaml(run / "configs" / "train.yaml") for run in sorted((tmp_path / output).glob("fold*"))]
        return [(config["roi_size"], config["batch_size"]) for config in configs]

    full, little = planned(10_000, "full"), planned(100, "little")
    assert full[0] != little[0]
    shutil.rmtree(tmp_path / "full" / "fold1")
    assert planned(100, "full") == full == [full[0]] * len(full)


def test_nnunet_plans_give_spacing_window_and_normalisation(make_datalist, tmp_path, capsys):
    fullres = {"patch_size": [16, 24, 8], "spacing": [1.5, 1.0, 0.9], "normalization_schemes": ["ZScoreNormalization"]}
    plans = tmp_path / "nnUNetPlans.json"
    plans.write_text(json.dumps({"transpose_forward": [0, 1, 2], "configurations": {"3d_fullres": fullres}}))
    out = tmp_path / "bundle"
    arguments = ["--network", "SegResNet", "--json_list", make_datalist(), "--device", "cpu", "--output", out]
    assert run(*arguments, "--nnunet_plans", plans) == 0
    assert "nnU-Net's 3d_fullres (nnUNetPlans.json)" in capsys.readouterr().out
    train, inference = (read_yaml(out / "configs" / f"{n}.yaml") for n in ("train", "inference"))
    assert train["roi_size"] == inference["roi_size"] == [8, 24, 16]
    assert train["preprocess"]["spacing"] == [0.9, 1.0, 1.5]
    assert train["preprocess"]["normalization"] == [{"kind": "case", "nonzero": False}]  # of MR, though it is a CT
    again = ["train", *map(str, arguments[2:-1]), str(tmp_path / "run")]
    assert main([*again, "--bundle", str(out), "--nnunet_plans", str(plans)]) == 2
    assert "a bundle has a plan of its own" in capsys.readouterr().err
    assert main([*again, "--network", "SegResNet", "--configuration", "2e"]) == 2
    assert (
        "--configuration 2e: expected 2d, 3d_fullres, 3d_lowres, 3d_cascade_fullres, or a " in capsys.readouterr().err
    )
    assert run(*arguments[:-1], tmp_path / "second", "--configuration", "3d_cascade_fullres") == 2
    assert "refines the label maps of an earlier run, which a training takes over" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "status", "sentence"),
    [
        ({"--network": "SegResNett"}, 2, "No network 'SegResNett'. Did you mean 'SegResNet'"),
        ({"--device": "gpu"}, 2, "expected cpu or cuda"),
        ({"--set": "leraning_rate=1"}, 2, "Unknown key 'leraning_rate'"),
        ({"--set": "network_def::init_filter=1"}, 2, "has no argument 'init_filter'"),
        ({"--set": "preprocess::spacing=[1,1,0]"}, 2, "expected one number above 0 per axis"),
        ({"--fold": 9}, 3, "no fold 9"),
        ({"--json_list": "absent.json"}, 3, "absent.json not found"),
    ],
)
def test_what_cannot_be_is_refused(changes, status, sentence, make_datalist, tmp_path, capsys):
    options = {"--network": "SegResNet", "--json_list": make_datalist(), "--output": tmp_path / "b", "--device": "cpu"}
    assert run(*(item for pair in (options | changes).items() for item in pair)) == status
    assert sentence in capsys.readouterr().err


def test_a_bundle_is_never_overwritten(make_datalist, tmp_path, capsys):
    (tmp_path / "configs").mkdir()
    assert run("--network", "SegResNet", "--json_list", make_datalist(), "--output", tmp_path) == 2
    assert "holds a bundle already" in capsys.readouterr().err
