"""The recipe of a bundle that is planned for a network and a datalist: what the plan chose, on ``bundle/base``.

A named training of ``bundle/recipes`` lies between: the plan fills what it leaves open.

A datalist that joins several data sets is trained as Hermes trains (arXiv 2306.02416).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch

from medseg.bundle.build import BundleRecipe, Section, named_recipes
from medseg.bundle.recipe import Layer, split_id
from medseg.data.datalist import Datalist
from medseg.data.plan import Plan
from medseg.data.plan_grid import CASCADE, SLICES
from medseg.data.union import is_union
from medseg.engines.ranks import cores
from medseg.errors import ConfigError, nearest
from medseg.networks import network_class
from medseg.networks.catalog import SLICE_WISE
from medseg.networks.layers.task_conditioned import TaskConditioned
from medseg.networks.training_facts import TrainingFacts, training_facts

__all__ = ["LIGHT", "NNUNET", "check_recipe", "is_universal", "plan_recipe", "supervises_heads", "universal_plan"]

NNUNET = "nnunet"  # the recipe that is planned by nnU-Net's rules
LIGHT = "light"  # the recipe that planned bundles stand on; others change it

_SPACING = [1.5, 1.5, 1.5]  # mm, as published for all data sets
_CPU_ITERATIONS = 50  # per epoch, whatever the number of cases; 400 as published on a GPU
_MANY_CHANGES = 0.2  # chance of each intensity change for MR, published; 0.1 for others
_PUBLISHED = "as published for several data sets together"
_UNIVERSAL = "universal.yaml"


def is_universal(network: str, datalist: Datalist) -> bool:
    """Whether a bundle trains several data sets together.

    Raises:
        ConfigError: the datalist is a union, and the network cannot be asked for tasks.
    """
    if not is_union(datalist.label_space):
        return False
    if not issubclass(network_class(network), TaskConditioned):
        raise ConfigError(
            f"{datalist.path} joins several data sets with labels of their own, and '{network}' cannot be asked for "
            "tasks: it would take what a data set leaves out for background. Use hermes_resunet or hermes_medformer."
        )
    return True


def check_recipe(name: str) -> None:
    """Refuse the name of a recipe that does not exist.

    Raises:
        ConfigError: naming the nearest.
    """
    known = named_recipes()
    if name not in known:
        raise ConfigError(f"No recipe '{name}'.{nearest(name, known)} Use {', '.join(known)}.")


def supervises_heads(recipe: str) -> bool:
    """Whether a recipe trains heads at lower resolutions, where the network has them."""
    network = BundleRecipe(("generated", recipe), ()).config("train").tree["network_def"]
    return bool(network.get("deep_supervision"))


def universal_plan(datalist: Datalist) -> dict[str, Any]:
    """Overrides that a plan starts from: rows for every task and modality, and the published spacing."""
    space = datalist.label_space
    return {
        "network_def::out_channels": max(max(space.task_ids) + 1, int(datalist.table.get("capacity", 0))),
        "network_def::num_modalities": max(space.modalities.values(), default=-1) + 1,
        "preprocess::spacing": _SPACING,
    }


def plan_recipe(
    network_def: Mapping[str, Any],
    datalist: Datalist,
    plan: Plan,
    *,
    recipe: str = LIGHT,
    universal: bool = False,
) -> BundleRecipe:
    """The recipe for a network, a datalist and a plan.

    Args:
        network_def: the network's class and arguments; in 2D for slices.
        datalist: whose folder and labels are written down.
        plan: what was chosen.
        recipe: one of ``bundle/recipes``.
        universal: several data sets are trained together (``is_universal``).

    Raises:
        ConfigError: the recipe is not for such a training.
    """
    reparameterized = getattr(network_class(network_def["_target_"]), "reparameterization", None)
    if recipe != LIGHT and universal:
        raise ConfigError(
            f"--recipe {recipe}: several data sets together are trained as published; leave --recipe out."
        )
    if (plan.slice_axis is not None and (universal or reparameterized)) or (plan.previous and universal):
        what = "several data sets together are" if universal else f"{network_def['_target_']} is"
        name = CASCADE if plan.previous else SLICES
        raise ConfigError(f"--configuration {name}: {what} trained as published, in 3D; leave it out.")
    alone = ["generated"] + [recipe] * (recipe != LIGHT)
    base = alone + ["sliding_window"] * (not plan.whole_volume) + ["reparameterized"] * bool(reparameterized)
    base += ["universal" if universal else "ensemble"] + ["cascade"] * (plan.previous > 0)
    named = BundleRecipe(tuple(base), ())
    facts = training_facts(network_class(network_def["_target_"]))
    shared = _shared(network_def, datalist, plan)
    train = _left_open(_train(datalist, plan, named.config("train").tree), named)
    if reparameterized:
        optimizer = BundleRecipe(tuple(alone), ()).config("train").tree["optimizer"]
        train |= {"reparameterization": reparameterized, "optimizer::mode": "@reparameterization"}
        train |= {"optimizer::optimizer": optimizer}
    half = {"precision": "bf16"} if plan.light and _gains_by_bf16(facts) else {}
    train |= half | ({"validate::inferer::precision": "fp32"} if plan.light else {})
    if universal:
        shared, train = _universal(shared, train, datalist, plan)
    if plan.previous and "spatial" in named.config("train").tree["augment"]:
        train["augment::spatial::keys"] = named.config("train").value("augment::keys")
    planned = {**named.config("train").tree, **train}
    optimizer = planned.get("optimizer::optimizer", planned["optimizer"])["_target_"]
    own = {} if universal else _of_network(facts, optimizer, planned["learning_rate"], light=plan.light)
    train |= own
    reasons = plan.reasons_by_id() | dict.fromkeys(own, facts.evidence)
    reasons |= dict.fromkeys(
        half, f"this CPU multiplies bf16: a step takes about {facts.bf16_time or 1:.0%} of the time"
    )
    reasons |= dict.fromkeys(("augment::mirror_axes", "flip_axes"), plan.reasons.get("flip_axes", ""))
    reasons["augment_on_device"] = "the GPU changes whole batches, so that loader processes need not keep up with it"
    sections = [Section("both", Layer(shared, "plan", reasons=reasons))]
    sections += [Section("train", Layer(train, "plan", reasons=reasons))]
    if plan.spatial_dims == 2:  # small images: several may be read ahead of the network, and written behind it
        sections += [Section("inference", Layer({"dataloader::buffer_size": 4, "evaluator::behind": 4}, "plan"))]
    if plan.previous:
        channels = plan.in_channels - plan.previous
        for file, place in (("inference", "dataset"), ("evaluate", "validate::dataset")):
            sections += [Section(file, Layer({f"{place}::reader::in_channels": channels}, "plan"))]
    if not universal:
        sections += [Section("ensemble", Layer({"results::name": "predictions_ensemble"}, "plan"))]
    return BundleRecipe(tuple(base), tuple(sections))


def _gains_by_bf16(facts: TrainingFacts) -> bool:
    """Whether a training step on this machine's CPU is faster in bf16."""
    machine: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # older torch does not tell
    return facts.bf16_time is not None and bool(machine.get("avx512_bf16") or machine.get("amx_bf16"))


