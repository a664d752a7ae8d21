"""Plan and write a bundle for (network, datalist) without training it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medseg.bundle import plan_for_network
from medseg.bundle.arguments import given_arguments, supervised_arguments
from medseg.bundle.build import RECIPE
from medseg.bundle.compose import command, user
from medseg.bundle.config_check import check_ranges
from medseg.bundle.draft import Draft
from medseg.bundle.parts import device as choose_device
from medseg.bundle.plan_layer import LIGHT, NNUNET, check_recipe, is_universal, supervises_heads, universal_plan
from medseg.bundle.recipe import Layer
from medseg.bundle.trust import remember_own
from medseg.data import CaseFacts, Datalist, Plan, read_datalist
from medseg.data.nnunet_plans import NnunetPlans, read_nnunet_plans
from medseg.data.plan_grid import CASCADE, FULL, SLICES, check_configuration
from medseg.data.run_settings import SET, Setting
from medseg.errors import ConfigError
from medseg.networks import network_target
from medseg.networks.nnunet_patch import MEMORY_GB
from medseg.settings import File, Folder, takes
from medseg.workflows.checks import check_cases, check_window
from medseg.workflows.run_limits import check_arguments, check_training, refuse_double

__all__ = [
    "NewBundleSettings",
    "PlanRequest",
    "announce",
    "given_nnunet",
    "new_bundle",
    "planned_draft",
    "planned_network",
]

logger = logging.getLogger("medseg")


@dataclass(frozen=True, kw_only=True)
class NewBundleSettings:
    """What a new bundle is planned for.

    Attributes:
        network: name of `medseg networks`, MONAI class or dotted path.
        json_list: datalist (Decathlon JSON), or YAML that joins several.
        output: folder of the new bundle; it must not hold one.
        data_dir: base directory for relative paths in the datalist (default: its folder).
        fold: validation fold (default: the validation section, else fold 0).
        recipe: named training: light, standard or nnunet. The plan fills what depends on the data.
        device: cpu or cuda, where it will train: a GPU gets published sizes, a CPU light ones (default: a GPU where
            there is one).
        overrides: config values by their ids, such as learning_rate=0.001 or network_def::filters=[16,32].
        memory_gb: with --recipe nnunet: GPU memory in GB that patch and batch are planned for (default: 8). 8, 24 and
            40 are nnU-Net's presets M, L and XL of resenc_unet.
        nnunet_plans: nnUNetPlans.json of nnU-Net 2. Its spacing, patch size and normalisation are used.
        configuration: nnU-Net's: 2d (slices of volumes), 3d_fullres or 3d_lowres; or one of these plans.
    """

    network: str
    json_list: File
    output: Folder
    data_dir: Folder | None = None
    fold: int | None = None
    recipe: str = "light"
    device: str | None = None
    overrides: Mapping[str, Any] | None = field(default=None, metadata={"option": "set"})
    memory_gb: float | None = None
    nnunet_plans: File | None = None
    configuration: str | None = None


@takes(NewBundleSettings)
def new_bundle(settings: NewBundleSettings) -> list[Setting]:
    """Plan and write a bundle for a network and a datalist, without training it.

    The cases are read and checked first.

    Returns:
        The settings of the written ``train.yaml``.

    Raises:
        ConfigError: the folder holds a bundle, the network does not fit, or an override is refused.
        DataError: the datalist or a case cannot be used.
    """
    network, fold, device, changes = settings.network, settings.fold, settings.device, dict(settings.overrides or {})
    root = Path(settings.output).resolve()
    if (root / "configs").exists():
        raise ConfigError(f"{root} holds a bundle already; name another --output folder.")
    network_target(network)  # an unknown name is told before the data are read
    check_recipe(settings.recipe)
    remember_own(changes)
    nnunet = given_nnunet(settings.nnunet_plans, settings.configuration)
    if settings.configuration == CASCADE:
        raise ConfigError(
            f"--configuration {CASCADE} refines the label maps of an earlier run, which a training takes over; "
            "expected another one here. Use `medseg train --previous RUN`."
        )
    refuse_double("train", changes)
    given = {key: value for key, value in changes.items() if key != "roi_size"}  # that needs the images' axes
    check_ranges({"fold": fold, **given})
    datalist = read_datalist(settings.json_list, settings.data_dir)
    training, validation = datalist.split(fold)
    facts = check_cases(training + validation, datalist, training=training, fold=fold)
    chosen = (device or str(choose_device())).partition(":")[0]  # a plan for a GPU needs none
    if chosen not in ("cpu", "cuda"):
        raise ConfigError(f"--device {device}: expected cpu or cuda.")
    memory = settings.memory_gb
    if memory is not None and (settings.recipe != NNUNET or not memory > 0):
        raise ConfigError(
            f"--memory_gb {memory:g}: expected a number above 0 with --recipe {NNUNET}, whose patch and batch are "
            "planned for it; leave it out, or set roi_size and batch_size with --set."
        )
    asked = PlanRequest(
        network,
        chosen,
        changes,
        nnunet,
        recipe=settings.recipe,
        memory_gb=memory or MEMORY_GB,
        configuration=settings.configuration,
    )
    draft = planned_draft(asked, datalist, facts, len(training))
    draft = draft.over(command({"fold": fold}, SET if fold is not None else ""))
    check_training(draft.train.tree, facts, datalist)
    draft.check()
    announce(draft.settings, f"plan for {network} on {datalist.name}", draft.mirrored)
    draft.write(root)
    draft.recipe.dump(
        root / RECIPE, f"{network} on {datalist.name}: what was planned; `medseg bundle build` applies it."
    )
    return draft.settings


def announce(settings: Sequence[Setting], title: str, mirrored: Sequence[int] = ()) -> None:
    """Log the settings of a training, and the axes that inference mirrors."""
    logger.info("%s:", title)
    for setting in settings:
        logger.info("  %s", setting.line())
    if mirrored:
        axes = ", ".join(map(str, mirrored))
        logger.info("  inference: mean over %d mirror images, along axes %s", 2 ** len(mirrored), axes)


def given_nnunet(plans: str | Path | None, configuration: str | None) -> NnunetPlans | None:
    """The plans of nnU-Net that a user names.

    Raises:
        ConfigError: plans that cannot be used, or, without them, a configuration that nnU-Net does not have.
    """
    if plans is not None:
        return read_nnunet_plans(plans, configuration)
    check_configuration(configuration, cascade=True)
    return None


@dataclass(frozen=True)
class PlanRequest:
    """What is asked of a planned bundle.

    Attributes:
        network: registered name, MONAI class or dotted path.
        device_type: ``cpu`` or ``cuda``.
        overrides: config id -> value, the user's.
        nnunet: plans of nnU-Net to follow.
        taken: config id -> value that the source of a transfer gives.
        recipe: one of ``bundle/recipes``.
        memory_gb: GPU memory that nnU-Net's recipe is planned for.
        configuration: as of ``PlanSettings``; of ``nnunet``, where that is given.
        gpu_bytes: memory of the GPU that a training step may use; ``None`` is what is free now.
    """

    network: str
    device_type: str
    overrides: Mapping[str, Any]
    nnunet: NnunetPlans | None = None
    taken: Layer = Layer({}, "plan")
    recipe: str = LIGHT
    memory_gb: float = MEMORY_GB
    configuration: str | None = None
    gpu_bytes: int | None = None


def planned_network(
    request: PlanRequest, datalist: Datalist, facts: Sequence[CaseFacts], num_training: int
) -> tuple[Plan, dict[str, Any]]:
    """The plan for checked cases, and the network's arguments, with the heads that the recipe trains.

    Raises:
        ConfigError: an override does not fit the images, or the network does not take the patch size.
    """
    network, nnunet = request.network, request.nnunet
    overrides = {**request.taken.changes, **request.overrides}
    if is_universal(network, datalist):
        if nnunet is not None:
            raise ConfigError("--nnunet_plans are of one data set, the datalist joins several; leave them out.")
        overrides = universal_plan(datalist) | overrides
    check_arguments(overrides, facts)
    theirs = None if nnunet is None else nnunet.choices(facts).patch_size
    window = overrides.get("roi_size") or theirs
    if window is not None:
        check_window(window, facts, overrides.get("batch_size", 2))
    memory = request.memory_gb if request.recipe == NNUNET else None
    chosen = request.configuration
    if theirs is not None and chosen != CASCADE:
        chosen = SLICES if 1 in theirs else FULL
    if len(facts[0].shape) == 2 and chosen != CASCADE and (theirs is not None or chosen == SLICES):
        chosen = None  # 2D images have no other
    plan, arguments = plan_for_network(
        network,
        datalist,
        facts,
        num_training,
        request.device_type,
        overrides,
        nnunet,
        memory,
        chosen,
        request.gpu_bytes,
    )
    heads = supervised_arguments(network, arguments, heads=supervises_heads(request.recipe))
    given = given_arguments(overrides, chosen)
    arguments |= {} if "deep_supervision" in given else {key: v for key, v in heads.items() if key not in given}
    return plan, arguments


def planned_draft(request: PlanRequest, datalist: Datalist, facts: Sequence[CaseFacts], num_training: int) -> Draft:
    """The bundle that is planned for checked cases, with what the user overrides.

    Raises:
        ConfigError: as ``planned_network``; an override names a training that was not planned.
    """
    if named := next((name for name in ("recipe", "configuration") if name in request.overrides), None):
        raise ConfigError(f"--set {named} would rename the training without changing it; choose it by --{named}.")
    plan, arguments = planned_network(request, datalist, facts, num_training)
    remember_own({"network_def::_target_": network_target(request.network)})  # whoever names it trusts it
    return Draft.planned(request.network, arguments, datalist, plan, request.recipe).over(
        request.taken, user(request.overrides)
    )
