"""Train: plan and write a bundle into the run folder (or take an existing one), then run it, or go on where it
stopped.
"""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch

from medseg.bundle import dump_yaml
from medseg.bundle.build import Section
from medseg.bundle.compose import Workflow, command, load_workflow, user
from medseg.bundle.config_check import check_ranges
from medseg.bundle.document import rewrite_training
from medseg.bundle.draft import Draft
from medseg.bundle.folder import Bundle
from medseg.bundle.parts import device as choose_device
from medseg.bundle.parts import device_component, finalize, inside_of, start_distributed
from medseg.bundle.recipe import Layer, leaves
from medseg.bundle.trust import remember_own
from medseg.data import Case, CaseFacts, Datalist, read_datalist
from medseg.data.fingerprint import DataFingerprint
from medseg.data.run_settings import SET, shown
from medseg.engines import network_facts
from medseg.engines.ranks import gather, is_main, on_main, unwrap
from medseg.engines.run_facts import RunFacts, read_facts, write_facts
from medseg.errors import ConfigError, DataError, ModelError
from medseg.networks import network_target
from medseg.settings import File, Folder, takes
from medseg.shipped import find_bundle
from medseg.workflows.checks import check_cases
from medseg.workflows.cleanup import store_rules, with_rules
from medseg.workflows.folder_lock import LOCK, only_writer
from medseg.workflows.new_bundle import PlanRequest, announce, given_nnunet, planned_draft
from medseg.workflows.run_folder import differences, log_to, require_same_data
from medseg.workflows.run_limits import check_training, refuse_double
from medseg.workflows.stored_list import remember_list
from medseg.workflows.timing import fit_validation
from medseg.workflows.transfer import Transfer, TransferRequest

__all__ = ["TrainSettings", "train"]

logger = logging.getLogger("medseg")

