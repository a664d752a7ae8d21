"""Ensembles: several runs, or the folds of one, joined into one prediction; scored where references exist."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Any, Literal

from ignite.engine import Events
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator
from monai.transforms import Compose

from medseg.bundle.compose import load_workflow, merged_config
from medseg.bundle.parts import device as choose_device
from medseg.bundle.parts import device_component
from medseg.data import Case, Datalist, read_datalist
from medseg.data.content import content_hash
from medseg.engines import CaseCost, CaseScores, add_facts
from medseg.engines.run_facts import RunFacts, read_facts, write_facts
from medseg.engines.run_files import read_scores
from medseg.errors import ConfigError, DataError
from medseg.inferers import Ensemble, Member
from medseg.metrics import ScoreDefinition
from medseg.networks.cost import count_parameters
from medseg.settings import File, Folder, Numbers, takes
from medseg.transforms import CleanLabelsd, LogitsToLabelsd, SaveLabelsd, load
from medseg.weights import load_weights
from medseg.workflows.checks import check_cases
from medseg.workflows.cleanup import stored_rules
from medseg.workflows.evaluation import warn_of_background, weights_of
from medseg.workflows.folder_lock import writes_into
from medseg.workflows.folds import fold_runs
from medseg.workflows.run_folder import require_run, require_same_data, trained_on
from medseg.workflows.run_limits import check_channels, check_members, check_scored, mirrored_axes
from medseg.workflows.selection import own_role
from medseg.workflows.stored_list import read_stored_list

__all__ = ["EnsembleSettings", "ensemble", "load_member"]

logger = logging.getLogger("medseg")

# Ids of inference.yaml that do not change what the network is given.
_OWN = ("bundle_root", "dataset_dir", "json_list", "section", "output_dir", "ckpt_path", "network_def", "network")


def load_member(run: str | Path, *, checkpoint: str = "best", device: str | None = None) -> Member:
    """A run's network with its own preprocessing and inferer, weights loaded."""
    folder = require_run(run)
    changes = {"device": device_component(device)} if device is not None else {}
    mirrored_axes(folder, merged_config([folder / "configs" / "inference.yaml"]))
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


@dataclass(frozen=True)
class EnsembleSettings:
    """Which runs are joined, on which cases, and how.

    Attributes:
        runs: run folders; a folder of folds stands for its folds.
        output: folder for predictions and scores.
        method: mean of probabilities, or vote of labels.
        weights: numbers, one per run, or 'dice' for each run's score on its validation cases (default: equal).
        json_list: datalist (default: the first run's).
        data_dir: base directory for relative paths in the datalist (default: its folder).
        section: section of the datalist.
        fold: fold whose validation cases are predicted (default: the first run's).
        checkpoint: best, last, or best_<metric> where it is kept.
        device: cpu, cuda or cuda:N (default: a GPU where there is one).
        postprocess: cleaning by the rules that `medseg postprocess` stored in all runs alike, as in the folds of one
            training.
    """

    runs: Sequence[Folder] = field(metadata={"option": "run"})
    output: Folder
    _: KW_ONLY
    method: Literal["mean", "vote"] = "mean"
    weights: Numbers | Literal["dice"] | None = None
    json_list: File | None = None
    data_dir: Folder | None = None
    section: str = "validation"
    fold: int | None = None
    checkpoint: str = "best"
    device: str | None = None
    postprocess: bool = field(default=True, metadata={"option": "no_postprocess"})


