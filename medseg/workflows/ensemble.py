"""Ensembles: several runs, or the folds of one, joined into one prediction; scored where references exist."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ignite.engine import Events
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator
from monai.transforms import Compose

from medseg.data import Case, Datalist, read_datalist
from medseg.engines import CaseCost, CaseScores
from medseg.errors import ConfigError, DataError
from medseg.inferers import Ensemble, Member
from medseg.labels import LabelSpace
from medseg.networks.cost import count_parameters
from medseg.transforms import CleanLabelsd, LogitsToLabelsd, SaveLabelsd, load
from medseg.weights import load_weights
from medseg.workflows.checks import check_cases
from medseg.workflows.cleanup import stored_rules
from medseg.workflows.compose import load_workflow, merged_config
from medseg.workflows.evaluation import warn_of_background, weights_of
from medseg.workflows.folder_lock import writes_into
from medseg.workflows.folds import fold_runs
from medseg.workflows.parts import device as choose_device
from medseg.workflows.run_folder import read_facts, require_run, require_same_data, write_facts
from medseg.workflows.stored_list import read_stored_list

__all__ = ["ensemble", "load_member"]

logger = logging.getLogger("medseg")

# Ids of inference.yaml that do not change what the network is given.
_OWN = ("bundle_root", "dataset_dir", "json_list", "section", "output_dir", "ckpt_path", "network_def", "network")


def load_member(run: str | Path, *, checkpoint: str = "best", device: str | None = None) -> Member:
    """A run's network with its own preprocessing and inferer, weights loaded."""
    folder = require_run(run)
    changes = {"device": f"$w.device('{device}')"} if device is not None else {}
    parser = load_workflow(folder, "infer", changes).parser
    network = parser.get_parsed_content("network")
    load_weights(network, weights_of(folder, checkpoint))
    steps = parser.get_parsed_content("preprocessing").transforms
    return Member(
        network,
        Compose(steps[1:]),
        parser.get_parsed_content("inferer"),
        parser.get_parsed_content("label_space"),
        _grid(folder),
    )


def _grid(run: Path) -> str:
    """What tells the preprocessing: equal texts mean equal grids, different ones that they may differ."""
    config = merged_config([run / "configs" / "inference.yaml"])
    return json.dumps({key: value for key, value in config.items() if key not in _OWN}, sort_keys=True, default=str)


@writes_into("output")
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
    postprocess: bool = True,
) -> dict[str, Any] | None:
    """Predict a datalist section with all runs together; writes ``predictions/`` and, with references,
    ``metrics.json``.

    Args:
        runs: run folders; one with folds stands for its folds.
        output: result folder.
        method: ``mean`` of probabilities or ``vote``.
        weights: one per member, ``"dice"`` for each run's validation ``mean_dice``, or ``None`` for equal ones.
        json_list, data_dir, section, fold: the cases; default: the first run's datalist and fold.
        checkpoint, device: as for validation.
        postprocess: clean the joint label map by the rules that `medseg postprocess` stored, if all members have the
            same ones, as the folds of one training have.

    Returns:
        The scores, or ``None`` where the section has no references.
    """
    folders = [member for run in runs for member in fold_runs(run) or [require_run(run)]]
    for folder in folders:
        if "tasks" in merged_config([folder / "configs" / "inference.yaml"]):
            raise ConfigError(
                f"{folder} was trained on several data sets, whose cases are asked for different tasks; `medseg "
                "ensemble` joins runs on one. Predict with each run alone by `medseg infer`."
            )
    config = merged_config([folders[0] / "configs" / "train.yaml"])
    datalist, cases = _cases(folders[0], config, json_list, data_dir, section, fold)
    check_cases(cases, datalist)
    for folder in folders if json_list is None else ():
        require_same_data(folder, cases)
    _warn_seen(folders, cases)
    members = [load_member(folder, checkpoint=checkpoint, device=device) for folder in folders]
    chosen = [_mean_dice(folder) for folder in folders] if weights == "dice" else weights
    if isinstance(chosen, str):
        raise ConfigError(f"weights '{chosen}' is unknown; give numbers, or 'dice'.")
    network = Ensemble(members, method, chosen)
    logger.info("%s of %d members, weights %s", method, len(members), [round(w, 3) for w in network.weights])
    cost, rules = CaseCost(), _common_rules(folders) if postprocess else {}
    result, background = predict_ensemble(
        network, cases, network.label_space, Path(output), choose_device(device), method, cost, rules
    )
    warn_of_background(background, len(cases))
    names = dict.fromkeys(type(member.network).__name__ for member in members)
    write_facts(
        output,
        network=f"{method} of {len(members)} ({', '.join(names)})",
        parameters=count_parameters(network),
        training_cases=sorted({case for folder in folders for case in read_facts(folder).get("training_cases", [])}),
        predictions=len(cases),
        background_predictions=background,
        **cost.facts(),
    )
    return result