_MAY_CHANGE = {"epochs", "max_minutes", "val_interval"}
_FRESH = "configs.new"  # in a run: the bundle until all of it is written
_FITTED = {"iterations", "validation_cases"}  # may then differ from what a config starts with


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """What a training is told.

    Attributes:
        output: run folder.
        json_list: datalist (Decathlon JSON), or YAML that joins several.
        data_dir: base directory for relative paths (default: the list's).
        network: name of `medseg networks`, MONAI class or dotted path. A bundle is planned for it.
        bundle: bundle folder, or name of one of medseg's own.
        fold: validation fold, or all: one run per fold (default: the validation section, else fold 0). The runs of
            all folds lie below the run folder.
        epochs: number of epochs (default: the bundle's).
        max_minutes: minutes of the training, instead of --epochs. They decide on the learning-rate
            schedule and the end; the last validation counts. Reading the images is never cut short, and one validation
            always takes place.
        device: cpu, cuda or cuda:N (default: a GPU where there is one).
        seed: random seed.
        overrides: config values by id, such as learning_rate=0.01.
        overlays: further configs of a bundle, such as gsm.
        transfer: source of the first weights: run, bundle or file. A head of other labels starts from scratch.
        reinitialize: with --transfer: further parameters from scratch, by patterns of their names such as 'decoder*'.
        partial: with --transfer: use of only the weights that fit. The others are skipped.
        new_tasks_only: with --transfer: training of tasks that the run lacks. It is one on several data sets, whose
            old tasks predict as before.
        nnunet_plans: with --network: nnUNetPlans.json of nnU-Net 2. Its spacing, patch size and normalisation are used.
        nnunet_configuration: one of these plans (default: 3d_fullres or 2d).
        replay: with --transfer of a run on several data sets: share of the drawn cases that are of its data sets.
        distill: with --transfer of a run on several data sets: weight of the loss that holds its answers for its tasks.
        dry_run: plan with each value's origin, without training.
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
    dry_run: bool = False

    def transfer_request(self) -> TransferRequest | None:
        """What is asked of the weights that the training starts from; ``None`` from scratch.

        Raises:
            ConfigError: a source is not named, or a number is out of range.
        """
        how = (self.reinitialize, self.partial, self.new_tasks_only, self.replay, self.distill)
        if self.transfer is not None:
            return TransferRequest(find_bundle(Path(self.transfer).expanduser()).resolve(), *how)
        if any(how[:3]) or how[3:] != (None, None):
            raise ConfigError(
                "--reinitialize, --partial, --new_tasks_only, --replay and --distill say how to go on from other "
                "weights; name their source with --transfer."
            )
        return None


@takes(TrainSettings)
def train(settings: TrainSettings) -> Path:
    """Train a network on a datalist; the same command again resumes.

    A finished run does nothing. Under torchrun every process makes the same call; the first one checks, plans and
    writes, the others wait.

    Returns:
        The run folder, or the folder of the runs.

    Raises:
        ConfigError: all folds of a datalist that has only one.

    Examples:
        >>> medseg.train(
        ...     network="UNet",
        ...     json_list="phantom/dataset.json",
        ...     output="runs/first",
        ...     epochs=1,
        ...     device="cpu",
        ...     overrides={"roi_size": [32, 32, 16], "repeats": 1},
        ... ).name
        'first'
    """
    if settings.fold == "all":
        return _train_folds(settings)
    started = time.monotonic()
    _refuse_settings(settings)
    run = Path(settings.output).resolve()
    start_distributed()
    _refuse_foreign(run)
    remember_own(settings.overrides or {})
    chosen, datalist = choose_device(settings.device), read_datalist(settings.json_list, settings.data_dir)
    if not is_main():
        logger.setLevel(logging.ERROR)  # the first process speaks for all
    if settings.dry_run:
        on_main(lambda: _show(_Start.of(settings, datalist, chosen), run))
        finalize()
        return run
    with only_writer(run):
        try:
            left, fit = on_main(lambda: _prepare(settings, datalist, chosen, run))
        finally:
            shutil.rmtree(run / _FRESH, ignore_errors=True)  # of a start that was refused
        if left:
            _run(run, settings.max_minutes, started, fit)
    finalize()
    return run


def _refuse_settings(settings: TrainSettings) -> None:
    """What can be told before any data are read.

    Raises:
        ConfigError: settings that contradict each other or are out of range, or an unknown network.
    """
    if (settings.network is None) == (settings.bundle is None):
        raise ConfigError("Give either a network (--network) or a bundle (--bundle).")
    overrides = settings.overrides or {}
    refuse_double("train", overrides, epochs=settings.epochs)
    check_ranges(
        {"fold": settings.fold, "epochs": settings.epochs, "max_minutes": settings.max_minutes, "seed": settings.seed}
    )
    check_ranges({key: value for key, value in overrides.items() if key != "roi_size"})  # needs the images' axes
    settings.transfer_request()
    if given_nnunet(settings.nnunet_plans, settings.nnunet_configuration) is not None and settings.bundle is not None:
        raise ConfigError("--nnunet_plans are for --network: a bundle has a plan of its own. Leave one out.")
    if settings.network is not None:
        network_target(settings.network)


def _train_folds(settings: TrainSettings) -> Path:
    """Train every fold of the datalist (five made on the spot where it names none); finished folds are skipped."""
    datalist = read_datalist(settings.json_list, settings.data_dir)
    folds = datalist.folds() or list(range(min(5, len(datalist.sections["training"]))))
    if len(folds) < 2:
        raise ConfigError(
            f"{settings.json_list} has {len(folds)} fold; --fold all needs two or more. Train with --fold {folds[0]}."
        )
    for fold in folds:
        logger.info("fold %d of %d", fold, len(folds))
        train.of(replace(settings, output=Path(settings.output) / f"fold{fold}", fold=fold))
    return Path(settings.output).resolve()


@dataclass(frozen=True)
class _Start:
    """What a training starts with, decided before anything is written.

    Attributes:
        settings: as they were given.
        datalist: the cases' list.
        training, validation: its cases after the split.
        facts: of all of them, checked.
        transfer: source of weights.
        draft: the bundle that the run will be.
        device: on which it runs.
    """

    settings: TrainSettings
    datalist: Datalist
    training: list[Case]
    validation: list[Case]
    facts: Sequence[CaseFacts]
    transfer: Transfer | None
    draft: Draft
    device: torch.device

    @classmethod
    def of(cls, settings: TrainSettings, datalist: Datalist, chosen: torch.device) -> _Start:
        """Read and check the cases, then plan a bundle, or take the one that is named.

        Raises:
            ConfigError, DataError, ModelError: what is given does not fit together.
        """
        request = settings.transfer_request()
        transfer = Transfer(request) if request else None
        fold = None if settings.fold == "all" else settings.fold
        training, validation = datalist.split(fold)
        if not training:
            raise DataError(f"{datalist.path} leaves no training case for fold {fold}; choose another --fold.")
        facts = check_cases(training + validation, datalist, training=training, fold=fold)
        if settings.network is not None:
            taken = transfer.network_arguments(network_target(settings.network)) if transfer else {}
            layer = Layer(taken, "plan", reasons=dict.fromkeys(taken, f"as in {settings.transfer}"))
            nnunet = given_nnunet(settings.nnunet_plans, settings.nnunet_configuration)
            asked = PlanRequest(settings.network, chosen.type, dict(settings.overrides or {}), nnunet, layer)
            draft = planned_draft(asked, datalist, facts, len(training))
        else:
            bundle = Bundle(str(settings.bundle))
            draft = _own_places(Draft.copied(bundle, settings.overlays, datalist)).over(user(settings.overrides))
        draft = draft.over(*_options(settings, datalist, draft))
        check_training(draft.train.tree, facts, datalist)
        draft.check()
        return cls(settings, datalist, training, validation, facts, transfer, draft, chosen)


def _options(settings: TrainSettings, datalist: Datalist, draft: Draft) -> list[Layer]:
    """What the command's options say of a config; overrides of the user stay."""
    given = {
        "fold": settings.fold,
        "max_minutes": settings.max_minutes,
        "epochs": settings.epochs,
        "seed": settings.seed or None,
    }
    if settings.device is not None:
        given["device"] = device_component(settings.device)  # type: ignore[assignment]
    always: dict[str, Any] = {"dataset_dir": str(datalist.data_dir.resolve()), "fold": settings.fold}
    always |= {"seed": settings.seed} if settings.network is not None else {}
    chosen = {key: value for key, value in given.items() if value is not None}
    layers = [command({k: v for k, v in always.items() if k in draft.train.tree and k not in chosen})]
    layers.append(command({k: v for k, v in chosen.items() if k in draft.train.tree}, SET))
    if settings.max_minutes is not None and "epochs" in draft.train.tree:
        epochs = settings.epochs or draft.train.tree["epochs"]
        layers.append(command({"epochs": epochs}, "of no account: --max_minutes decides when the training ends"))
    return layers


