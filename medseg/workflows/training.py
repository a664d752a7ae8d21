"""Train: plan and write a bundle into the run folder (or take an existing one), then run it, or go on where it
stopped.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch

from medseg.bundle import copy_texts, document_bundle, dump_yaml
from medseg.bundle.compose import Workflow, changed_configs, load_workflow, merged_config
from medseg.bundle.config_check import check_ranges
from medseg.bundle.own_words import user_speaks
from medseg.bundle.parts import device as choose_device
from medseg.bundle.parts import device_component, finalize, start_distributed
from medseg.bundle.trust import remember_own
from medseg.data import Case, CaseFacts, Datalist, read_datalist
from medseg.data.fingerprint import DataFingerprint
from medseg.data.run_settings import SET
from medseg.engines import network_facts
from medseg.engines.ranks import gather, is_main, on_main, unwrap
from medseg.engines.run_facts import RunFacts, read_facts, write_facts
from medseg.errors import ConfigError, DataError, ModelError
from medseg.networks import network_target
from medseg.settings import File, Folder, takes
from medseg.workflows.checks import check_cases
from medseg.workflows.cleanup import store_rules, with_rules
from medseg.workflows.folder_lock import LOCK, only_writer
from medseg.workflows.new_bundle import PlanRequest, announce, given_nnunet, overlay_reasons, plan_bundle
from medseg.workflows.run_folder import differences, log_to, require_same_data
from medseg.workflows.run_limits import check_training, refuse_double
from medseg.workflows.stored_list import remember_list
from medseg.workflows.timing import fit_validation
from medseg.workflows.transfer import Transfer, TransferRequest

__all__ = ["TrainSettings", "train"]

logger = logging.getLogger("medseg")

_MAY_CHANGE = {"epochs", "max_minutes", "val_interval"}
_FITTED = {"iterations", "validation_cases"}  # may then differ from what a config starts with


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """What a training is told.

    Attributes:
        output: run folder.
        json_list: datalist (Decathlon JSON), or YAML that joins several.
        data_dir: base directory for relative paths in the datalist (default: its folder).
        network: name of `medseg networks`, MONAI class or dotted path. A bundle is planned for it.
        bundle: bundle folder, such as one of those in bundles/.
        fold: validation fold, or all: one run per fold (default: the validation section, else fold 0). The runs of
            all folds lie below the run folder.
        epochs: number of epochs (default: the bundle's).
        max_minutes: minutes for the whole training, instead of --epochs. They decide on the learning-rate
            schedule and the end; the last validation counts. Reading the images is never cut short, and one validation
            always takes place.
        device: cpu, cuda or cuda:N (default: a GPU where there is one).
        seed: random seed.
        overrides: config values by their ids, such as learning_rate=0.01.
        overlays: further configs of the bundle, such as gsm.
        transfer: source of the first weights: run, bundle or file. A head of other labels starts from scratch.
        reinitialize: with --transfer: further parameters from scratch, by patterns of their names such as 'decoder*'.
        partial: with --transfer: use of only the weights that fit. The others are skipped.
        new_tasks_only: with --transfer: training of tasks that the run lacks. It is one on several data sets, whose
            old tasks predict as before.
        nnunet_plans: with --network: nnUNetPlans.json of nnU-Net 2. Its spacing, patch size and normalisation are used.
        nnunet_configuration: configuration in these plans (default: 3d_fullres or 2d).
        replay: with --transfer of a run on several data sets: share of the drawn cases that are of its data sets.
        distill: with --transfer of a run on several data sets: weight of the loss that holds its answers for its tasks.
    """

    output: Folder
    json_list: File
    data_dir: Folder | None = None
    network: str | None = field(default=None, metadata={"or": "bundle"})
    bundle: Folder | None = None
    fold: int | Literal["all"] | None = None
    epochs: int | None = None
    max_minutes: float | None = None
    device: str | None = None
    seed: int = 0
    overrides: Mapping[str, Any] | None = field(default=None, metadata={"option": "set"})
    overlays: Sequence[str] = field(default=(), metadata={"option": "overlay"})
    transfer: Folder | File | None = None
    reinitialize: Sequence[str] = ()
    partial: bool = False
    new_tasks_only: bool = False
    nnunet_plans: File | None = None
    nnunet_configuration: str | None = None
    replay: float | None = None
    distill: float | None = None

    def transfer_request(self) -> TransferRequest | None:
        """What is asked of the weights that the training starts from; ``None`` from scratch.

        Raises:
            ConfigError: a source is not named, or a number is out of range.
        """
        how = (self.reinitialize, self.partial, self.new_tasks_only, self.replay, self.distill)
        if self.transfer is not None:
            return TransferRequest(Path(self.transfer).expanduser().resolve(), *how)
        if any(how[:3]) or how[3:] != (None, None):
            raise ConfigError(
                "--reinitialize, --partial, --new_tasks_only, --replay and --distill say how to go on from other "
                "weights; name their source with --transfer."
            )
        return None


@takes(TrainSettings)
@user_speaks("overrides", "network")
def train(s: TrainSettings) -> Path:
    """Train a network on a datalist; the same command again resumes.

    A finished run does nothing. Under torchrun every process makes the same call; the first one checks, plans and
    writes, the others wait.

    Returns:
        The run folder, or the folder of the runs.

    Raises:
        ConfigError: all folds of a datalist that has only one.
    """
    if s.fold == "all":
        return _train_folds(s)
    started = time.monotonic()
    network, bundle, fold, overrides = s.network, s.bundle, s.fold, dict(s.overrides or {})
    if (network is None) == (bundle is None):
        raise ConfigError("Give either a network (--network) or a bundle (--bundle).")
    refuse_double("train", overrides, epochs=s.epochs)
    check_ranges({"fold": fold, "epochs": s.epochs, "max_minutes": s.max_minutes, "seed": s.seed})
    check_ranges({key: value for key, value in overrides.items() if key != "roi_size"})  # needs the images' axes
    request = s.transfer_request()
    start = Transfer(request) if request else None
    nnunet = given_nnunet(s.nnunet_plans, s.nnunet_configuration)
    if nnunet is not None and bundle is not None:
        raise ConfigError("--nnunet_plans are for --network: a bundle has a plan of its own. Leave one out.")
    changes = dict(overrides)
    remember_own(changes)
    if network is not None:
        target = network_target(network)  # an unknown name is told before the data are read
        taken = start.network_arguments(target) if start else {}
        changes = taken | changes
        reasons = dict.fromkeys(taken, f"as in {s.transfer}")
    else:
        reasons = overlay_reasons(Path(str(bundle)), s.overlays)
    run = Path(s.output).resolve()
    start_distributed()
    _refuse_foreign(run)
    chosen = choose_device(s.device)
    datalist = read_datalist(s.json_list, s.data_dir)
    training, validation = datalist.split(fold)
    if not training:
        raise DataError(f"{datalist.path} leaves no training case for fold {fold}; choose another --fold.")
    settings = _settings(datalist, s)
    options = {name: getattr(s, name) for name in ("fold", "epochs", "max_minutes", "device")} | {
        "seed": s.seed or None
    }
    if s.max_minutes is not None:
        reasons["epochs"] = "of no account: --max_minutes decides when the training ends"
        options.pop("epochs")
    reasons |= dict.fromkeys([*overrides, *(key for key, value in options.items() if value is not None)], SET)

    def prepare() -> tuple[bool, bool]:
        """Write the bundle, or hold it against the one that is there; whether anything is left to train, and whether
        the validation is still to be fitted to the time.
        """
        log_to(run)
        facts = check_cases(training + validation, datalist, training=training, fold=fold)
        same_data = (run / "run.json").is_file() and require_same_data(run, training + validation)
        fresh = run / "configs.new"
        shutil.rmtree(fresh, ignore_errors=True)  # of a start that was killed
        if network is not None:
            asked = PlanRequest(network, chosen.type, changes, settings, nnunet)
            plan_bundle(fresh, asked, datalist, facts, len(training))
        else:
            _copy_bundle(fresh, Path(str(bundle)), datalist, facts, s.overlays, changes, settings)
        if start is not None:
            reasons.update(start.install(fresh))
        announce(fresh, f"training of {network or bundle} on {datalist.name}", reasons, datalist)
        _install(fresh, run, explicit_epochs=s.epochs is not None, same_data=same_data)
        remember_list(run, datalist)
        _require_state(run)
        if read_facts(run).status == "finished":
            logger.info("%s is finished (%d epochs); nothing to do", run, _done_epochs(run))
            return False, False
        if s.epochs is not None and s.max_minutes is not None:
            logger.warning("--max_minutes decides when the training ends, not --epochs")
        _report_start(run, chosen, training, validation, s.seed)
        return True, s.max_minutes is not None and not read_facts(run).fitted_to_time

    if not is_main():
        logger.setLevel(logging.ERROR)  # the first process speaks for all
    with only_writer(run):
        try:
            left, fit = on_main(prepare)
        finally:
            shutil.rmtree(run / "configs.new", ignore_errors=True)  # of a start that was refused
        if left:
            _run(run, s.max_minutes, started, fit)
    finalize()
    return run


def _train_folds(s: TrainSettings) -> Path:
    """Train every fold of the datalist (five made on the spot where it names none); finished folds are skipped."""
    datalist = read_datalist(s.json_list, s.data_dir)
    folds = datalist.folds() or list(range(min(5, len(datalist.sections["training"]))))
    if len(folds) < 2:
        raise ConfigError(
            f"{s.json_list} has {len(folds)} fold; --fold all needs two or more. Train with --fold {folds[0]}."
        )
    for fold in folds:
        logger.info("fold %d of %d", fold, len(folds))
        train.of(replace(s, output=Path(s.output) / f"fold{fold}", fold=fold))
    return Path(s.output).resolve()


def _run(run: Path, max_minutes: float | None, started: float, fit: bool) -> None:
    """Train what is left to train of a run whose configs are in place."""
    workflow = _workflow(run, max_minutes, started)
    parser = workflow.parser
    if max_minutes is not None and fit:
        for part in ("train::trainer", "validate::evaluator"):  # built together: wrapping the network is collective
            parser.get_parsed_content(part)
        seconds = 60 * max_minutes - (time.monotonic() - started)
        if on_main(lambda: fit_validation(workflow, run, seconds)):
            filled = {name: parser.get_parsed_content(name) for name in ("train::dataset", "validate::dataset")}
            workflow = _workflow(run, max_minutes, started, filled)
            parser = workflow.parser
    workflow.run()
    trainer, checkpoint = (parser.get_parsed_content(name) for name in ("train::trainer", "checkpoint"))
    in_channels, roi_size = parser["network_def::in_channels"], parser.get_parsed_content("roi_size")
    effort = checkpoint.effort(trainer)
    cpu = gather({str(trainer.state.rank): effort.cpu_seconds})
    effort = replace(effort, cpu_seconds=round(sum(cpu.values()), 1))
    if is_main():
        trained = RunFacts(status="finished", epochs_done=int(trainer.state.epoch), **asdict(effort))
        write_facts(run, trained | network_facts(unwrap(trainer.network), in_channels, roi_size))
        logger.info("trained: %s", effort)
    workflow.finalize()


def _workflow(run: Path, max_minutes: float | None, started: float, built: Mapping[str, Any] | None = None) -> Workflow:
    """The run's training, limited to what is left of the time."""
    left = {} if max_minutes is None else {"max_minutes": max(1e-9, max_minutes - (time.monotonic() - started) / 60)}
    return load_workflow(run, "train", left, built=built)


_OWN = {"log.txt", "configs.new", LOCK}  # what a start that failed its checks leaves behind


def _refuse_foreign(run: Path) -> None:
    """A folder with other content is no place for a run: nothing is overwritten."""
    if run.is_file():
        raise ConfigError(f"{run} is a file; --output needs a folder of its own. Name another.")
    if not run.is_dir() or (run / "configs" / "train.yaml").is_file():
        return
    found = sorted(item.name for item in run.iterdir() if item.name not in _OWN)
    if found:
        raise ConfigError(
            f"{run} is not empty ({', '.join(found[:3])}{', …' if len(found) > 3 else ''}) and holds no run; "
            "use another --output folder, or empty it."
        )


def _settings(datalist: Datalist, s: TrainSettings) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "dataset_dir": str(datalist.data_dir.resolve()),
        "fold": s.fold,
        "seed": s.seed,
        "max_minutes": s.max_minutes,
    }
    if s.epochs is not None:
        settings["epochs"] = s.epochs
    if s.device is not None:
        settings["device"] = device_component(s.device)
    return settings


