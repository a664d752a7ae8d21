"""Configuration and command line (numbers 46 to 53 of the matrix): refused before the first iteration."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
import torch

from medseg.bundle.config_check import check_config, check_overrides, check_roi
from medseg.bundle.recipe import Layer, Recipe
from medseg.errors import ConfigError
from medseg.storage import read_yaml


@pytest.fixture
def stopped(monkeypatch: Any) -> None:
    """Training that ends where the first iteration would begin."""

    def stop(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(importlib.import_module("medseg.workflows.training"), "load_workflow", stop)


def _train(study: Any, *options: Any, output: str = "run", network: str = "SegResNet") -> Any:
    if not (study.folder / "list.json").exists():
        study.write([study.case("a"), study.case("b")], validation=[study.case("v")])
    return study.run(
        "train", "--network", network, "--json_list", study.folder / "list.json", "--device", "cpu",
        "--output", study.folder / output, *options,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("assignment", "sentence"),
    [
        ("leraning_rate=0.1", "Unknown key 'leraning_rate' in train.yaml. Did you mean 'learning_rate'?"),
        ("optimizer::weight_decy=0.1", "has no argument 'weight_decy'. Did you mean 'weight_decay'?"),
        ("network_def::init_filter=8", "has no argument 'init_filter'. Did you mean 'init_filters'?"),
        ("zzz=1", "Unknown key 'zzz' in train.yaml. Top-level keys: bundle_root, "),
        ("no_assignment", "is not an assignment; expected id=value"),
        ("batch_size=two", "batch_size: expected a positive integer, got 'two'."),
        ("batch_size=0", "batch_size: expected a positive integer, got 0."),
        ("epochs=1.5", "epochs: expected a positive integer, got 1.5."),
        ("learning_rate=-1", "learning_rate: expected a positive number, got -1."),
        ("clip_norm=high", "clip_norm: expected a positive number, got 'high'."),
        ("preprocess::crop_foreground=3", "preprocess::crop_foreground: expected true or false, got 3."),
        ("roi_size=[16, 16]", "roi_size: expected 3 positive integers, got [16, 16]; [16, 16, 16] is valid."),
        ("roi_size=[16, 0, 16]", "roi_size: expected 3 positive integers, got [16, 0, 16]; [16, "),
        ("roi_size=[16, -8, 16]", "roi_size: expected 3 positive integers, got [16, -8, 16]; [16, "),
        ("roi_size=16", "roi_size: expected 3 positive integers, got 16; [16, "),
        ("roi_size=[40000, 40000, 40000]", "roi_size [40000, 40000, 40000] needs at least "),
        ("overlap=1", "overlap: expected a number from 0 to below 1, for example 0.5, got 1."),
        ("overlap=-0.1", "overlap: expected a number from 0 to below 1, for example 0.5, got -0.1."),
    ],
)
def test_46_47_49_50_bad_settings(study: Any, stopped: None, assignment: str, sentence: str) -> None:
    result = _train(study, "--set", assignment)
    assert result.status == 2, result.err
    assert sentence in result.err


def test_49_too_large_a_window_comes_with_one_that_fits(study: Any, stopped: None) -> None:
    error = _train(study, "--set", "roi_size=[4000, 4000, 4000]").err
    nearest = error.partition("use [")[2].partition("]")[0]
    sizes = [int(n) for n in nearest.split(",")]
    assert len(sizes) == 3
    assert all(8 <= n < 4000 and n % 8 == 0 for n in sizes)
    assert _train(study, "--set", "roi_size=[16, 16, 16]").status == 130  # nothing to complain about


def test_49_valid_windows_pass() -> None:
    check_roi([16, 24], 2)
    with pytest.raises(ConfigError, match=r"got \[16, 24\]; \[16, 24, 24\] is valid"):
        check_roi([16, 24], 3)
    with pytest.raises(ConfigError, match=r"got \[True, 24\]"):
        check_roi([True, 24], 2)


@pytest.mark.parametrize(
    ("option", "value", "sentence"),
    [
        ("--epochs", "0", "epochs: expected a positive integer, got 0."),
        ("--max_minutes", "-1", "max_minutes: expected a positive number, got -1.0."),
        ("--seed", "-5", "seed: expected an integer from 0 on, got -5."),
    ],
)
def test_47_numbers_of_the_command_line(study: Any, option: str, value: str, sentence: str) -> None:
    result = _train(study, option, value)
    assert result.status == 2
    assert sentence in result.err
    assert not (study.folder / "run").exists()


def test_47_two_lengths_of_a_training_contradict_each_other(study: Any) -> None:
    result = _train(study, "--iterations", "5", "--set", "epochs=2")
    assert result.status == 2 and "--iterations 5 and --set epochs=2 contradict each other; leave one" in result.err


def test_46_47_argparse_ends_with_the_same_status(study: Any, capsys: Any) -> None:
    for options in (["--epochs", "two"], ["--epoch_number", "2"]):
        with pytest.raises(SystemExit) as stop:
            _train(study, *options)
        assert stop.value.code == 2
        assert options[1 if options[0] == "--epochs" else 0] in capsys.readouterr().err


def merged(files: Any) -> Any:
    return Recipe.of(*(Layer.read(file, "bundle") for file in files)).tree


def test_46_misspelt_key_in_a_file(study: Any) -> None:
    base, overlay = study.folder / "train.yaml", study.folder / "mine.yaml"
    base.write_text("learning_rate: 0.1\noptimizer: {lr: '@learning_rate'}\ntrain: {o: '@optimizer'}\n")
    overlay.write_text("leraning_rate: 0.5\n")
    with pytest.raises(
        ConfigError, match=r"Unknown key 'leraning_rate' in train.yaml \+ mine.yaml. Did you mean 'lear"
    ):
        check_config(merged([base, overlay]), "train.yaml + mine.yaml")
    overlay.write_text("learning_rate: 0.5\nnote: my own\n")
    config = merged([base, overlay])
    check_config(config, "train.yaml + mine.yaml")
    assert config["learning_rate"] == 0.5
    with pytest.raises(ConfigError, match="Unknown key 'lerning_rate' in mine.yaml. Did you mean 'learning_rate'?"):
        check_overrides({"learning_rate": 1.0}, {"lerning_rate": 1}, "mine.yaml")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a: 1\nb: 2\na: 3\n", "line 3: key 'a' appears twice; keep one."),
        ("a: !!python/object/apply:os.getcwd []\n", "line 1: 'tag:yaml.org,2002:python/object/apply:os.getcwd' would"),
        ("a: [1\n", "line 2, column 1: not valid YAML"),
    ],
)
def test_54_bad_yaml(study: Any, text: str, sentence: str) -> None:
    path = study.folder / "train.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as error:
        read_yaml(path)
    assert sentence in str(error.value)


def test_48_unknown_network(study: Any) -> None:
    result = _train(study, network="SegResNett")
    assert result.status == 2
    assert "No network 'SegResNett'. Did you mean 'SegResNet'? All: " in result.err


def test_51_fewer_cases_than_folds(study: Any) -> None:
    path = study.write([study.case(name) for name in "abc"])
    result = study.run("check", "--json_list", path)
    assert result.status == 0
    result.warns("all cases", "3 cases cannot give 5 folds; using 3", "Add cases, or write a 'fold'")
    assert study.run("check", "--json_list", path, "--strict").status == 3


def test_52_folder_of_another_run(study: Any, stopped: None) -> None:
    assert _train(study, "--set", "roi_size=[16, 16, 16]").status == 130
    assert _train(study, "--set", "roi_size=[16, 16, 16]").status == 130  # the same command goes on
    stored = (study.folder / "run" / "configs" / "train.yaml").read_bytes()
    result = _train(study, "--set", "roi_size=[16, 16, 16]", "--set", "learning_rate=0.5", "--seed", 3)
    assert result.status == 2
    assert f"{study.folder / 'run'} holds a run with other settings (" in result.err
    assert "learning_rate: 0.005 -> 0.5" in result.err
    assert "seed: 0 -> 3" in result.err
    assert "Use another --output folder, or the settings of that run." in result.err
    assert (study.folder / "run" / "configs" / "train.yaml").read_bytes() == stored


def test_52_a_network_that_cannot_be_built(study: Any, stopped: None) -> None:
    """A start that is refused leaves the folder as it was, so that the corrected command starts there."""
    assert _train(study).status == 130
    bundle = study.folder / "run"
    for made in (False, True):
        folder = study.folder / f"again{made}"
        if made:
            folder.mkdir()
        options = ["--bundle", bundle, "--json_list", study.folder / "list.json", "--device", "cpu", "--output", folder]
        for more in ([], ["--dry_run"]):
            result = study.run("train", *options, "--set", "network_def::norm=nope", *more)
            assert result.status == 2 and "Unsupported option 'NOPE'" in result.err
            assert folder.exists() == made and not [*study.folder.glob(f"{folder.name}/*")]
        assert study.run("train", *options).status == 130
        assert (folder / "configs" / "train.yaml").is_file() and (folder / "log.txt").is_file()


def test_52_folder_with_other_content(study: Any) -> None:
    folder = study.folder / "papers"
    folder.mkdir()
    (folder / "LICENSE").write_text("mine")
    result = _train(study, output="papers")
    assert result.status == 2
    assert f"{folder} is not empty (LICENSE) and holds no run; use another --output folder" in result.err
    assert [path.name for path in folder.iterdir()] == ["LICENSE"]
    assert (folder / "LICENSE").read_text() == "mine"


def test_53_no_cuda(study: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    result = _train(study, "--device", "cuda")
    assert result.status == 5
    assert f"Device 'cuda' asked for, but torch {torch.__version__}" in result.err
    if not torch.version.cuda:
        assert "sees none (Torch not compiled with CUDA enabled). Use --device cpu." in result.err
    unknown = _train(study, "--device", "gpu")
    assert unknown.status == 2
    assert "Device 'gpu' is unknown; use cpu, cuda or cuda:N." in unknown.err


def test_26_bundle_of_other_axes_or_classes(study: Any, stopped: None) -> None:
    assert _train(study, "--set", "roi_size=[16, 16, 16]", output="bundle").status == 130
    arguments = ["train", "--bundle", study.folder / "bundle", "--device", "cpu", "--output", study.folder / "next"]
    more = {"0": "background", "1": "liver", "2": "spleen"}
    path = study.write([study.case("a"), study.case("b")], validation=[study.case("v")], labels=more)
    result = study.run(*arguments, "--json_list", path)
    assert result.status == 2
    assert (
        "The bundle has 2 output channels (background, liver), the datalist 3 (background, liver, spleen)" in result.err
    )
    assert "--network" in result.err
    double = [study.case(name, image=study.image(f"{name}4.nii.gz", (12, 10, 8, 2))) for name in "ab"]
    path = study.write(double, validation=[], modality={"0": "CT", "1": "PET"})
    result = study.run(*arguments, "--json_list", path)
    assert result.status == 3
    assert "model expects 1 channels, " in result.err
    assert "has 2. Give one file per channel" in result.err