def _own_places(draft: Draft) -> Draft:
    """A bundle that is copied into a run: the run's folder is the bundle, its datalist lies in it, and rules that were
    chosen for other weights go.
    """
    own = {"bundle_root": ".", "json_list": inside_of("bundle_root", "configs/datalist.json")}
    train: dict[str, Any] = {**own, "output_dir": "@bundle_root", "max_minutes": None}
    recipe = draft.recipe.with_section(Section("train", command(train)))
    if "inference" in recipe.files:
        tree = recipe.config("inference").tree
        cleaned = with_rules(tree, {})
        changes = {key: value for key, value in cleaned.items() if value != tree[key]}
        changes |= {f"~{key}": None for key in tree if key not in cleaned}
        recipe = recipe.with_section(Section("inference", command(own | changes)))
    return replace(draft, recipe=recipe)


def _show(start: _Start, run: Path) -> None:
    """Log what a training would do."""
    s, draft = start.settings, start.draft
    with tempfile.TemporaryDirectory() as scratch:
        if start.transfer is not None:
            draft = draft.over(start.transfer.install(draft.train.tree, start.datalist, Path(scratch) / "initial.pt"))
    if (run / "configs" / "train.yaml").is_file():
        same_data = (run / "run.json").is_file() and require_same_data(run, start.training + start.validation)
        _hold_against(draft, run, explicit_epochs=s.epochs is not None, same_data=same_data, write=False)
    announce(draft, f"training of {s.network or s.bundle} on {start.datalist.name}")
    for id_, value in leaves(draft.train.tree):
        logger.info("  %-48s %-40s %s", id_, shown(value) or "null", draft.train.origin(id_))
    logger.info(
        "nothing was written to %s; %d training and %d validation cases, device %s",
        run, len(start.training), len(start.validation), start.device,
    )  # fmt: skip