def _copy_bundle(
    fresh: Path,
    bundle: Path,
    datalist: Datalist,
    facts: Sequence[CaseFacts],
    overlays: Sequence[str],
    overrides: dict[str, Any],
    settings: dict[str, Any],
) -> None:
    configs = changed_configs(bundle, overlays, overrides)
    check_training(configs["train"], facts, datalist)
    copy_texts(bundle, fresh)
    own = {"bundle_root": ".", "json_list": "$@bundle_root + '/configs/datalist.json'"}
    given = {key: value for key, value in settings.items() if (value is not None or key == "fold")} | own
    configs |= {"inference": with_rules(configs["inference"], {})} if "inference" in configs else {}  # of other weights
    for name, config in configs.items():
        if name == "train":
            config["output_dir"] = "$@bundle_root"  # the run folder is the bundle
            config.setdefault("max_minutes", None)
        keys = given if name == "train" else ("dataset_dir", *own)
        config |= {key: given[key] for key in keys if key in config and (key in own or key not in overrides)}
        dump_yaml(config, fresh / "configs" / f"{name}.yaml", f"From the bundle {bundle.name}.")
    datalist.copy_to(fresh / "configs" / "datalist.json")


def _install(fresh: Path, run: Path, *, explicit_epochs: bool, same_data: bool) -> None:
    """Make the new bundle the run's, or hold it against the one that is there.

    ``same_data``: the images and labels are those that the run was started with, so that they may lie elsewhere now.
    """
    target = run / "configs"
    if not target.exists():
        for item in fresh.iterdir():
            shutil.move(str(item), str(run / item.name))
        shutil.rmtree(fresh)
        write_facts(run, RunFacts(status="started", started=time.strftime("%Y-%m-%dT%H:%M:%S%z")))
        return
    old, new = merged_config([target / "train.yaml"]), merged_config([fresh / "configs" / "train.yaml"])
    lists = [(folder / "configs" / "datalist.json").read_bytes() for folder in (run, fresh)]
    shutil.rmtree(fresh)
    free = _MAY_CHANGE | (_FITTED if read_facts(run).fitted_to_time else set())
    free |= {"dataset_dir"} if same_data else set()
    changed = {key: pair for key, pair in differences(old, new).items() if key not in free}
    if lists[0] != lists[1]:
        changed["datalist"] = ("as stored", "another content")
    if changed:
        shown = "; ".join(f"{key}: {before!r} -> {after!r}" for key, (before, after) in list(changed.items())[:5])
        raise ConfigError(
            f"{run} holds a run with other settings ({shown}). Use another --output folder, or the settings of "
            f"that run."
        )
    if new["dataset_dir"] != old["dataset_dir"]:
        _move_data(target, new["dataset_dir"])
        old["dataset_dir"] = new["dataset_dir"]
    if new.get("max_minutes") != old.get("max_minutes"):
        old["max_minutes"] = new.get("max_minutes")
        dump_yaml(old, target / "train.yaml", "With another time limit.")
    if explicit_epochs and old.get("max_minutes") is None and new["epochs"] != old["epochs"]:
        if new["epochs"] < old["epochs"]:
            raise ConfigError(
                f"{run} was started with {old['epochs']} epochs; {new['epochs']} are fewer. Use another "
                f"--output folder."
            )
        old["epochs"] = new["epochs"]
        dump_yaml(old, target / "train.yaml", "Extended to more epochs.")
        document_bundle(run, {"epochs": SET})
        if (target / "inference.yaml").is_file():
            store_rules(run, {})  # they were chosen on the predictions of other weights
        write_facts(run, RunFacts(status="started"))
        logger.warning(
            "going on to %d epochs: the learning-rate schedule is stretched to the new length, so it jumps up "
            "from where it was",
            new["epochs"],
        )


