"""What `medseg check` does: a datalist or a bundle is read once, and all problems are listed with their remedies."""

from __future__ import annotations

from dataclasses import dataclass, field

from medseg.bundle.plan_layer import plan_recipe
from medseg.bundle.verify import verify_bundle
from medseg.data import PlanSettings, make_plan, read_datalist
from medseg.data.consistency import check_folds
from medseg.data.run_settings import reasons_in, settings_of
from medseg.errors import ConfigError, ModelError
from medseg.networks import network_target
from medseg.settings import File, Folder, takes
from medseg.workflows.checks import check_cases, problem_table

__all__ = ["CheckSettings", "check"]


@dataclass(frozen=True, kw_only=True)
class CheckSettings:
    """What is checked.

    Attributes:
        json_list: datalist.
        bundle: run or bundle (folder, or name of one of medseg's own): files, metadata, configs, network, TorchScript.
        data_dir: base directory for relative paths in the datalist (default: its folder).
        fold: fold whose training cases have to hold each label (default: those of all folds).
        strict: treat warnings as errors.
    """

    json_list: File | None = field(default=None, metadata={"or": "bundle"})
    bundle: Folder | None = None
    data_dir: Folder | None = None
    fold: int | None = None
    strict: bool = False


@takes(CheckSettings)
def check(settings: CheckSettings) -> list[str]:
    """Check a datalist (every case is read once) or a bundle, and list all problems with their remedies.

    Returns:
        Lines about what is sound, with a plan for this machine's CPU, or the warnings.

    Raises:
        ConfigError: neither or both are named.
        DataError, ModelError: with the table of all problems.
    """
    if (settings.json_list is None) == (settings.bundle is None):
        raise ConfigError("Give either a datalist (--json_list) or a bundle (--bundle).")
    return (
        _check_datalist(settings.json_list, settings)
        if settings.json_list is not None
        else _check_bundle(str(settings.bundle), strict=settings.strict)
    )


def _check_datalist(json_list: File, settings: CheckSettings) -> list[str]:
    datalist = read_datalist(json_list, settings.data_dir)
    cases = [case for section in datalist.sections.values() for case in section]
    training = datalist.sections["training"] if settings.fold is None else datalist.split(settings.fold)[0]
    folds = list(check_folds(datalist))
    facts = check_cases(
        cases, datalist, training=training, fold=settings.fold, strict=settings.strict, rows=None, more=folds
    )
    plan = make_plan(datalist, facts, PlanSettings(num_training=len(datalist.split(settings.fold)[0])))
    network = {"_target_": network_target("SegResNet")}  # any: networks are not planned here
    train = plan_recipe(network, datalist, plan).config("train")
    planned = settings_of(train.tree, reasons_in(train.reasons))
    shown = [setting for setting in planned if setting.reason and not setting.id.startswith("network_def")]
    return [f"{len(facts)} cases are sound. A plan for this machine's CPU:", *(setting.line() for setting in shown)]


def _check_bundle(bundle: str, *, strict: bool) -> list[str]:
    problems = verify_bundle(bundle)
    errors = [problem for problem in problems if strict or not problem.warning]
    if errors:
        raise ModelError(f"{bundle} is not a sound bundle:\n{problem_table(errors)}")
    return [*([problem_table(problems)] if problems else []), f"{bundle} is a sound bundle."]
