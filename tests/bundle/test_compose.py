"""Bundle + overlays + overrides: what is applied, and what is refused with which sentence."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from medseg.bundle.compose import load_workflow, parse_assignments, user
from medseg.bundle.config_check import check_config, check_overrides, check_ranges
from medseg.bundle.draft import Draft
from medseg.bundle.folder import Bundle
from medseg.bundle.recipe import Layer
from medseg.errors import ConfigError, ModelError

BUNDLE = Path(__file__).parents[2] / "bundles" / "ssh_unet_btcv_ct_segmentation"


@pytest.fixture
def bundle(tmp_path) -> Path:
    """A copy that a test may spoil."""
    shutil.copytree(BUNDLE / "configs", tmp_path / "bundle" / "configs")
    return tmp_path / "bundle"


@pytest.fixture(scope="module")
def config() -> dict:
    return Bundle(BUNDLE).recipe("train").tree


def draft(*layers: Layer, overlays: Sequence[str] = ()) -> Draft:
    """The bundle as a training would take it."""
    return Draft.copied(Bundle(BUNDLE), overlays, None).over(*layers)


def edit(bundle: Path, old: str, new: str, name: str = "train.yaml") -> None:
    path = bundle / "configs" / name
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


# ---------------------------------------------------------------------- --set
def test_assignments_are_read_as_yaml():
    assert parse_assignments(
        ["learning_rate=1e-3", "roi_size=[64, 64, 64]", "fold=null", "compile=true", "a#b=x", "c::d=$1+1"]
    ) == {"learning_rate": 0.001, "roi_size": [64, 64, 64], "fold": None, "compile": True, "a::b": "x", "c::d": "$1+1"}


@pytest.mark.parametrize("text", ["learning_rate", "=1", "a=[1,", "a=!!python/object/apply:os.getcwd []"])
def test_a_bad_assignment_is_refused(text):
    with pytest.raises(ConfigError, match="--set"):
        parse_assignments([text])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("train::trainer::max_epochs", 3),
        ("train::trainer::max_non_finite", 3),  # an argument that the config leaves at its default
        ("train::handlers::3::interval", 5),
        ("roi_size::0", 64),
        ("preprocess::window", [-100, 200]),
        ("network_def::gate_pos", [0, 1]),
        ("learning_rate", 1),
        ("batch_size", "$1 + 1"),
        ("num_workers", "@batch_size"),
        ("early_stop", None),
    ],
)
def test_an_override_lands_where_it_says(key, value, config):
    check_overrides(config, {key: value})
    changed = draft(user({key: value})).train.tree
    for part in key.split("::"):
        changed = changed[int(part)] if isinstance(changed, list) else changed[part]
    assert changed == value


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("leraning_rate", 0.1, "Unknown key 'leraning_rate'.*'learning_rate'"),
        ("train.batch_size", 2, "Unknown key 'train.batch_size'.*batch_size"),
        ("train::trainer::max_epoch", 3, "no argument 'max_epoch'.*'max_epochs'"),
        ("network_def::gate_tpye", "gsm", "no argument 'gate_tpye'.*'gate_type'"),
        ("optimizer::beta", 0.9, "no argument 'beta'.*'betas'"),
        ("train::handlers::99", {}, "Unknown key 'train::handlers::99'"),
        ("train::handlers::3::intervall", 5, "no argument 'intervall'.*'interval'"),
        ("batch_size", "two", "batch_size: expected a positive integer, got 'two'"),
        ("train::dataloader::batch_size", "two", "expected a (number|positive integer), got 'two'"),
        ("train::trainer::max_epochs", "many", "expected a (number|positive integer), got 'many'"),
        ("epochs", 0, "epochs: expected a positive integer"),
        ("epochs", 2.5, "epochs: expected a positive integer"),
        ("epochs", True, "epochs: expected"),
        ("learning_rate", -1, "learning_rate: expected a positive number"),
        ("learning_rate", float("nan"), "learning_rate: expected a positive number"),
        ("weight_decay", -0.1, "weight_decay: expected a number from 0 on"),
        ("overlap", 1.0, "overlap: expected a number from 0 to below 1"),
        ("overlap", -0.1, "overlap: expected a number from 0 to below 1"),
        ("roi_size", [64, 64], r"roi_size: expected 3 positive integers, got \[64, 64\]; \["),
        ("roi_size", [0, 64, 64], "roi_size: expected 3 positive integers"),
        ("roi_size", [64.5, 64, 64], "roi_size: expected 3 positive integers"),
        ("roi_size", 64, "roi_size: expected 3 positive integers"),
        ("preprocess::spacing", [1, 1, 0], "preprocess::spacing: expected one number above 0 per axis"),
        ("precision", "fp8", "precision: expected one of fp32, bf16, fp16"),
        ("cache", "disk", "cache: expected one of"),
        ("compile", "yes please", "compile: expected true or false"),
        ("labels", "liver", "labels: expected a mapping"),
        ("output_dir", "/tmp/a#b", "holds '#'"),
    ],
)
def test_an_override_is_refused(key, value, sentence, config):
    with pytest.raises(ConfigError, match=sentence):
        draft(user({key: value})).check()


def test_ranges_leave_the_networks_own_arguments_alone():
    check_ranges({"network_def::overlap": 3, "network_def::epochs": "x", "seed": None, "roi_size": "@a"})


# ---------------------------------------------------------------------- files
@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        (
            "learning_rate: 0.0004",
            "leraning_rate: 0.0004",
            "Unknown key 'leraning_rate' in train.yaml.*'learning_rate'",
        ),
        ("epochs: 5000", "epochs: 5000\nepocsh: 3", "Unknown key 'epocsh' in train.yaml.*'epochs'"),
        ("batch_size: 2", "batch_size: two", "batch_size: expected a positive integer, got 'two'"),
        ("gate_type: tsm", "gate_tpye: tsm", "no argument 'gate_tpye'.*'gate_type'"),
        ("medseg.networks.SSHUNet", "medseg.networks.SSHUnet", "No component 'medseg.networks.SSHUnet'.*'SSHUNet'"),
        ("'@ckpt_dir'", "'@chekpoint_dir'", "refers to '@chekpoint_dir', which is not there"),
        ("seed: 0", "seed: 0\nseed: 1", "line 7: key 'seed' appears twice"),
        ("seed: 0", "seed: !!python/object/apply:os.getcwd []", "line 6: .*would build Python objects"),
        ("seed: 0", "seed: [0", "line .*not valid YAML"),
    ],
)
def test_a_spoilt_file_is_refused(old, new, sentence, bundle):
    edit(bundle, old, new)
    with pytest.raises(ConfigError, match=sentence):
        load_workflow(bundle, "train")


def test_an_overlay_with_a_misspelt_entry_is_refused(bundle):
    (bundle / "configs" / "own.yaml").write_text("network_def::gate_tpye: gsm\n")
    with pytest.raises(ConfigError, match="no argument 'gate_tpye'"):
        load_workflow(bundle, "train", overlays=["own"])
    (bundle / "configs" / "own.yaml").write_text("netwrok_def::gate_type: gsm\n")
    with pytest.raises(ConfigError, match="own.yaml.*netwrok_def"):
        load_workflow(bundle, "train", overlays=["own"])


def test_a_missing_overlay_or_bundle_is_named(tmp_path):
    with pytest.raises(ModelError, match="no config 'gsn'.*'gsm'"):
        Bundle(BUNDLE).recipe("train", ["gsn"])
    with pytest.raises(ModelError, match=r"Expected a bundle with configs/train.yaml"):
        Bundle(tmp_path).recipe("train")


def test_every_config_of_the_bundle_passes():
    for task, overlays in (("train", ()), ("train", ("gsm",)), ("evaluate", ("evaluate_published",)), ("infer", ())):
        check_config(Bundle(BUNDLE).recipe(task, overlays).tree, task)


@pytest.mark.parametrize(
    ("overlay", "expected"),
    [("gsm", {"gate_type": "gsm"}), ("gsf", {"gate_type": "gsf"}), ("tsm_vfn", {"vfn": True, "align_views": False})],
)
def test_an_overlay_changes_training_evaluation_and_inference(overlay, expected):
    recipe = draft(overlays=[overlay]).recipe
    for name in ("train", "inference"):
        assert recipe.config(name).tree["network_def"].items() >= expected.items(), name
    evaluation = Bundle(BUNDLE).recipe("evaluate", [overlay]).tree
    assert evaluation["network_def"].items() >= expected.items()


def test_what_training_alone_has_stays_out_of_inference():
    given = user({"epochs": 3, "output_dir": "/tmp/x", "overlap": 0.25})
    changed = {name: draft(given).recipe.config(name).tree for name in ("train", "inference")}
    assert "epochs" not in changed["inference"]
    assert changed["inference"]["output_dir"] != "/tmp/x"
    assert changed["inference"]["overlap"] == changed["train"]["overlap"] == 0.25


def test_overrides_reach_the_objects():
    workflow = load_workflow(
        BUNDLE, "train", {"network_def::filters": [4, 4, 4, 4, 4], "device": "cpu", "learning_rate": 0.5}, ["gsf"]
    )
    assert workflow.parser.get_parsed_content("optimizer").param_groups[0]["lr"] == 0.5
    network = workflow.parser.get_parsed_content("network_def")
    assert sum(p.numel() for p in network.parameters()) < 100_000


def test_an_error_of_ours_comes_out_of_monais_wrapping():
    workflow = load_workflow(BUNDLE, "infer", {"device": {"_target_": "medseg.workflows.device", "name": "cuda:7"}})
    import torch

    if torch.cuda.is_available():
        pytest.skip("needs a machine without CUDA")
    from medseg.errors import ResourceError

    with pytest.raises(ResourceError, match="sees none"):
        workflow.parser.get_parsed_content("network")