def _move_data(configs: Path, folder: str) -> None:
    """Write where the data are now into a run's configs."""
    for path in (configs / "inference.yaml", configs / "train.yaml"):  # the last one is what the next start reads
        if path.is_file():
            dump_yaml(merged_config([path]) | {"dataset_dir": folder}, path, "Its data were moved.")
    logger.info("the data lie in %s now; images and labels are the same", folder)


def _require_state(run: Path) -> None:
    """Refuse to start a run again from scratch over what it has learned.

    Raises:
        ModelError: it was trained, and no state of it is left.
    """
    if _done_epochs(run) and not any((run / "checkpoints").glob("*.pt")):
        raise ModelError(
            f"{run} was trained for {_done_epochs(run)} epochs, but checkpoints/ holds no state to resume from; "
            "restore it, or train into another --output folder."
        )


def _done_epochs(run: Path) -> int:
    return read_facts(run).epochs_done or 0


def _report_start(run: Path, device: torch.device, training: list[Case], validation: list[Case], seed: int) -> None:
    if not training:
        raise DataError("There is no training case after the split.")
    logger.info(
        "%d training and %d validation cases, device %s, run folder %s", len(training), len(validation), device, run
    )
    facts = RunFacts(
        device=str(device),
        seed=seed,
        data=DataFingerprint.of(training + validation),
        training_cases=tuple(case.id for case in training),
        validation_cases=tuple(case.id for case in validation),
    )
    write_facts(run, facts)