def _half_precision() -> str:
    """bf16, but fp16 where the GPU at hand has no bf16 of its own."""
    lacks = torch.cuda.is_available() and not torch.cuda.is_bf16_supported(including_emulation=False)
    return "fp16" if lacks else "bf16"


def _shared(network_def: Mapping[str, Any], datalist: Datalist, plan: Plan) -> dict[str, Any]:
    return {
        "dataset_dir": str(datalist.data_dir.resolve()),
        "precision": "fp32" if plan.light else _half_precision(),
        "roi_size": list(plan.roi_size),
        "labels": datalist.label_space.to_table(),
        "preprocess::spacing": list(plan.spacing) if plan.spacing is not None else None,
        "preprocess::crop_foreground": plan.crop_foreground,
        **({"preprocess::color": plan.color, "preprocess::longest": plan.longest} if plan.spatial_dims == 2 else {}),
        **({"preprocess::cubic": True} if plan.like_nnunet and plan.spacing is not None else {}),
        **({"preprocess::slice_axis": plan.slice_axis} if plan.slice_axis is not None else {}),
        "preprocess::scale": plan.scale,
        "preprocess::normalization": plan.normalization,
        "network_def": dict(network_def) if plan.slice_axis is None else _on_slices(network_def, plan),
    }


def _on_slices(network_def: Mapping[str, Any], plan: Plan) -> dict[str, Any]:
    channels = {name: network_def[name] for name in ("in_channels", "out_channels")}
    return {
        "_target_": SLICE_WISE,
        "spatial_dims": 3,
        **channels,
        "axis": plan.slice_axis,
        "network": dict(network_def),
    }


