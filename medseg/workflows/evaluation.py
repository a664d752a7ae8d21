"""Validate a trained run: scores per case and label on the source images' own grid (or the model's)."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medseg.data import read_datalist
from medseg.errors import ConfigError, DataError, ModelError
from medseg.workflows.checks import check_cases
from medseg.workflows.compose import load_workflow, merged_config
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
    allow_expressions: bool = False,
) -> dict[str, Any]:
    """Score the validation cases of a run; writes ``metrics.json``, ``metrics_per_case.csv`` and ``predictions/``.

    Args:
        run: the run folder.
        checkpoint: ``best``, ``last`` or a file.
        space: ``source`` (the images' own grid) or ``model`` (after preprocessing; no predictions are written).
        tolerance: of the surface Dice in mm.
        device, data_dir: as for training.
        overrides: config id -> value.
        overlays: further config files of the run, such as a published protocol.
        allow_expressions: run what the run's configs name beyond known parts (``medseg.workflows.trust``).

    Returns:
        The content of ``metrics.json``.
    """
    folder = require_run(run).resolve()
    log_to(folder)
    config = merged_config([folder / "configs" / "train.yaml"])
    changes: dict[str, Any] = dict(overrides or {}) | {"ckpt_path": str(weights_of(folder, checkpoint))}
    if device is not None:
        changes["device"] = f"$w.device('{device}')"
    if data_dir is not None:
        changes["dataset_dir"] = str(Path(data_dir).resolve())
    if tolerance is not None:
        changes["tolerance"] = tolerance
    cases, datalist = validation_cases(folder, config, data_dir)
    if not cases:
        raise DataError(
            f"{folder} has no validation cases; train with --fold K, or add a 'validation' section to the datalist."
        )
    check_cases(cases, datalist)
    if space == "model":
        changes |= _MODEL_SPACE
    elif space != "source":
        raise ConfigError(f"space '{space}' is unknown; use 'source' or 'model'.")
    workflow = load_workflow(folder, "evaluate", changes, overlays, allow_expressions=allow_expressions)
    workflow.run()
    workflow.finalize()
    content = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    write_facts(folder, mean_dice=content["mean_dice"])
    return content


def validation_cases(
    run: Path, config: Mapping[str, Any], data_dir: str | Path | None = None
) -> tuple[list[dict[str, Any]], Any]:
    """The validation cases that a run's config names, and its datalist."""
    datalist = read_datalist(run / "configs" / "datalist.json", data_dir or config["dataset_dir"])
    return datalist.cases("validation", config.get("fold")), datalist
