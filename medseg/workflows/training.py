"""Train: plan and write a bundle into the run folder (or take an existing one), then run it, or resume where it
stopped.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from medseg.bundle.compose import Workflow, load_workflow
from medseg.bundle.document import training_settings
from medseg.bundle.folder import Bundle
from medseg.bundle.parts import device as choose_device
from medseg.bundle.parts import finalize, start_distributed
from medseg.bundle.recipe import leaves
from medseg.bundle.trust import remember_own
from medseg.data import read_datalist
from medseg.data.run_settings import shown
from medseg.engines import network_facts
from medseg.engines.memory import PeakMemory
from medseg.engines.ranks import gather, is_main, on_main, unwrap
from medseg.engines.run_facts import RunFacts, read_facts, write_facts
from medseg.errors import ConfigError
from medseg.settings import takes
from medseg.workflows.folder_lock import only_writer
from medseg.workflows.new_bundle import announce
from medseg.workflows.run_folder import require_same_data
from medseg.workflows.start import Start
from medseg.workflows.start_in_run import changed_training, hold_against, prepare_run, refuse_foreign
from medseg.workflows.timing import fit_validation
from medseg.workflows.train_settings import TrainSettings

__all__ = ["train"]

logger = logging.getLogger("medseg")


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
    return _train_folds(settings) if settings.fold == "all" else _train(settings)


def _train(settings: TrainSettings, gpu_bytes: int | None = None) -> Path:
    """Train one run, planned for the memory of a GPU that it was planned for before, else for the given one, else for
    what is free now.
    """
    started = time.monotonic()
    settings.check()
    run = Path(settings.output).resolve()
    start_distributed()
    refuse_foreign(run)
    remember_own(settings.overrides or {})
    device, datalist = choose_device(settings.device), read_datalist(settings.json_list, settings.data_dir)
    if not is_main():
        logger.setLevel(logging.ERROR)  # the first process speaks for all
    gpu_bytes = read_facts(run).gpu_bytes or gpu_bytes

    def start() -> Start:
        return Start.of(settings, datalist, device, gpu_bytes)

    if settings.dry_run:
        on_main(lambda: _show(start(), run))
        finalize()
        return run
    with only_writer(run):
        facts = on_main(lambda: prepare_run(start, run))
        if facts.status != "finished":
            _run(run, Bundle(run).trained.get("max_minutes", settings.max_minutes), started, facts)
    finalize()
    return run


def _train_folds(settings: TrainSettings) -> Path:
    """Train every fold of the datalist (five made on the spot where it names none); finished folds are skipped."""
    datalist = read_datalist(settings.json_list, settings.data_dir)
    folds = datalist.all_folds()
    if len(folds) < 2:
        raise ConfigError(
            f"{settings.json_list} has {len(folds)} fold; --fold all needs two or more. Train with --fold {folds[0]}."
        )
    runs = {fold: Path(settings.output) / f"fold{fold}" for fold in folds}
    for fold, run in runs.items():
        logger.info("fold %d of %d", fold, len(folds))
        planned_for = (read_facts(one).gpu_bytes for one in runs.values())  # all are planned alike
        _train(replace(settings, output=run, fold=fold), next(filter(None, planned_for), None))
    return Path(settings.output).resolve()


def _show(start: Start, run: Path) -> None:
    """Log what a training would do."""
    train = start.draft.train
    if (run / "configs" / "train.yaml").is_file():
        known, bundle = read_facts(run), Bundle(run)
        same_data = known != RunFacts() and require_same_data(run, known, start.cases)
        train = changed_training(bundle, hold_against(start, bundle, known, same_data=same_data))
    announce(training_settings(train), start.title, start.draft.mirrored)
    for id_, value in leaves(train.tree):
        logger.info("  %-48s %-40s %s", id_, shown(value) or "null", train.origin(id_))
    logger.info(
        "nothing was written to %s; %d training and %d validation cases, device %s",
        run, len(start.training), len(start.validation), start.device,
    )  # fmt: skip


def _run(run: Path, max_minutes: float | None, started: float, facts: RunFacts) -> None:
    """Train what is left to train of a run whose configs are in place, and add to its facts."""
    workflow = _workflow(run, max_minutes, started)
    parser, memory = workflow.parser, PeakMemory(workflow.parser.get_parsed_content("device"))
    if max_minutes is not None and not facts.fitted_to_time:
        for part in ("train::trainer", "validate::evaluator"):  # built together: wrapping the network is collective
            parser.get_parsed_content(part)
        seconds = 60 * max_minutes - (time.monotonic() - started)
        facts, fitted = on_main(lambda: fit_validation(workflow, run, seconds, facts))
        if fitted:
            filled = {name: parser.get_parsed_content(name) for name in ("train::dataset", "validate::dataset")}
            workflow = _workflow(run, max_minutes, started, filled)
            parser = workflow.parser
    workflow.run()
    trainer, checkpoint = (parser.get_parsed_content(name) for name in ("train::trainer", "checkpoint"))
    in_channels, roi_size = parser["network_def::in_channels"], parser.get_parsed_content("roi_size")
    effort = checkpoint.effort(trainer)
    own = {"cpu": effort.cpu_seconds, "peak": memory.read() or 0}
    ranks = gather({str(trainer.state.rank): own}).values()
    effort = replace(effort, cpu_seconds=round(sum(rank["cpu"] for rank in ranks), 1))
    peak = max([facts.training_peak_bytes or 0, *(rank["peak"] for rank in ranks)]) or None
    if is_main():
        trained = RunFacts(status="finished", epochs_done=int(trainer.state.epoch), **asdict(effort))
        trained = replace(trained, training_peak_bytes=peak, processes=len(ranks))
        trained = replace(trained, patch_by_patch=trainer.patch_by_patch or None)
        write_facts(run, trained | network_facts(unwrap(trainer.network), in_channels, roi_size), facts)
        logger.info("trained: %s", effort)
    workflow.finalize()


def _workflow(run: Path, max_minutes: float | None, started: float, built: Mapping[str, Any] | None = None) -> Workflow:
    """The run's training, limited to what is left of the time; the CPU's clock begins with the training."""
    if max_minutes is None or Bundle(run).trained.get("clock") == "cpu":
        return load_workflow(run, "train", built=built)
    left = max(1e-9, max_minutes - (time.monotonic() - started) / 60)
    return load_workflow(run, "train", {"max_minutes": left}, built=built)
