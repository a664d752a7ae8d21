"""Ensembles: several runs, or the folds of one, joined into one prediction; scored where references exist."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator
from monai.transforms import Compose

from medseg.data import Datalist, read_datalist
from medseg.engines import CaseScores
from medseg.errors import ConfigError, DataError
from medseg.inferers import Ensemble, Member
from medseg.labels import LabelSpace
from medseg.transforms import LogitsToLabelsd, SaveLabelsd, load
from medseg.weights import load_weights
from medseg.workflows.checks import check_cases
from medseg.workflows.compose import load_workflow, merged_config
from medseg.workflows.evaluation import weights_of
from medseg.workflows.folds import fold_runs
from medseg.workflows.parts import device as choose_device
from medseg.workflows.run_folder import read_facts, require_run

__all__ = ["ensemble", "load_member"]

logger = logging.getLogger("medseg")


def load_member(
    run: str | Path, *, checkpoint: str = "best", device: str | None = None, allow_expressions: bool = False
) -> Member:
    """A run's network with its own preprocessing and inferer, weights loaded."""
    folder = require_run(run)
    changes = {"device": f"$w.device('{device}')"} if device is not None else {}
    parser = load_workflow(folder, "infer", changes, allow_expressions=allow_expressions).parser
    network = parser.get_parsed_content("network")
    load_weights(network, weights_of(folder, checkpoint))
    steps = parser.get_parsed_content("preprocessing").transforms
    return Member(
        network, Compose(steps[1:]), parser.get_parsed_content("inferer"), parser.get_parsed_content("label_space")
    )


def ensemble(
    runs: Sequence[str | Path],
    output: str | Path,
    *,
    method: str = "mean",
    weights: Sequence[float] | str | None = None,
    json_list: str | Path | None = None,
    data_dir: str | Path | None = None,
    section: str = "validation",
    fold: int | None = None,
    checkpoint: str = "best",
    device: str | None = None,
    allow_expressions: bool = False,
) -> dict[str, Any] | None:
    """Predict a datalist section with all runs together; writes ``predictions/`` and, with references,
    ``metrics.json``.

    Args:
        runs: run folders; one with folds stands for its folds.
        output: result folder.
        method: ``mean`` of probabilities or ``vote``.
        weights: one per member, ``"dice"`` for each run's validation ``mean_dice``, or ``None`` for equal ones.
        json_list, data_dir, section, fold: the cases; default: the first run's datalist and fold.
        checkpoint, device, allow_expressions: as for validation.

    Returns:
        The scores, or ``None`` where the section has no references.
    """
    folders = [member for run in runs for member in fold_runs(run) or [require_run(run)]]
    config = merged_config([folders[0] / "configs" / "train.yaml"])
    datalist, cases = _cases(folders[0], config, json_list, data_dir, section, fold)
    check_cases(cases, datalist)
    _warn_seen(folders, cases)
    settings: dict[str, Any] = {"checkpoint": checkpoint, "device": device, "allow_expressions": allow_expressions}
    members = [load_member(folder, **settings) for folder in folders]
    chosen = [_mean_dice(folder) for folder in folders] if weights == "dice" else weights
    if isinstance(chosen, str):
        raise ConfigError(f"weights '{chosen}' is unknown; give numbers, or 'dice'.")
    network = Ensemble(members, method, chosen)
    logger.info("%s of %d members, weights %s", method, len(members), [round(w, 3) for w in network.weights])
    return predict_ensemble(network, cases, network.label_space, Path(output), choose_device(device), method)


def predict_ensemble(
    network: Ensemble,
    cases: Sequence[Mapping[str, Any]],
    space: LabelSpace,
    output: Path,
    device: Any,
    method: str,
) -> dict[str, Any] | None:
    """Run the ensemble over cases with MONAI's evaluator; the loader only loads, so scores are on the source grid."""
    labelled = all("label" in case for case in cases)
    keys = ["image", "label"] if labelled else ["image"]
    output.mkdir(parents=True, exist_ok=True)
    scores = CaseScores(space, surface=True, output_dir=output, facts={"space": "source", "ensemble": method})
    evaluator = SupervisedEvaluator(
        device=device,
        val_data_loader=DataLoader(Dataset(list(cases), Compose(load(keys, space))), batch_size=1),
        network=network,
        postprocessing=Compose(
            [LogitsToLabelsd("pred", space, threshold=0.5), SaveLabelsd("pred", output / "predictions", space)]
        ),
        key_val_metric={"mean_dice": scores} if labelled else None,
    )
    evaluator.run()
    return json.loads((output / "metrics.json").read_text(encoding="utf-8")) if labelled else None


def _cases(
    run: Path,
    config: Mapping[str, Any],
    json_list: str | Path | None,
    data_dir: str | Path | None,
    section: str,
    fold: int | None,
) -> tuple[Datalist, list[dict[str, Any]]]:
    own = json_list is None
    source = run / "configs" / "datalist.json" if json_list is None else json_list
    datalist = read_datalist(source, data_dir or (config["dataset_dir"] if own else None))
    cases = datalist.cases(section, config.get("fold") if own and fold is None else fold)
    if not cases:
        raise DataError(f"{datalist.path} has no case in '{section}'; name another with --section.")
    return datalist, cases


def _warn_seen(folders: Sequence[Path], cases: Sequence[Mapping[str, Any]]) -> None:
    ids = {case["case_id"] for case in cases}
    for folder in folders:
        seen = ids & set(read_facts(folder).get("training_cases", []))
        if seen:
            logger.warning("%s was trained on %d of these cases: the score is too good.", folder.name, len(seen))


def _mean_dice(run: Path) -> float:
    path = run / "metrics.json"
    if not path.is_file():
        raise ConfigError(f"{run} has no metrics.json for weights by Dice; run `medseg validate --run {run}` first.")
    return float(json.loads(path.read_text(encoding="utf-8"))["mean_dice"])
