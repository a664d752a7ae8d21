"""Named recipes: what each states is what the config holds, the plan fills the rest, and `light` is what it was."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from medseg.bundle import plan_layer
from medseg.bundle.build import named_recipes
from medseg.bundle.compose import Workflow
from medseg.bundle.draft import Draft
from medseg.bundle.plan_layer import LIGHT, plan_recipe
from medseg.bundle.recipe import Layer, leaves
from medseg.bundle.trust import judged
from medseg.data import inspect_cases, read_datalist
from medseg.engines import SegmentationTrainer
from medseg.errors import ConfigError
from medseg.networks import catalog, network_class
from medseg.networks.training_facts import TrainingFacts, training_facts
from medseg.transforms.augmentations import trained_mirror_axes
from medseg.workflows import start
from medseg.workflows.new_bundle import PlanRequest, planned_draft
from medseg.workflows.train_settings import TrainSettings

RECIPES = Path(__file__).parents[2] / "medseg" / "bundle" / "recipes"


@pytest.fixture(scope="module")
def inspected(make_datalist: Any) -> Any:
    datalist = read_datalist(make_datalist(shape=(40, 24, 22)))
    return datalist, inspect_cases(datalist.sections["training"], datalist.label_space)


def draft(inspected: Any, network: str, recipe: str, **overrides: Any) -> Draft:
    datalist, facts = inspected
    return planned_draft(PlanRequest(network, "cpu", overrides, recipe=recipe), datalist, facts, 4)


@pytest.mark.parametrize("recipe", ["light", "nnunet", "standard"])
def test_what_a_recipe_states_is_applied(inspected: Any, recipe: str) -> None:
    assert recipe in named_recipes()
    train = draft(inspected, "SegResNet", recipe).train
    stated = yaml.safe_load((RECIPES / f"{recipe}.yaml").read_text())["train"]
    for removed in [top[1:] for top in stated if top[0] == "~"]:
        with pytest.raises(ConfigError, match="The config has no"):
            train.value(removed)
    for top, content in [(top.lstrip("+"), content) for top, content in stated.items() if top[0] != "~"]:
        for below, value in leaves(content, top):
            found = train.value(below)
            assert found == value if value is not None else below == "coarse_axis" or found is not None, below
            if value is not None:
                assert train.origin(below).where.startswith(f"recipes/{recipe}.yaml:")


# What nnU-Net 2.8 does: id, its value, and, where this recipe's differs, why.
NNUNET: list[tuple[str, Any, str]] = [
    ("optimizer::_target_", "torch.optim.SGD", ""),
    ("optimizer::momentum", 0.99, ""),
    ("optimizer::nesterov", True, ""),
    ("optimizer::weight_decay", 3e-5, ""),
    ("optimizer::lr", 0.01, ""),
    ("lr_scheduler::name", "poly", ""),
    ("lr_scheduler::power", 0.9, ""),
    ("lr_scheduler::warmup", 0.0, ""),
    ("train::handlers::5::epoch_level", True, "few epochs in short budgets: the rate falls with each iteration"),
    ("train::trainer::clip_norm", 12.0, ""),
    ("train::trainer::max_epochs", 1000, ""),
    ("train::trainer::accumulation_steps", 1, ""),
    ("ema_decay", None, ""),
    ("train::trainer::head_weights", "halved", ""),
    ("checkpoint::select", "final", ""),
    ("loss::_target_", "DiceCELoss", ""),
    ("loss::batch", True, ""),
    ("loss::include_background", False, ""),
    ("loss::softmax", True, ""),
    ("loss::smooth_nr", 1e-5, ""),
    ("loss::smooth_dr", 1e-5, ""),
    ("augment::foreground", 0.33, ""),
    ("augment::mirror_axes", [0, 1, 2], ""),
    ("augment::spatial::rotation", math.radians(30), ""),
    ("augment::spatial::rotation_in_plane", math.radians(180), ""),
    ("augment::spatial::rotation_elongated", math.radians(15), ""),
    ("augment::spatial::rotation_prob", 0.2, ""),
    ("augment::spatial::scaling", [0.7, 1.4], ""),
    ("augment::spatial::scaling_prob", 0.2, ""),
]
# Its changes of intensity in their order: name, probability, probability per channel, range.
NNUNET_INTENSITY = [
    ("RandCommonNoised", 0.1, None, 0.1),  # deviation uniform from 0
    ("RandBlurd", 0.2, 0.5, [0.5, 1.0]),
    ("RandScaleIntensityd", 0.15, None, 0.25),  # times 0.75 to 1.25, new for each channel
    ("RandContrastd", 0.15, None, [0.75, 1.25]),
    ("RandLowResolutiond", 0.25, 0.5, [0.5, 1.0]),
    ("RandGammad", 0.1, None, [0.7, 1.5]),  # of the inverted image
    ("RandGammad", 0.3, None, [0.7, 1.5]),
]


def test_nnunets_values_and_what_differs(inspected: Any) -> None:
    train = draft(inspected, "DynUNet", "nnunet").train
    content = {**train.tree, **{name: train.value(name) for name, _, _ in NNUNET}}
    for name, theirs, reason in NNUNET:
        value = content[name]
        while isinstance(value, str) and value.startswith("@"):
            value = train.value(value[1:])
        same = value == (pytest.approx(theirs, abs=1e-4) if isinstance(theirs, float) else theirs)
        assert same is not bool(reason), name
    found = train.value("augment::intensity")
    ranges = [next(one[key] for key in RANGE if key in one) for one in found]
    names = [one["_target_"].rpartition(".")[2] for one in found]
    rows = zip(names, [one["prob"] for one in found], [one.get("channel_prob") for one in found], ranges, strict=True)
    assert list(rows) == NNUNET_INTENSITY
    assert [one.get("invert", False) for one in found] == [*[False] * 5, True, False]
    assert found[2]["channel_wise"] is True
    datalist, facts = inspected
    gpu = planned_draft(PlanRequest("DynUNet", "cuda", {}, recipe="nnunet"), datalist, facts, 4).train.tree
    assert 4 * gpu["repeats"] // gpu["batch_size"] == 250 and gpu["epochs"] == 1000
    many = planned_draft(PlanRequest("DynUNet", "cuda", {"batch_size": 2}, recipe="nnunet"), datalist, facts, 1000)
    assert (
        many.train.tree["epochs"] * (1000 * many.train.tree["repeats"] // 2) == 250_000
    )  # of its 1000 x 250 iterations


@pytest.mark.parametrize(
    ("given", "training", "inference", "validation"),
    [
        ({}, [0, 1, 2], [0, 1, 2], [0, 1, 2]),
        ({"augment::mirror_axes": []}, [], [], []),
        ({"augment::mirror_axes": [1]}, [1], [1], [1]),
        ({"validate::inferer::mirror_axes": [0]}, [0, 1, 2], [0, 1, 2], None),
    ],
)
def test_inference_mirrors_the_axes_of_the_training(
    inspected: Any, given: dict[str, Any], training: list[int], inference: list[int], validation: list[int] | None
) -> None:
    planned = draft(inspected, "DynUNet", "nnunet", **given)
    assert trained_mirror_axes(planned.train.tree) == tuple(training)
    assert planned.recipe.config("inference").tree["mirror_axes"] == inference
    assert planned.recipe.overlay("evaluate").get("validate::inferer::mirror_axes") == validation
    assert planned.recipe.config("inference").origin("mirror_axes").reason == "those of the training"  # type: ignore[union-attr]


RANGE = ("std", "sigma", "factors", "zoom", "gamma")


def test_nnunets_training(inspected: Any) -> None:
    planned = draft(inspected, "DynUNet", "nnunet")
    planned.check()
    judged(planned.recipe.config("train").over(Layer({"fold": None}, "bundle")))  # as the next command reads it
    shown = {setting.id: setting.value for setting in planned.settings}
    assert shown["optimizer"] == "SGD with Nesterov momentum 0.99" and shown["recipe"] == "nnunet"
    assert shown["loss"] == "DiceCELoss over the batch" and shown["augment::mirror_axes"] == "0, 1, 2"
    assert planned.recipe.config("inference").tree["mirror_axes"] == [0, 1, 2]
    assert planned.recipe.overlay("evaluate")["validate::inferer::mirror_axes"] == [0, 1, 2]
    parser = Workflow(planned.train.tree, "train").parser
    augment = parser.get_parsed_content("augment")()
    assert len(augment) == 3 + 7 + 3 + 2 and augment[1].roi_size == tuple(planned.train.tree["roi_size"])
    network = parser.get_parsed_content("network_def").train()
    heads = network(torch.zeros(2, 1, *planned.train.tree["roi_size"]))
    assert heads.shape[1] == len(planned.train.tree["network_def"]["strides"]) - 1


@pytest.mark.parametrize(
    ("network", "heads"), [("ssh_unet", True), ("resenc_unet", True), ("hnoseg_xs", None), ("UNet", None)]
)
def test_heads_where_the_network_has_them(inspected: Any, network: str, heads: bool | None) -> None:
    assert draft(inspected, network, "standard").train.tree["network_def"].get("deep_supervision") is heads
    light = draft(inspected, network, "light").train
    assert light.tree["network_def"].get("deep_supervision") is (False if network == "resenc_unet" else None)


def test_facts_of_a_network_change_recipes_with_its_optimizer(inspected: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rates = {name: draft(inspected, "SwinUNETR", name).train for name in named_recipes()}
    assert {name: one.tree["learning_rate"] for name, one in rates.items()} == {
        "light": 0.0005,
        "nnunet": 0.01,
        "standard": 0.0005,
    }
    assert "transformers" in rates["standard"].origin("learning_rate").reason  # type: ignore[union-attr]
    facts = TrainingFacts(
        rate=0.5, light_rate=3, changes={"clip_norm": 1.0, "lr_scheduler::warmup": 0.1}, evidence="a search"
    )
    monkeypatch.setattr(plan_layer, "training_facts", lambda cls: facts)
    for network, size, rate in (
        ("UNet", "light", 0.0075),
        ("repuxnet", "light", 0.0075),
        ("UNet", "published", 0.0005),
    ):
        datalist, found = inspected
        request = PlanRequest(network, "cpu" if size == "light" else "cuda", {}, recipe="standard")
        assert planned_draft(request, datalist, found, 4).train.tree["learning_rate"] == rate
    train = draft(inspected, "UNet", "light").train
    assert (train.value("clip_norm"), train.value("lr_scheduler::warmup")) == (1.0, 0.1)
    assert train.origin("lr_scheduler::warmup").reason == "a search"  # type: ignore[union-attr]


@pytest.mark.parametrize(("has_bf16", "precision"), [(True, "bf16"), (False, "fp16")])
def test_fp16_on_a_gpu_without_bf16(
    has_bf16: bool, precision: str, inspected: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: has_bf16)
    monkeypatch.setattr("medseg.bundle.arguments.free_gpu_bytes", lambda: None)
    datalist, facts = inspected
    planned = planned_draft(PlanRequest("SegResNet", "cuda", {}), datalist, facts, 4)
    assert [planned.recipe.config(file).tree["precision"] for file in ("train", "inference")] == [precision] * 2


@pytest.mark.parametrize(
    ("machine", "network", "precision"),
    [
        ({"avx512_bf16": True}, "DynUNet", "bf16"),
        ({"amx_bf16": True}, "resenc_unet", "bf16"),
        ({"avx512_bf16": True}, "hnoseg_xs", "fp32"),
        ({"avx512_f": True, "avx512_bf16": False}, "DynUNet", "fp32"),
    ],
)
def test_bf16_on_a_cpu_that_multiplies_it(
    inspected: Any, monkeypatch: pytest.MonkeyPatch, machine: dict[str, bool], network: str, precision: str
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: machine, raising=False)
    made = draft(inspected, network, "light")
    assert made.train.value("precision") == precision
    assert made.train.tree["validate"]["inferer"]["precision"] == "fp32"
    assert made.recipe.config("inference").tree["precision"] == "fp32"


def test_facts_of_a_training_have_evidence() -> None:
    own = [network_class(name) for name in catalog()]
    for cls in [*own, *(network_class(name) for name in ("DynUNet", "SwinUNETR", "UNETR", "UNet"))]:
        facts = training_facts(cls)
        assert bool(facts.evidence) is bool((facts.rate, facts.light_rate) != (1, 1) or facts.changes), cls
    assert training_facts(network_class("ssh_unet")).heads and not training_facts(network_class("UNet")).heads


def test_every_planned_training_names_its_recipe(inspected: Any) -> None:
    assert [draft(inspected, "UNet", name).train.tree["recipe"] for name in named_recipes()] == named_recipes()


def test_iterations_are_of_all_processes(inspected: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    light = draft(inspected, "UNet", LIGHT, repeats=25, batch_size=2)  # 4 cases: 50 iterations of one process
    for processes, epochs in ((1, 4), (2, 8), (3, 12)):
        monkeypatch.setattr(start, "world_size", lambda processes=processes: processes)
        assert start._epochs(200, light, 4) == epochs


def test_the_user_has_the_last_word(inspected: Any) -> None:
    tree = draft(inspected, "DynUNet", "standard", learning_rate=0.002, **{"network_def::deep_supervision": False})
    assert tree.train.tree["learning_rate"] == 0.002
    assert tree.train.tree["network_def"]["deep_supervision"] is False
    assert "deep_supr_num" not in tree.train.tree["network_def"]
    fewer = draft(inspected, "DynUNet", "standard", **{"network_def::deep_supr_num": 1}).train.tree["network_def"]
    assert (fewer["deep_supervision"], fewer["deep_supr_num"]) == (True, 1)


def test_large_kernels_are_trained_by_the_recipes_optimizer(inspected: Any) -> None:
    for recipe, name in (
        ("light", "torch.optim.AdamW"),
        ("standard", "torch.optim.AdamW"),
        ("nnunet", "torch.optim.SGD"),
    ):
        optimizer = draft(inspected, "repuxnet", recipe).train.tree["optimizer"]
        assert optimizer["_target_"] == "medseg.optimizers.frequency_reparameterized"
        assert optimizer["optimizer"]["_target_"] == name


def test_a_recipe_that_does_not_fit_is_refused(inspected: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="trained as published; leave --recipe out"):
        several: dict[str, Any] = {"_target_": "medseg.networks.HermesResUNet"}
        plan_recipe(several, inspected[0], inspected[1], recipe="standard", universal=True)
    given: dict[str, Any] = {"output": tmp_path, "json_list": tmp_path}
    for network, recipe, said in [("UNet", "nnunett", "Did you mean 'nnunet'"), (None, "nnunet", "is for --network")]:
        source = {} if network else {"bundle": tmp_path}
        with pytest.raises(ConfigError, match=said):
            TrainSettings(network=network, recipe=recipe, **source, **given).check()
    with pytest.raises(ConfigError, match="give one of them"):
        TrainSettings(network="UNet", epochs=1, iterations=5, **given).check()
    assert TrainSettings(network="UNet", **given).recipe == LIGHT


def test_weights_of_heads_sum_to_one() -> None:
    from medseg.engines.trainer import _halved

    assert _halved(4) == pytest.approx([4 / 7, 2 / 7, 1 / 7, 0]) and _halved(2) == [1, 0]
    with pytest.raises(ConfigError, match="head_weights"):
        SegmentationTrainer(head_weights="half")  # type: ignore[arg-type]
