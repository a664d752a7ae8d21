"""Score a trained run: per case and label, on the source images' own grid (or the model's)."""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Any, Literal

from monai.bundle import ConfigParser
from monai.transforms import Compose

from medseg import __version__
from medseg.bundle.compose import config_files, load_workflow, merged_config, used_config, with_changes
from medseg.bundle.own_words import user_speaks
from medseg.bundle.parts import device_component, start_distributed
from medseg.data import Case
from medseg.data.content import content_hash
from medseg.engines import CaseCost, add_facts, network_facts
from medseg.engines.ranks import barrier, is_main, on_main, unwrap
from medseg.engines.run_facts import RunFacts, write_facts
from medseg.engines.run_files import read_scores
from medseg.errors import ConfigError, ModelError
from medseg.labels import LabelSpace
from medseg.metrics import background_cases, background_note
from medseg.settings import Folder, takes
from medseg.transforms import SaveLabelsd
from medseg.workflows.checks import check_cases, refuse_other_names
from medseg.workflows.cleanup import add_cleaning, rules_of
from medseg.workflows.folder_lock import writes_into
from medseg.workflows.run_folder import log_to, require_run
from medseg.workflows.run_limits import check_use, mirrored_axes, refuse_double, warn_changed
from medseg.workflows.selection import Selection, scoring_changes, select

__all__ = ["EvaluateSettings", "evaluate", "kept_checkpoints", "warn_of_background", "weights_of"]

logger = logging.getLogger("medseg")

_BEST = "models/model.pt"
_SCORES = "validate::key_metric::mean_dice"
_STEPS = "validate::postprocessing::transforms"
# Ids that say where things are and how the work is done, not what comes out.
_PLACES = {"bundle_root", "dataset_dir", "json_list", "output_dir", "score_dir", "prediction_dir", "ckpt_path"}
_PLACES |= {"ckpt_dir", "cache_dir", "device", "num_workers", "sw_batch_size"}


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


@dataclass(frozen=True)
class EvaluateSettings:
    """Which cases of a run are scored, and how.

    Attributes:
        run: run folder.
        checkpoint: best, last, best_<metric> where it is kept, all, or a file.
        space: grid of the scores: original image space, or after preprocessing, without predictions.
        tolerance: tolerance of the surface Dice in mm (default: 1).
        device: cpu, cuda or cuda:N (default: a GPU where there is one).
        data_dir: folder of the images, where they were moved (default: as in training).
        postprocess: cleaning by the rules that `medseg postprocess` stored. Inference does so in the original image
            space.
        overrides: config values by their ids, such as overlap=0.25. With json_list, all labelled cases of that
            list are scored, a set that the run never saw.
        overlays: further configs of the run, such as evaluate_published.
        section: section of the run's datalist (default: that of the config, validation). Test is for the last score,
            not for choices, and its scores lie in scores/test.
        into: folder in the run for the results (default: the run itself, or scores/<section>).
        checked: whether the caller has checked the cases, and says itself what differs from the training.
        reuse: whether scores are kept that were made from the same weights, settings and files.
    """

    run: Folder
    _: KW_ONLY
    checkpoint: str = "best"
    space: Literal["source", "model"] = "source"
    tolerance: float | None = None
    device: str | None = None
    data_dir: Folder | None = None
    postprocess: bool = field(default=True, metadata={"option": "no_postprocess"})
    overrides: Mapping[str, Any] | None = field(default=None, metadata={"option": "set"})
    overlays: Sequence[str] = field(default=(), metadata={"option": "overlay"})
    section: str | None = None
    into: str | None = field(default=None, metadata={"option": None})
    checked: bool = field(default=False, metadata={"option": None})
    reuse: bool = field(default=False, metadata={"option": None})


