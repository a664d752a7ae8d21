"""Plan and write a bundle for (network, datalist) without training it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medseg.bundle import document_bundle, plan_for_network, write_bundle
from medseg.bundle.plan_layer import is_universal, universal_plan
from medseg.data import CaseFacts, Datalist, read_datalist
from medseg.data.nnunet_plans import NnunetPlans, read_nnunet_plans
from medseg.data.run_settings import SET, Setting
from medseg.errors import ConfigError
from medseg.networks import network_target
from medseg.storage import read_yaml
from medseg.workflows.checks import check_cases, check_window
from medseg.workflows.compose import changed_configs, config_files
from medseg.workflows.config_check import check_ranges
from medseg.workflows.own_words import user_speaks
from medseg.workflows.parts import device as choose_device
from medseg.workflows.run_limits import check_arguments, check_training, refuse_double
from medseg.workflows.trust import remember_own

__all__ = ["announce", "given_nnunet", "new_bundle", "overlay_reasons", "plan_bundle"]

logger = logging.getLogger("medseg")


@user_speaks("overrides")
def new_bundle(
    *,
    network: str,
    json_list: str | Path,
    output: str | Path,
    data_dir: str | Path | None = None,
    fold: int | None = None,
    device: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    nnunet_plans: str | Path | None = None,
    nnunet_configuration: str | None = None,
) -> list[Setting]:
    """Read and check the cases of a datalist, plan for a network and a device, and write the bundle to ``output``.

    Args:
        network: registered name, MONAI class or dotted path.
        json_list, data_dir: the datalist and what its paths are relative to.
        output: the bundle's folder; it must not hold a bundle.
        fold: validation fold; ``None`` uses the datalist's validation section, else fold 0.
        device: where it will train: a GPU gets published sizes, a CPU light ones; default as ``train`` chooses.
        overrides: config id -> value.
        nnunet_plans: nnU-Net's plans file, whose spacing, patch size and normalisation are taken over.
        nnunet_configuration: of the plans; default ``3d_fullres``, of 2D images ``2d``.

    Returns:
        The settings of the written ``train.yaml``.

    Raises:
        ConfigError: the folder holds a bundle, the network does not fit, or an override is refused.
        DataError: the datalist or a case cannot be used.
    """
    root = Path(output).resolve()
    if (root / "configs").exists():
        raise ConfigError(f"{root} holds a bundle already; name another --output folder.")
    network_target(network)  # an unknown name is told before the data are read
    remember_own(overrides or {})
    nnunet = given_nnunet(nnunet_plans, nnunet_configuration)
    refuse_double("train", overrides or {})
    given = {key: value for key, value in (overrides or {}).items() if key != "roi_size"}  # that needs the images' axes
    check_ranges({"fold": fold, **given})
    datalist = read_datalist(json_list, data_dir)
    training, validation = datalist.split(fold)
    facts = check_cases(training + validation, datalist, training=training, fold=fold)
    chosen = (device or str(choose_device())).partition(":")[0]  # a plan for a GPU needs none
    if chosen not in ("cpu", "cuda"):
        raise ConfigError(f"--device {device}: expected cpu or cuda.")
    changes = dict(overrides or {})
    plan_bundle(root, network, datalist, facts, len(training), chosen, changes, {"fold": fold}, nnunet)
    given = dict.fromkeys([*changes, *(["fold"] if fold is not None else [])], SET)
    return announce(root, f"plan for {network} on {datalist.name}", given, datalist)


def announce(bundle: Path, title: str, reasons: Mapping[str, str], datalist: Datalist) -> list[Setting]:
    """Document a bundle whose configs are final, and log its settings.

    Args:
        bundle: its folder.
        title: first line of the log.
        reasons: config id -> why it is so, besides the plan's.
        datalist: that it is for.
    """
    settings = document_bundle(bundle, reasons, datalist.channels)
    logger.info("%s:", title)
    for setting in settings:
        logger.info("  %s", setting.line())
    return settings


def given_nnunet(plans: str | Path | None, configuration: str | None) -> NnunetPlans | None:
    """The plans of nnU-Net that a user names.

    Raises:
        ConfigError: a configuration without plans, or plans that cannot be used.
    """
    if plans is None and configuration is not None:
        raise ConfigError("--nnunet_configuration chooses from a plans file; name that with --nnunet_plans.")
    return None if plans is None else read_nnunet_plans(plans, configuration)


def overlay_reasons(bundle: Path, overlays: Sequence[str]) -> dict[str, str]:
    """Config id -> the overlay that sets it."""
    files = config_files(bundle, "train", overlays)[1:]
    contents = [read_yaml(file) for file in files]
    return {
        key.lstrip("+"): f"overlay {file.stem}"
        for file, content in zip(files, contents, strict=True)
        for key in content
    }


def plan_bundle(
    directory: Path,
    network: str,
    datalist: Datalist,
    facts: Sequence[CaseFacts],
    num_training: int,
    device_type: str,
    overrides: Mapping[str, Any],
    settings: Mapping[str, Any],
    nnunet: NnunetPlans | None = None,
) -> None:
    """Plan for checked cases and write the bundle, with the overrides in both its configs."""
    if is_universal(network, datalist):
        if nnunet is not None:
            raise ConfigError("--nnunet_plans are of one data set, the datalist joins several; leave them out.")
        overrides = universal_plan(datalist) | dict(overrides)
    check_arguments(overrides, facts)
    window = overrides.get("roi_size") or (nnunet.choices(facts).patch_size if nnunet is not None else None)
    if window is not None:
        check_window(window, facts, overrides.get("batch_size", 2))
    plan, arguments = plan_for_network(network, datalist, facts, num_training, device_type, overrides, nnunet)
    remember_own({"network_def::_target_": network_target(network)})  # whoever names it trusts it
    write_bundle(directory, network, arguments, datalist, plan, settings)
    check_training(changed_configs(directory, (), overrides)["train"], facts, datalist)
    if overrides:
        write_bundle(directory, network, arguments, datalist, plan, settings, overrides)
