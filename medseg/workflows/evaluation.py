"""Validate a trained run: scores per case and label on the source images' own grid (or the model's)."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medseg.data import read_datalist
from medseg.engines import CaseCost, network_facts
from medseg.engines.ranks import barrier, is_main, on_main, unwrap
from medseg.errors import ConfigError, DataError, ModelError
from medseg.workflows.checks import check_cases
from medseg.workflows.compose import load_workflow, merged_config
from medseg.workflows.parts import start_distributed
from medseg.workflows.run_folder import log_to, require_run, write_facts

__all__ = ["evaluate", "weights_of"]

logger = logging.getLogger("medseg")

# What model space changes of evaluate.yaml: labels go through the preprocessing too, predictions stay where they are.
_MODEL_SPACE = {
    "validate::preprocessing::transforms": "$t.preprocessing(['image', 'label'], label_space=@label_space, "
    "**@preprocess)",
    "validate::postprocessing::transforms": "$[t.LogitsToLabelsd('pred', @label_space)]",
    "validate::key_metric::mean_dice::facts::space": "model",
}
_NAMED = {"best": "models/model.pt", "last": "checkpoints/last.pt"}


def weights_of(run: Path, checkpoint: str) -> Path:
    """The weights file for ``best``, ``last`` or a path.

    Raises:
        ModelError: there is none.
    """
    path = run / _NAMED[checkpoint] if checkpoint in _NAMED else Path(checkpoint)
    if not path.is_file():
        raise ModelError(
            f"No weights at {path}. Train it first, import weights with `medseg import-weights`, or name a "
            f"file with --checkpoint."
        )
    return path.resolve()


def evaluate(
    run: str | Path,
    *,
    checkpoint: str = "best",
    space: str = "source",
    tolerance: float | None = None,
    device: str | None = None,
    data_dir: str | Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    overlays: Sequence[str] = (),
) -> dict[str, Any]:
    """Score the validation cases of a run; writes ``metrics.json``, ``metrics_per_case.csv`` and ``predictions/``, and
    what a case costs into ``run.json``.

    Under torchrun every process makes the same call and takes its share of the cases.

    Args:
        run: the run folder.
        checkpoint: ``best``, ``last`` or a file.
        space: ``source`` (the images' own grid) or ``model`` (after preprocessing; no predictions are written).
        tolerance: of the surface Dice in mm.
        device, data_dir: as for training.
        overrides: config id -> value; with ``json_list``, and an overlay that says what its values mean, all labelled
            cases of that list are scored, a set that the run never saw.
        overlays: further config files of the run, such as a published protocol.

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
    if "json_list" in changes:
        datalist = read_datalist(changes["json_list"], changes.get("dataset_dir"))
        cases = [case for section in datalist.sections.values() for case in section if case.get("label")]
    else:
        cases, datalist = validation_cases(folder, config, data_dir)
    if not cases:
        raise DataError(
            f"{folder} has no validation cases; train with --fold K, or add a 'validation' section to the datalist."
        )
    on_main(lambda: check_cases(cases, datalist))
    if space == "model":
        changes |= _MODEL_SPACE
    elif space != "source":
        raise ConfigError(f"space '{space}' is unknown; use 'source' or 'model'.")
    workflow = load_workflow(folder, "evaluate", changes, overlays)
    evaluator = workflow.parser.get_parsed_content("validate::evaluator")
    cost = CaseCost()
    cost.attach(evaluator)
    workflow.run()
    barrier()  # the first process writes the scores of all
    target = Path(workflow.parser.get_parsed_content("output_dir"))
    content = json.loads((target / "metrics.json").read_text(encoding="utf-8"))
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


def validation_cases(
    run: Path, config: Mapping[str, Any], data_dir: str | Path | None = None
) -> tuple[list[dict[str, Any]], Any]:
    """The validation cases that a run's config names, and its datalist."""
    datalist = read_datalist(run / "configs" / "datalist.json", data_dir or config["dataset_dir"])
    return datalist.cases("validation", config.get("fold")), datalist