@takes(EvaluateSettings)
@writes_into("run")
@user_speaks("overrides")
def evaluate(s: EvaluateSettings) -> dict[str, Any]:
    """Score cases of a run; writes ``metrics.json``, ``metrics_per_case.csv`` and ``predictions/``, and what a
    validation case costs into ``run.json``.

    Scores of other cases than the run's validation cases lie in a folder of their own, ``scores/<section>``, wherever
    the choice came from, and are not facts of the run. Under torchrun every process makes the same call and takes its
    share of the cases.

    Returns:
        The content of ``metrics.json``.
    """
    folder = require_run(s.run).resolve()
    checkpoint, space, overlays = s.checkpoint, s.space, s.overlays
    start_distributed()
    if is_main():
        log_to(folder)
    else:
        logger.setLevel(logging.ERROR)  # the first process speaks for all
    config = merged_config([folder / "configs" / "train.yaml"])
    weights = weights_of(folder, checkpoint)
    given = dict(s.overrides or {})
    refuse_double("evaluate", given, tolerance=s.tolerance, device=s.device)
    used = used_config(folder, "evaluate", given, overlays)
    changed = check_use(config, used, given, own_weights=weights.is_relative_to(folder))
    mirrored_axes(folder, used)
    if not s.checked:
        warn_changed(changed)
    changes: dict[str, Any] = given | {"ckpt_path": str(weights)}
    if s.device is not None:
        changes["device"] = device_component(s.device)
    if s.tolerance is not None:
        changes["tolerance"] = s.tolerance
    asked: dict[str, Any] = {"overlays": overlays, "data_dir": s.data_dir, "section": s.section}
    selection = select(folder, overrides=changes, **asked)
    refuse_other_names(LabelSpace.from_table(used["labels"]), selection.datalist.label_space, "The run")
    changes = scoring_changes(folder, overrides=changes, **asked)
    tree = with_changes(merged_config(config_files(folder, "evaluate", overlays)), changes)
    if not s.checked:
        on_main(lambda: check_cases(selection.cases, selection.datalist))
    rules = rules_of(folder, tree) if s.postprocess and space == "source" else {}
    facts = selection.facts | {"checkpoint": checkpoint, "biases": _biases(selection, cleaned=bool(rules))}
    if changed:
        facts["differs_from_training"] = changed
    if rules:
        changes[_STEPS] = add_cleaning(ConfigParser(tree)[_STEPS], rules)
        facts["cleanup"] = rules
    if space == "model":
        # As while training: labels go through the preprocessing too, predictions stay where they are.
        validate = merged_config([folder / "configs" / "train.yaml"])["validate"]
        changes |= {
            f"validate::{part}::transforms": validate[part]["transforms"]
            for part in ("preprocessing", "postprocessing")
        }
        facts["space"] = "model"
    elif space != "source":
        raise ConfigError(f"space '{space}' is unknown; use 'source' or 'model'.")
    record = on_main(lambda: _record(selection.cases, weights, with_changes(tree, changes)))
    changes |= _target(folder, tree, selection, s.into)
    workflow = load_workflow(folder, "evaluate", changes, overlays)
    target = Path(workflow.parser.get_parsed_content("score_dir" if "score_dir" in tree else "output_dir"))
    if selection.place and target.resolve() == folder:
        raise ConfigError(
            f"{target} has the scores of validation cases, which those of {selection.words} would replace; name "
            "another score_dir."
        )
    kept = on_main(lambda: _kept(target, record)) if s.reuse else None
    if kept is not None:
        workflow.finalize()
        return kept
    logger.info("scoring %s of %s, checkpoint %s", selection.words, folder, checkpoint)
    scores = workflow.parser.get_parsed_content(_SCORES)
    scores.facts = scores.facts | facts | record  # not in the config, where a name could become an expression
    evaluator = workflow.parser.get_parsed_content("validate::evaluator")
    cost = CaseCost()
    cost.attach(evaluator)
    workflow.run()
    saved = _saved_to(workflow.parser.get_parsed_content("validate::postprocessing"))
    if is_main():
        add_facts(target, {"predictions": _predictions(target, saved, selection.cases)})
        if selection.role == "validation" and target.resolve() == folder:  # others are not the run's own
            measured = network_facts(
                unwrap(evaluator.network),
                workflow.parser["network_def::in_channels"],
                workflow.parser.get_parsed_content("roi_size"),
            )
            measured |= cost.facts(measured.multiply_adds_per_window)
            dice = _content(target)["mean_dice"]
            write_facts(folder, measured | RunFacts(mean_dice=math.nan if dice is None else dice))
    barrier()  # the first process writes the scores of all
    content = _content(target)
    warn_of_background(background_cases(content["cases"]), len(content["cases"]))
    workflow.finalize()
    return content