def predict_ensemble(
    network: Ensemble,
    cases: Sequence[Case],
    space: LabelSpace,
    output: Path,
    device: Any,
    method: str,
    cost: CaseCost | None = None,
    rules: Mapping[str, Any] | None = None,
) -> tuple[dict[str, Any] | None, list[str]]:
    """Run the ensemble over cases with MONAI's evaluator; the loader only loads, so scores are on the source grid.

    ``cost`` measures them; a member's preprocessing and way back are in it. ``rules`` clean the label maps.

    Returns:
        The scores, ``None`` without references, and the cases whose label map is background throughout.
    """
    labelled = all(case.label for case in cases)
    keys = ["image", "label"] if labelled else ["image"]
    output.mkdir(parents=True, exist_ok=True)
    facts = {"space": "source", "ensemble": method} | ({"cleanup": dict(rules)} if rules else {})
    scores = CaseScores(space, surface=True, output_dir=output, facts=facts)
    evaluator = SupervisedEvaluator(
        device=device,
        val_data_loader=DataLoader(
            Dataset([case.to_dict() for case in cases], Compose(load(keys, space))), batch_size=1
        ),
        network=network,
        postprocessing=Compose(
            [
                LogitsToLabelsd("pred", space, threshold=0.5),
                CleanLabelsd("pred", space, rules or {}),
                SaveLabelsd("pred", output / "predictions", space),
            ]
        ),
        key_val_metric={"mean_dice": scores} if labelled else None,
    )
    if cost is not None:
        cost.attach(evaluator)

    background: list[str] = []

    def note(engine: Any) -> None:
        for item, made in zip(engine.state.batch, engine.state.output, strict=True):
            if not made["pred"].any():
                background.append(str(item["case_id"]))

    evaluator.add_event_handler(Events.ITERATION_COMPLETED, note)
    evaluator.run()
    scored = json.loads((output / "metrics.json").read_text(encoding="utf-8")) if labelled else None
    return scored, background


def _cases(
    run: Path,
    config: Mapping[str, Any],
    json_list: str | Path | None,
    data_dir: str | Path | None,
    section: str,
    fold: int | None,
) -> tuple[Datalist, list[Case]]:
    own = json_list is None
    if json_list is None:
        datalist = read_stored_list(run, data_dir or config["dataset_dir"])
    else:
        datalist = read_datalist(json_list, data_dir)
    cases = datalist.cases(section, config.get("fold") if own and fold is None else fold)
    if not cases:
        raise DataError(f"{datalist.path} has no case in '{section}'; name another with --section.")
    return datalist, cases


def _warn_seen(folders: Sequence[Path], cases: Sequence[Case]) -> None:
    ids = {case.id for case in cases}
    for folder in folders:
        seen = ids & set(read_facts(folder).get("training_cases", []))
        if seen:
            logger.warning("%s was trained on %d of these cases: the score is too good.", folder.name, len(seen))


def _common_rules(folders: Sequence[Path]) -> dict[str, Any]:
    """The post-processing that all members have alike."""
    found = [stored_rules(folder) for folder in folders]
    if any(found) and any(rules != found[0] for rules in found):
        logger.warning("The members' post-processing differs, so none is applied.")
        return {}
    return found[0]


def _mean_dice(run: Path) -> float:
    path = run / "metrics.json"
    if not path.is_file():
        raise ConfigError(f"{run} has no metrics.json for weights by Dice; run `medseg validate --run {run}` first.")
    score = json.loads(path.read_text(encoding="utf-8"))["mean_dice"]
    if score is None:
        raise ConfigError(f"{run} has no mean Dice (no validation case has a label); give --weights as numbers.")
    return float(score)