def _prepare(settings: TrainSettings, datalist: Datalist, chosen: torch.device, run: Path) -> tuple[bool, bool]:
    """Write the run's bundle, or hold it against the one that is there; whether anything is left to train, and whether
    the validation is still to be fitted to the time.
    """
    log_to(run)
    start = _Start.of(settings, datalist, chosen)
    cases = start.training + start.validation
    same_data = (run / "run.json").is_file() and require_same_data(run, cases)
    fresh = run / _FRESH
    shutil.rmtree(fresh, ignore_errors=True)  # of a start that was killed
    draft = start.draft
    if start.transfer is not None:
        changes = start.transfer.install(draft.train.tree, start.datalist, fresh / "models" / "initial.pt")
        draft = draft.over(changes)
    announce(draft, f"training of {settings.network or settings.bundle} on {start.datalist.name}")
    if (run / "configs").exists():
        _hold_against(draft, run, explicit_epochs=settings.epochs is not None, same_data=same_data)
    else:
        draft.write(fresh)
        for item in fresh.iterdir():
            shutil.move(str(item), str(run / item.name))
        write_facts(run, RunFacts(status="started", started=time.strftime("%Y-%m-%dT%H:%M:%S%z")))
    remember_list(run, start.datalist)
    _require_state(run)
    facts = read_facts(run)
    if facts.status == "finished":
        logger.info("%s is finished (%d epochs); nothing to do", run, _done_epochs(run))
        return False, False
    if settings.epochs is not None and settings.max_minutes is not None:
        logger.warning("--max_minutes decides when the training ends, not --epochs")
    _report_start(run, start)
    return True, settings.max_minutes is not None and not facts.fitted_to_time


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


_OWN = {"log.txt", _FRESH, LOCK}  # what a start that failed its checks leaves behind


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


def _hold_against(draft: Draft, run: Path, *, explicit_epochs: bool, same_data: bool, write: bool = True) -> None:
    """Hold a bundle against that of the run that is there, and take over what may change.

    Args:
        draft: the bundle.
        run: the run folder.
        explicit_epochs: the number of epochs was given.
        same_data: images and labels are those that the run was started with, so that they may lie elsewhere now.
        write: take it over; otherwise only refuse what may not change.

    Raises:
        ConfigError: another setting or datalist.
    """
    bundle = Bundle(run)
    old, new = (json.loads(json.dumps(tree)) for tree in (bundle.recipe("train").tree, draft.train.tree))
    free = _MAY_CHANGE | (_FITTED if read_facts(run).fitted_to_time else set())
    free |= {"dataset_dir"} if same_data else set()
    changed = {key: pair for key, pair in differences(old, new).items() if key not in free}
    if (run / "configs" / "datalist.json").read_bytes() != draft.datalist.as_stored():
        changed["datalist"] = ("as stored", "another content")
    if changed:
        shown = "; ".join(f"{key}: {before!r} -> {after!r}" for key, (before, after) in list(changed.items())[:5])
        raise ConfigError(
            f"{run} holds a run with other settings ({shown}). Use another --output folder, or the settings of "
            f"that run."
        )
    update = {key: new[key] for key in ("dataset_dir", "max_minutes") if new.get(key) != old.get(key)}
    longer = explicit_epochs and new.get("max_minutes") is None and new["epochs"] != old["epochs"]
    if longer:
        if new["epochs"] < old["epochs"]:
            raise ConfigError(
                f"{run} was started with {old['epochs']} epochs; {new['epochs']} are fewer. Use another "
                f"--output folder."
            )
        update["epochs"] = new["epochs"]
    if not write:
        return
    if "dataset_dir" in update:
        _move_data(bundle, new["dataset_dir"])
    if update:
        rewrite_training(run, command(update, SET))
    if longer:
        if bundle.has("inference"):
            store_rules(Bundle(run), {})  # they were chosen on the predictions of other weights
        write_facts(run, RunFacts(status="started"))
        logger.warning(
            "resuming to %d epochs: the learning-rate schedule is stretched to the new length, so it jumps up "
            "from where it was",
            new["epochs"],
        )


def _move_data(bundle: Bundle, folder: str) -> None:
    """Write where the data are now into a run's ``inference.yaml``."""
    if bundle.has("inference"):
        dump_yaml(bundle.recipe("infer").tree | {"dataset_dir": folder}, bundle.config("inference"), "Its data moved.")
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


def _report_start(run: Path, start: _Start) -> None:
    cases = start.training + start.validation
    logger.info(
        "%d training and %d validation cases, device %s, run folder %s",
        len(start.training), len(start.validation), start.device, run,
    )  # fmt: skip
    facts = RunFacts(
        device=str(start.device),
        seed=start.settings.seed,
        data=DataFingerprint.of(cases),
        training_cases=tuple(case.id for case in start.training),
        validation_cases=tuple(case.id for case in start.validation),
    )
    write_facts(run, facts)