def warn_of_background(cases: Sequence[str], total: int) -> None:
    """Log which predictions are background throughout."""
    if cases and is_main():
        logger.warning("%s", background_note(cases, total))


def _target(run: Path, tree: Mapping[str, Any], selection: Selection, into: str | None) -> dict[str, Any]:
    """The override of where the scores go; empty where the config, or an overlay that keeps them apart, says it."""
    key = "score_dir" if "score_dir" in tree else "output_dir"
    if into is not None:
        return {key: str(run / into)}
    own = merged_config(config_files(run, "evaluate"))
    if not selection.place or tree[key] != own.get(key):  # by an overlay or an override
        return {}
    place, root = f"/{selection.place}", str(own["output_dir"])
    root = "$@output_dir" if key == "score_dir" else f"${root}" if root.startswith("@") else root
    return {key: f"{root} + {place!r}" if root.startswith("$") else root + place}


def _biases(selection: Selection, *, cleaned: bool) -> list[str]:
    """Why scores are better than those of new cases, in words; logged as well."""
    found = []
    if selection.seen:
        found.append(
            f"The run was trained on {selection.seen} of these {len(selection.cases)} cases: the scores are "
            "optimistically biased."
        )
    if cleaned and selection.role == "validation":
        found.append(
            "The rules of post-processing were chosen on validation cases: scores of cleaned predictions on them are "
            "optimistically biased."
        )
    for text in found:
        logger.warning("%s", text)
    return found


def _record(cases: Sequence[Case], weights: Path, tree: Mapping[str, Any]) -> dict[str, Any]:
    """What scores are made from: hashes of weights, settings and files, and the version."""
    settings = {key: value for key, value in tree.items() if key not in _PLACES}
    text = json.dumps(settings, sort_keys=True, default=str)
    return {
        "weights_sha256": content_hash(weights),
        "settings_sha256": hashlib.sha256(text.encode()).hexdigest(),
        "medseg": __version__,
        "files_sha256": {case.id: [content_hash(file) for file in case.files] for case in cases},
    }


def _kept(target: Path, record: Mapping[str, Any]) -> dict[str, Any] | None:
    """Scores that were made from the same; ``None`` without."""
    if not (target / "metrics.json").is_file():
        return None
    content = _content(target)
    return content if all(content.get(key) == value for key, value in record.items()) else None


def _saved_to(steps: Any) -> Path | None:
    """Where post-processing writes label maps; ``None`` where it writes none."""
    for step in steps.transforms if isinstance(steps, Compose) else [steps]:
        if isinstance(step, SaveLabelsd):
            return Path(step.output_dir)
    return None


def _predictions(target: Path, folder: Path | None, cases: Sequence[Case]) -> dict[str, Any] | None:
    """The label maps that were scored: their folder, below the scores' own where it is there, and their hashes."""
    if folder is None:
        return None
    folder, target = folder.resolve(), target.resolve()
    name = folder.relative_to(target) if folder.is_relative_to(target) else folder
    return {
        "folder": str(name),
        "sha256": {case.id: content_hash(folder / case.output_name) for case in cases},
    }


def _content(folder: Path) -> dict[str, Any]:
    return read_scores(folder / "metrics.json")