@takes(EnsembleSettings)
@writes_into("output")
def ensemble(s: EnsembleSettings) -> dict[str, Any] | None:
    """Join several runs, or the folds of one, into one prediction; scored where references exist.

    Predicts a section of a datalist; writes ``predictions/`` and, with references,
    ``metrics.json``.

    Returns:
        The scores, or ``None`` where the section has no references.
    """
    output, method, weights, json_list, section, fold = s.output, s.method, s.weights, s.json_list, s.section, s.fold
    folders = [member for run in s.runs for member in fold_runs(run) or [require_run(run)]]
    for folder in folders:
        if "tasks" in merged_config([folder / "configs" / "inference.yaml"]):
            raise ConfigError(
                f"{folder} was trained on several data sets, whose cases are asked for different tasks; `medseg "
                "ensemble` joins runs on one. Predict with each run alone by `medseg infer`."
            )
    if fold is not None and section not in ("training", "validation"):
        raise ConfigError(f"--fold {fold}: section '{section}' has no folds; leave one of --fold and --section out.")
    config = merged_config([folders[0] / "configs" / "train.yaml"])
    check_members(folders)
    datalist, cases = _cases(folders[0], config, s)
    check_channels(folders[0], datalist)
    check_scored(config, check_cases(cases, datalist), datalist)
    for folder in folders if json_list is None else ():
        require_same_data(folder, cases)
    if weights == "dice":
        weights = _validation_dice(folders, s.checkpoint)
    elif isinstance(weights, str):
        raise ConfigError(f"weights '{weights}' is unknown; give numbers, or 'dice'.")
    rules = _common_rules(folders) if s.postprocess else {}
    facts = _facts(folders, cases, datalist, section, rules, own=json_list is None) | {"checkpoint": s.checkpoint}
    if section in ("training", "validation"):
        facts["fold"] = config.get("fold") if fold is None else fold
    members = [load_member(folder, checkpoint=s.checkpoint, device=s.device) for folder in folders]
    network = Ensemble(members, method, weights)
    logger.info("%s of %d members, weights %s", method, len(members), [round(w, 3) for w in network.weights])
    cost = CaseCost()
    facts |= {"ensemble": method, "members": [str(folder) for folder in folders], "member_weights": network.weights}
    result, background = predict_ensemble(network, cases, Path(output), choose_device(s.device), facts, cost)
    warn_of_background(background, len(cases))
    names = dict.fromkeys(type(member.network).__name__ for member in members)
    made = RunFacts(
        network=f"{method} of {len(members)} ({', '.join(names)})",
        parameters=count_parameters(network),
        training_cases=tuple(sorted({c for folder in folders for c in read_facts(folder).training_cases or ()})),
        predictions=len(cases),
        background_predictions=tuple(background),
    )
    write_facts(output, made | cost.facts())
    return result


