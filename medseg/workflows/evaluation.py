"""Score a trained run: per case and label, on the source images' own grid (or the model's)."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from medseg.data import Case, Datalist, read_datalist
from medseg.engines import CaseCost, network_facts
from medseg.engines.ranks import barrier, is_main, on_main, unwrap
from medseg.errors import ConfigError, DataError, ModelError, nearest
from medseg.metrics import background_cases, background_note
from medseg.workflows.checks import check_cases
from medseg.workflows.cleanup import add_cleaning, stored_rules
from medseg.workflows.compose import config_files, load_workflow, merged_config
from medseg.workflows.folder_lock import writes_into
from medseg.workflows.own_words import user_speaks
from medseg.workflows.parts import start_distributed
from medseg.workflows.run_folder import log_to, require_run, require_same_data, write_facts
from medseg.workflows.stored_list import read_stored_list

__all__ = ["evaluate", "kept_checkpoints", "scored_cases", "warn_of_background", "weights_of"]

logger = logging.getLogger("medseg")

_BEST = "models/model.pt"


def kept_checkpoints(run: Path) -> dict[str, Path]:
    """Name -> file of the weights that a run keeps: ``best``, ``best_<metric>`` …, ``last``; a bundle has ``best``."""
    folder = run / "checkpoints"
    found = {"best": run / _BEST} | {path.stem: path for path in sorted(folder.glob("best_*.pt"))}
    return {name: path for name, path in (found | {"last": folder / "last.pt"}).items() if path.is_file()}


def weights_of(run: Path, checkpoint: str) -> Path:
    """The weights file for a name of ``kept_checkpoints``, or a path.

    Raises:
        ModelError: there is none.
    """
    kept = kept_checkpoints(run)
    path = kept.get(checkpoint) or (run / _BEST if checkpoint == "best" else Path(checkpoint))
    if not path.is_file():
        known = f" This one keeps {', '.join(kept)}." if kept else ""
        raise ModelError(
            f"No weights at {path}. Train it first, import weights with `medseg import-weights`, or name a "
            f"file with --checkpoint.{known}"
        )
    return path.resolve()


@writes_into("run")
@user_speaks("overrides")
def evaluate(
    run: str | Path,
    *,
    checkpoint: str = "best",
    space: str = "source",
    tolerance: float | None = None,
    device: str | None = None,
    data_dir: str | Path | None = None,
    postprocess: bool = False,
    overrides: Mapping[str, Any] | None = None,
    overlays: Sequence[str] = (),
    section: str = "validation",
    into: str | None = None,
    checked: bool = False,
) -> dict[str, Any]:
    """Score cases of a run; writes ``metrics.json``, ``metrics_per_case.csv`` and ``predictions/``, and what a
    validation case costs into ``run.json``.

    Under torchrun every process makes the same call and takes its share of the cases.

    Args:
        run: the run folder.
        checkpoint: ``best``, ``last``, ``best_<metric>`` where the run keeps it, or a file.
        space: ``source`` (the images' own grid) or ``model`` (after preprocessing; no predictions are written).
        tolerance: of the surface Dice in mm.
        device, data_dir: as for training.
        postprocess: apply the rules that `medseg postprocess` stored; raw predictions otherwise, on which rules are
            chosen, and on which runs compare without bias.
        overrides: config id -> value; with ``json_list``, and an overlay that says what its values mean, all labelled
            cases of that list are scored, a set that the run never saw.
        overlays: further config files of the run, such as a published protocol.
        section: of the datalist; ``validation`` follows the run's fold.
        into: folder in the run for the results; default: the run itself, ``scores/<section>`` for other sections.
        checked: the caller has checked the cases.

    Returns:
        The content of ``metrics.json``, which lies in the config's ``output_dir``.
    """
    folder = require_run(run).resolve()
    start_distributed()
    if is_main():
        log_to(folder)
    else:
        logger.setLevel(logging.ERROR)  # the first process speaks for all
    config = merged_config([folder / "configs" / "train.yaml"])
    changes: dict[str, Any] = dict(overrides or {}) | {"ckpt_path": str(weights_of(folder, checkpoint))}
    if device is not None:
        changes["device"] = f"$w.device('{device}')"
    if data_dir is not None:
        changes["dataset_dir"] = str(Path(data_dir).resolve())
    if tolerance is not None:
        changes["tolerance"] = tolerance
    if into is None and section != "validation":
        into = f"scores/{section}"
    if into is not None:
        changes["output_dir"] = str(folder / into)
    if "json_list" in changes:
        datalist = read_datalist(changes["json_list"], changes.get("dataset_dir"))
        cases = [case for listed in datalist.sections.values() for case in listed if case.label]
        if not cases:
            raise DataError(f"{datalist.path} has no case with a label; labels are needed for scores.")
    else:
        cases, datalist = scored_cases(folder, config, data_dir, section)
    if section != "validation":
        changes["validate::dataset::data"] = f"$w.cases(@json_list, @dataset_dir, @fold, {section!r})"
    if not checked:
        on_main(lambda: check_cases(cases, datalist))
    if space == "model":
        # As while training: labels go through the preprocessing too, predictions stay where they are.
        steps = {part: config["validate"][part]["transforms"] for part in ("preprocessing", "postprocessing")}
        changes |= {f"validate::{part}::transforms": transforms for part, transforms in steps.items()}
        changes["validate::key_metric::mean_dice::facts::space"] = "model"
    elif space != "source":
        raise ConfigError(f"space '{space}' is unknown; use 'source' or 'model'.")
    if postprocess:
        changes |= _cleaning(folder, space, overlays)
    workflow = load_workflow(folder, "evaluate", changes, overlays)
    evaluator = workflow.parser.get_parsed_content("validate::evaluator")
    cost = CaseCost()
    cost.attach(evaluator)
    workflow.run()
    barrier()  # the first process writes the scores of all
    target = Path(workflow.parser.get_parsed_content("output_dir"))
    content = json.loads((target / "metrics.json").read_text(encoding="utf-8"))
    warn_of_background(background_cases(content["cases"]), len(content["cases"]))
    if is_main() and target.resolve() == folder:  # scores elsewhere, of an external set, are not the run's own
        facts = network_facts(
            unwrap(evaluator.network),
            workflow.parser["network_def::in_channels"],
            workflow.parser.get_parsed_content("roi_size"),
        )
        facts |= cost.facts(facts.get("multiply_adds_per_window"))
        write_facts(folder, mean_dice=content["mean_dice"], **facts)
    workflow.finalize()
    return content


def warn_of_background(cases: Sequence[str], total: int) -> None:
    """Log which predictions are background throughout."""
    if cases and is_main():
        logger.warning("%s", background_note(cases, total))


def _cleaning(run: Path, space: str, overlays: Sequence[str]) -> dict[str, Any]:
    """The overrides that clean label maps by the stored rules, and record the rules."""
    rules = stored_rules(run)
    if not rules:
        raise ConfigError(f"{run} has no post-processing; choose it with `medseg postprocess --run {run}`.")
    if space != "source":
        raise ConfigError("Post-processing works on the source grid; leave out --space model or --postprocess.")
    merged = ConfigParser(merged_config(config_files(run, "evaluate", overlays)))
    transforms, facts = (
        merged[f"validate::{key}"] for key in ("postprocessing::transforms", "key_metric::mean_dice::facts")
    )
    return {
        "validate::postprocessing::transforms": add_cleaning(transforms, rules),
        "validate::key_metric::mean_dice::facts": {**facts, "cleanup": rules},
    }


def scored_cases(
    run: Path, config: Mapping[str, Any], data_dir: str | Path | None, section: str
) -> tuple[list[Case], Datalist]:
    """The cases that are scored, and their datalist.

    Raises:
        DataError: there are none, they have no labels, or their files changed since the training.
    """
    datalist = read_stored_list(run, data_dir or config["dataset_dir"])
    if section not in datalist.sections:
        raise DataError(f"{datalist.path} has no section '{section}'.{nearest(section, datalist.sections)}")
    cases = datalist.cases(section, config.get("fold"))
    if not cases and section == "validation":
        raise DataError(
            f"{run} has no validation cases; train with --fold K, or add a 'validation' section to the datalist."
        )
    unlabelled = [case.id for case in cases if not case.label]
    if unlabelled or not cases:
        raise DataError(
            f"Section '{section}' of {datalist.path} has {len(cases)} cases, {len(unlabelled)} of them without label; "
            "labels are needed for scores. Use `medseg infer` for images alone."
        )
    on_main(lambda: require_same_data(run, cases))
    return cases, datalist