def _train(datalist: Datalist, plan: Plan, named: Mapping[str, Any]) -> dict[str, Any]:
    space = datalist.label_space
    masked: dict[str, Any] = {"_target_": "medseg.losses.MaskedDiceCELoss", "label_space": "@label_space"}
    masked |= {"batch": True} if named["loss"].get("batch") else {}
    return {
        "configuration": plan.configuration,
        "learning_rate": plan.learning_rate,
        "batch_size": plan.batch_size,
        "repeats": plan.repeats,
        **({"epochs": plan.long_epochs} if named["epochs"] is None else {}),
        "num_workers": 0 if plan.light else min(8, cores()),
        "cache": plan.cache,
        "flip_axes": list(plan.flip_axes),
        "augment::flip_axes": list(plan.flip_axes),
        "augment::rotate": list(plan.rotate),
        "augment::samples_per_case": plan.samples_per_case,
        "augment::mirror_axes": _mirror_axes(plan),
        "coarse_axis": plan.coarse_axis,
        **({} if plan.light or plan.previous else {"augment_on_device": True}),
        **({"loss": masked} if space.mode != "softmax" or space.has_ignore else {}),
    }


def _left_open(offered: Mapping[str, Any], named: BundleRecipe) -> dict[str, Any]:
    """What a plan offers, without what the named recipe states or does not have."""
    config = named.config("train")
    stated = {id_ for id_, origin in config.origins.items() if origin.place.startswith("recipes/")}

    def is_open(id_: str) -> bool:
        parent: Any = config.tree
        for part in split_id(id_)[:-1]:
            parent = parent.get(part, {})
        name = split_id(id_)[-1]
        return name in parent and (parent[name] is None or id_ not in stated)

    return {id_: value for id_, value in offered.items() if is_open(id_)}


def _of_network(facts: TrainingFacts, optimizer: str, learning_rate: float, *, light: bool) -> dict[str, Any]:
    """What a network changes of a recipe with AdamW, of which its facts are."""
    if optimizer != "torch.optim.AdamW":
        return {}
    factor = facts.rate * (facts.light_rate if light else 1.0)
    rate = {} if factor == 1 else {"learning_rate": float(f"{factor * learning_rate:.6g}")}
    return {**rate, **facts.changes}


def _mirror_axes(plan: Plan) -> list[int]:
    """All axes along which mirror images are plausible: not from left to right where labels tell these apart."""
    plausible = {*plan.flip_axes, *((1, 2) if plan.spatial_dims == 3 else ())}
    return sorted(plausible - {plan.slice_axis})


def _universal(
    shared: dict[str, Any], train: dict[str, Any], datalist: Datalist, plan: Plan
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What is left to a plan where ``base/universal.yaml`` says how several data sets are trained."""
    left = {k: v for k, v in shared.items() if not k.startswith("preprocess::") or k == "preprocess::spacing"}
    kept = {k: train[k] for k in ("configuration", "batch_size", "num_workers", "cache")}
    # Its random changes have no form for batches.
    kept |= dict.fromkeys(("~augment_on_device", "~train::preprocessing::augment_on_device"))
    kept |= {"recipe": "universal", "schedule": "exp_poly", "weights": _weights(datalist)}
    kept |= {"iterations": _CPU_ITERATIONS} if plan.light else {}
    return left, kept | {"augment::intensity_of": {name: _MANY_CHANGES for name in _mr_datasets(datalist)}}


def _mr_datasets(datalist: Datalist) -> list[str]:
    """Data sets whose images are neither CT nor PET, in the datalist's order."""
    cases = [case for section in datalist.sections.values() for case in section]
    others = {case.dataset or "" for case in cases if case.modality not in ("ct", "pet")}
    return [name for name in dict.fromkeys(case.dataset or "" for case in cases) if name in others]


def _weights(datalist: Datalist) -> dict[str, float]:
    """The union's, or such that a data set of four times the cases is drawn twice as often."""
    counts = Counter(case.dataset or "" for case in datalist.sections["training"])
    return dict(datalist.table.get("weights") or {name: count**-0.5 for name, count in counts.items()})