def predict_ensemble(
    network: Ensemble,
    cases: Sequence[Case],
    output: Path,
    device: Any,
    facts: Mapping[str, Any],
    cost: CaseCost | None = None,
) -> tuple[dict[str, Any] | None, list[str]]:
    """Run the ensemble over cases with MONAI's evaluator; the loader only loads, so scores are in the original image
    space.

    Args:
        network: the ensemble.
        cases: what is predicted, and scored where all of them have labels.
        output: result folder.
        device: of the loaded images.
        facts: of ``metrics.json``; its rules of ``cleanup`` are applied to the label maps.
        cost: measures the cases; a member's preprocessing and way back are in it.

    Returns:
        The scores, ``None`` without references, and the cases whose label map is background throughout.
    """
    space = network.label_space
    unlabelled = [case.id for case in cases if not case.label]
    if 0 < len(unlabelled) < len(cases):
        logger.warning("%d of %d cases have no label, so none is scored.", len(unlabelled), len(cases))
    keys = ["image"] if unlabelled else ["image", "label"]
    output.mkdir(parents=True, exist_ok=True)
    scores = CaseScores(space, surface=True, output_dir=output, facts={"space": "source", **facts})
    evaluator = SupervisedEvaluator(
        device=device,
        val_data_loader=DataLoader(
            Dataset([case.to_dict() for case in cases], Compose(load(keys, space))), batch_size=1
        ),
        network=network,
        postprocessing=Compose(
            [
                LogitsToLabelsd("pred", space, threshold=0.5),
                CleanLabelsd("pred", space, facts.get("cleanup") or {}),
                SaveLabelsd("pred", output / "predictions", space),
            ]
        ),
        key_val_metric=None if unlabelled else {"mean_dice": scores},
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
    if unlabelled:
        return None, background
    written = {case.id: content_hash(output / "predictions" / case.output_name) for case in cases}
    add_facts(output, {"predictions": {"folder": "predictions", "sha256": written}})
    return read_scores(output / "metrics.json"), background


def _cases(run: Path, config: Mapping[str, Any], s: EnsembleSettings) -> tuple[Datalist, list[Case]]:
    if s.json_list is None:
        datalist = read_stored_list(run, s.data_dir or config["dataset_dir"])
    else:
        datalist = read_datalist(s.json_list, s.data_dir)
    cases = datalist.cases(s.section, config.get("fold") if s.fold is None else s.fold)
    if not cases:
        raise DataError(f"{datalist.path} has no case in '{s.section}'; name another with --section.")
    return datalist, cases


def _facts(
    folders: Sequence[Path],
    cases: Sequence[Case],
    datalist: Datalist,
    section: str,
    rules: Mapping[str, Any],
    *,
    own: bool,
) -> dict[str, Any]:
    """What ``metrics.json`` says of the cases, and why their scores may be better than those of new cases."""
    files = {case.id: [content_hash(file) for file in case.files] for case in cases}
    seen = {folder: len(trained_on(read_facts(folder), files)) for folder in folders}
    biases = [
        f"{folder.name} was trained on {number} of these {len(files)} cases: the scores are optimistically biased."
        for folder, number in seen.items()
        if number
    ]
    role = "test" if section not in ("training", "validation") else section
    role = role if own else "external"
    if rules and role == "validation":
        biases.append(
            "The rules of post-processing were chosen on validation cases: scores of cleaned predictions on them are "
            "optimistically biased."
        )
    for text in biases:
        logger.warning("%s", text)
    facts: dict[str, Any] = {"section": section, "role": role, "datalist": str(datalist.path), "biases": biases}
    return facts | {"files_sha256": files} | ({"cleanup": dict(rules)} if rules else {})


def _common_rules(folders: Sequence[Path]) -> dict[str, Any]:
    """The post-processing that all members have alike."""
    found = [stored_rules(folder) for folder in folders]
    if any(found) and any(rules != found[0] for rules in found):
        logger.warning("The members' post-processing differs, so none is applied.")
        return {}
    return found[0]


def _validation_dice(folders: Sequence[Path], checkpoint: str) -> list[float]:
    """Each run's mean Dice on its validation cases, of the weights that are joined, all by one definition.

    Raises:
        ConfigError: a run has no such score.
    """
    contents = [_scores(folder) for folder in folders]
    first = ScoreDefinition.read(contents[0])
    for folder, content in zip(folders, contents, strict=True):
        again = f"run `medseg validate --run {folder}` first."
        role = content.get("role") or own_role(folder, list(content.get("cases", ())))
        if role != "validation":
            raise ConfigError(f"{folder / 'metrics.json'} has scores of {role} cases, which give no weights; {again}")
        used = content_hash(weights_of(folder, checkpoint))
        if content.get("weights_sha256", used) != used:
            raise ConfigError(
                f"{folder / 'metrics.json'} has the scores of other weights (checkpoint {content.get('checkpoint')}) "
                f"than are joined (checkpoint {checkpoint}); {again}"
            )
        differs = first.differences(ScoreDefinition.read(content), "dice")
        if differs:
            raise ConfigError(
                f"{folders[0]} and {folder} were scored in different ways ({', '.join(differs)}), so their Dice gives "
                "no weights; run `medseg validate` on both with the same options."
            )
        if content["mean_dice"] is None:
            raise ConfigError(f"{folder} has no mean Dice (no validation case has a label); give --weights as numbers.")
    return [float(content["mean_dice"]) for content in contents]


def _scores(run: Path) -> dict[str, Any]:
    path = run / "metrics.json"
    if not path.is_file():
        raise ConfigError(f"{run} has no metrics.json for weights by Dice; run `medseg validate --run {run}` first.")
    return read_scores(path)
