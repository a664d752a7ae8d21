"""Ensembles: several runs, or the folds of one, joined into one prediction; scored where references exist."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from monai.data import ThreadDataLoader
from monai.transforms import Compose

from medseg.bundle.case_parts import case_changes
from medseg.bundle.compose import amended, resolve, start
from medseg.bundle.folder import Bundle
from medseg.bundle.parts import device as choose_device
from medseg.data import Case, CaseDataset, Datalist, ReadCase, read_datalist
from medseg.data.content import content_hash
from medseg.data.datalist_form import DIVIDED
from medseg.engines import CaseCost, CaseEvaluator, CaseScores, run_cases
from medseg.engines.run_facts import RunFacts, read_facts, write_facts
from medseg.errors import CasesFailed, ConfigError, DataError
from medseg.inferers import Ensemble, Member
from medseg.inferers.saved import CASE, SavedMember, holds_probabilities
from medseg.labels import LabelSpace
from medseg.metrics import CleanupRules, ScoredPredictions, ScoreFacts, Scores
from medseg.metrics.empty import EmptyRule
from medseg.networks.cost import count_parameters
from medseg.settings import File, Folder, Numbers, takes
from medseg.transforms import IMAGE_SUFFIXES, CleanLabelsd, LogitsToLabelsd, SaveLabelsd, SaveProbabilitiesd, load
from medseg.transforms.probability_file import files_beside, read_probabilities
from medseg.version import __version__
from medseg.workflows.checkpoints import weights_of
from medseg.workflows.checks import refuse_other_names, refuse_wrong_folder
from medseg.workflows.choices import biases, choices
from medseg.workflows.folder_lock import writes_into
from medseg.workflows.joined_runs import JoinedRuns, joined_runs
from medseg.workflows.members import Source, load_members, refuse_twice, settings_hash, shared_rules, weights_hash
from medseg.workflows.probabilities import ProbabilitySettings, stored_temperature
from medseg.workflows.run_folder import refuse_run_folder, require_run, require_same_data, trained_on
from medseg.workflows.run_limits import check_channels, check_members
from medseg.workflows.selection import Selection, own_role
from medseg.workflows.stored_list import read_stored_list
from medseg.workflows.validation import warn_of_background

__all__ = ["EnsembleSettings", "ensemble"]

logger = logging.getLogger("medseg")


@dataclass(frozen=True)
class EnsembleSettings(ProbabilitySettings):
    """Which runs are joined, on which cases, and how.

    Attributes:
        runs: run folders, or folders of predictions with probabilities. A folder of folds stands for its folds,
            one of `medseg best` for what it chose; a prediction folder has <case>.npz of medseg infer, nnU-Net or
            another program.
        output: folder for predictions and scores.
        method: mean of probabilities, or vote of labels.
        weights: numbers, one per run, or 'dice' for each run's score on its validation cases (default: equal).
        json_list: datalist (default: the first run's). Folders of predictions alone need one.
        data_dir: base directory for relative paths in the datalist (default: its folder).
        section: section of the datalist.
        fold: fold whose validation cases are predicted (default: the first run's).
        checkpoint: best, last, or best_<metric> where it is kept.
        device: cpu, cuda or cuda:N (default: a GPU where there is one).
        empty: rule for empty masks, as of `medseg validate` (default: penalty).
        postprocess: stored post-processing and calibration. Rules of `medseg postprocess` that all have alike, as the
            folds of one training, clean label maps; each member has its temperature of `medseg calibrate`.
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
    empty: str | None = None
    postprocess: bool = field(default=True, metadata={"option": "no_postprocess"})


@takes(EnsembleSettings)
@writes_into("output")
def ensemble(settings: EnsembleSettings) -> Scores | None:
    """Join several runs, or the folds of one, into one prediction; scored where references exist.

    Predicts a section of a datalist; writes ``predictions/`` and, with references,
    ``metrics.json``.

    Returns:
        The scores, or ``None`` where the section has no references.

    Raises:
        ConfigError: fewer than two runs, one twice, runs that do not fit together, or probabilities on the grid of a
            network.
    """
    refuse_run_folder(settings.output)
    given = [joined_runs(run) or JoinedRuns((Path(run),)) for run in settings.runs]
    places = [member for joined in given for member in joined.runs]
    saved = [place.resolve() for place in places if holds_probabilities(place)]
    bundles = [_run_at(place) for place in places if not holds_probabilities(place)]
    folders = [bundle.root for bundle in bundles]
    _refuse(places, bundles, settings)
    _refuse_saved(saved, bundles, settings)
    sources = [Source(bundle, weights_of(bundle.root, settings.checkpoint)) for bundle in bundles]
    refuse_twice(sources)
    config: Mapping[str, Any] = bundles[0].trained if bundles else {}
    selection = _selection(folders[0] if folders else None, config, settings)
    datalist, cases, space = selection.datalist, selection.cases, selection.datalist.label_space
    if bundles:
        check_members(bundles)
        check_channels(bundles[0], datalist)
        space = LabelSpace.from_table(config["labels"])
        refuse_other_names(space, datalist.label_space, "The run")
    refuse_wrong_folder(cases, datalist)
    for folder in folders if settings.json_list is None else ():
        require_same_data(folder, read_facts(folder), cases)
    asked = settings.weights
    weights = _validation_dice(sources, settings.checkpoint) if isinstance(asked, str) else asked
    rules: CleanupRules = {}
    chosen = given[0].rules if len(given) == 1 else None
    if settings.postprocess and bundles:
        rules = shared_rules(bundles) if chosen is None else chosen
    tempered = settings.postprocess and chosen is None  # `medseg best` chose by plain probabilities
    calibrated = tempered and any(stored_temperature(bundle) != 1 for bundle in bundles)
    facts = _facts(folders, selection, cleaned=bool(rules), calibrated=calibrated)
    device = choose_device(settings.device) if settings.device is not None else None
    loaded = iter(load_members(sources, device, calibrated=tempered))
    members: list[Member | SavedMember] = [
        SavedMember(at, space) if holds_probabilities(at) else next(loaded) for at in places
    ]
    network = Ensemble(members, settings.method, weights)
    logger.info("%s of %d members, weights %s", settings.method, len(members), [round(w, 3) for w in network.weights])
    facts = replace(
        facts,
        checkpoint=settings.checkpoint if bundles else None,
        weights_sha256=None if saved else weights_hash(sources),
        settings_sha256=None if saved else settings_hash(sources),
        medseg=__version__,
        ensemble=settings.method,
        members=[str(place.resolve()) for place in places],
        member_weights=network.weights,
        chosen=_chosen(bundles, settings, cleaned=bool(rules), calibrated=calibrated),
    )
    scores = CaseScores(
        network.label_space,
        surface=True,
        output_dir=settings.output,
        facts={"space": "source", "cleanup": rules},
        empty=settings.empty or EmptyRule().text,
    )
    scores.facts = facts
    reader = _reader(bundles[0]) if bundles else _plain_reader(places[0], space, datalist, cases[0])
    evaluator, cost, background = _evaluator(reader, network, cases, settings, scores)
    failed: CasesFailed | None = None
    try:
        run_cases(evaluator, settings.output)
    except CasesFailed as error:
        failed = error
    done = [case for case in cases if case.id not in evaluator.failures]
    warn_of_background(background, len(done))
    networks = [member.network for member in members if isinstance(member, Member)]
    names = dict.fromkeys([type(one).__name__ for one in networks] + ["saved probabilities"] * bool(saved))
    of_each = [read_facts(folder) for folder in folders]
    made = RunFacts(
        network=f"{settings.method} of {len(members)} ({', '.join(names)})",
        parameters=sum(map(count_parameters, networks)),
        training_cases=tuple(sorted({case for one in of_each for case in one.training_cases or ()})),
        earlier_images=tuple(sorted(set().union(*(one.seen_images for one in of_each)))) or None,
        predictions=len(done),
        background_predictions=tuple(background),
    )
    write_facts(settings.output, made | cost.facts())
    if evaluator.state.key_metric_name is not None and done:
        hashes = {case.id: content_hash(Path(settings.output) / "predictions" / case.output_name()) for case in done}
        predictions = ScoredPredictions("predictions", hashes)
        replace(Scores.read(settings.output), asked=len(cases), scored=len(done), predictions=predictions).write(
            settings.output
        )
    if failed is not None:
        raise failed
    return None if evaluator.state.key_metric_name is None else Scores.read(settings.output)


def _evaluator(
    reader: ReadCase, network: Ensemble, cases: Sequence[Case], settings: EnsembleSettings, scores: CaseScores
) -> tuple[CaseEvaluator, CaseCost, list[str]]:
    """The evaluator of an ensemble: the loader only reads, so that scores are in the original image space.

    Args:
        reader: reader of the images that all members take.
        network: the ensemble.
        cases: what is predicted, and scored where all of them have labels.
        settings: result folder, device of the loaded images, and what is saved beside the label maps.
        scores: the metric; its rules of ``cleanup`` are applied to the label maps.

    Returns:
        The evaluator; what measures the cases, a member's preprocessing and way back included; and a list that takes
        the cases whose label map is background throughout.
    """
    space, folder = network.label_space, Path(settings.output) / "predictions"
    unlabelled = [case.id for case in cases if not case.label]
    if 0 < len(unlabelled) < len(cases):
        logger.warning("%d of %d cases have no label, so none is scored.", len(unlabelled), len(cases))
    keys = ["image"] if unlabelled else ["image", "label"]
    folder.parent.mkdir(parents=True, exist_ok=True)
    for case in cases:
        for file in files_beside(folder / case.output_name(), case.id).values():
            file.unlink(missing_ok=True)  # of an earlier call
    transform = Compose([*load(keys, space), _named])
    dataset = CaseDataset([case.to_dict() for case in cases], transform, replace(reader, label=not unlabelled))
    saving = [SaveProbabilitiesd("pred", space, folder, **settings.arguments)] if settings.kinds else []
    evaluator = CaseEvaluator(
        device=choose_device(settings.device),
        val_data_loader=ThreadDataLoader(dataset, batch_size=1),
        network=network,
        postprocessing=Compose(
            [
                *saving,
                LogitsToLabelsd("pred", space, threshold=0.5),
                CleanLabelsd("pred", space, scores.cleanup),
                SaveLabelsd("pred", folder, space),
            ]
        ),
        key_val_metric=None if unlabelled else {"mean_dice": scores},
    )
    cost = CaseCost()
    cost.attach(evaluator)
    background: list[str] = []

    def note(data: Mapping[str, Any]) -> None:
        if not data["pred"].any():
            background.append(str(data["case_id"]))

    evaluator.done = note
    return evaluator, cost, background


def _named(data: dict[Any, Any]) -> dict[Any, Any]:
    """The image knows its case, by which a member finds saved probabilities."""
    data["image"].meta[CASE] = data["case_id"]
    return data


def _reader(first: Bundle) -> ReadCase:
    """That of a run."""
    recipe = resolve(first, "infer")
    recipe = amended(recipe, case_changes(first, recipe.tree, "infer"))
    reader: ReadCase = start(recipe, "infer").parser.get_parsed_content("dataset::reader")
    return reader


def _plain_reader(folder: Path, space: LabelSpace, datalist: Datalist, case: Case) -> ReadCase:
    """Of images that no network takes: as many channels as the datalist says, axes as the saved files have."""
    stored = read_probabilities(folder / f"{case.id}.npz", rows=case.is_picture)
    return ReadCase(space, len(datalist.channels), [1] * (stored.values.ndim - 1), {})


def _run_at(place: Path) -> Bundle:
    """The run in a folder.

    Raises:
        ConfigError: there is none, or the folder holds predictions that cannot be joined.
    """
    if not (place / "configs").is_dir() and any(path.name.endswith(IMAGE_SUFFIXES) for path in place.glob("*")):
        raise ConfigError(
            f"{place} holds label maps without probabilities, which are needed to join predictions; predict again with "
            "`medseg infer --probabilities float16`."
        )
    return require_run(place)


def _refuse(places: Sequence[Path], bundles: Sequence[Bundle], settings: EnsembleSettings) -> None:
    """What no ensemble allows.

    Raises:
        ConfigError: fewer than two members, runs on several data sets, or options that contradict each other.
    """
    if settings.probability_grid != "source":
        raise ConfigError("Members meet in the original image space; leave --probability_grid out.")
    if len(places) < 2:
        raise ConfigError(f"An ensemble needs two or more runs, got {places[0]}; use `medseg infer` for one.")
    for bundle in bundles:
        if "tasks" in bundle.recipe("infer").tree:
            raise ConfigError(
                f"{bundle} was trained on several data sets, whose cases are asked for different tasks; `medseg "
                "ensemble` joins runs on one. Predict with each run alone by `medseg infer`."
            )
    if settings.fold is not None and settings.section not in DIVIDED:
        raise ConfigError(
            f"--fold {settings.fold}: section '{settings.section}' has no folds; leave one of --fold and --section out."
        )
    if isinstance(settings.weights, str) and settings.weights != "dice":
        raise ConfigError(f"weights '{settings.weights}' is unknown; give numbers, or 'dice'.")


def _refuse_saved(saved: Sequence[Path], bundles: Sequence[Bundle], settings: EnsembleSettings) -> None:
    """What folders of predictions do not allow.

    Raises:
        ConfigError: one twice, no list of cases, or weights that only scores of runs give.
    """
    for place in saved:
        if saved.count(place) > 1:
            raise ConfigError(
                f"{place} would be joined {saved.count(place)} times; expected each member of an ensemble once. Name "
                "it once, and give it more weight if you want that."
            )
    if saved and not bundles and settings.json_list is None:
        raise ConfigError("Folders of predictions do not tell their cases; name a datalist with --json_list.")
    if saved and settings.weights == "dice":
        raise ConfigError(f"--weights dice: {saved[0]} has no validation scores; give numbers, one per member.")


def _selection(run: Path | None, config: Mapping[str, Any], settings: EnsembleSettings) -> Selection:
    """The cases that are predicted, and scored where they have labels."""
    section, fold = settings.section, config.get("fold") if settings.fold is None else settings.fold
    if settings.json_list is None and run is not None:
        datalist = read_stored_list(run, settings.data_dir or config["dataset_dir"])
    else:
        assert settings.json_list is not None  # as _refuse_saved says
        datalist = read_datalist(settings.json_list, settings.data_dir)
    cases = datalist.cases(section, fold)
    if not cases:
        raise DataError(f"{datalist.path} has no case in '{section}'; name another with --section.")
    role = "external" if settings.json_list is not None else section if section in DIVIDED else "test"
    return Selection(tuple(cases), datalist, role, section, fold if section in DIVIDED else None)


def _facts(folders: Sequence[Path], selection: Selection, *, cleaned: bool, calibrated: bool) -> ScoreFacts:
    """What the scores are of, and why they may be better than those of new cases."""
    facts = selection.facts()
    seen = [(folder.name, len(trained_on(read_facts(folder), facts.files_sha256 or {}))) for folder in folders]
    own = selection.role == "validation"
    found = biases(seen, len(selection.cases), cleaned=cleaned and own, calibrated=calibrated and own)
    return replace(facts, biases=found)


def _chosen(bundles: Sequence[Bundle], settings: EnsembleSettings, *, cleaned: bool, calibrated: bool) -> list[str]:
    """On which cases the members' checkpoints, rules, temperatures and weights were chosen."""
    of_each = [
        choices(bundle.trained, read_facts(bundle.root), settings.checkpoint, cleaned=cleaned, validation=False)
        for bundle in bundles
    ]
    found = list(dict.fromkeys(text for texts in of_each for text in texts))
    if calibrated:
        found.append("The temperatures of the members were fitted on their own validation cases.")
    if settings.weights == "dice":
        found.append("The weights of the members are their Dice on their own validation cases.")
    return found


def _validation_dice(sources: Sequence[Source], checkpoint: str) -> list[float]:
    """Each run's mean Dice on its validation cases, of the weights that are joined, all by one definition.

    Raises:
        ConfigError: a run has no such score.
    """
    of_each = [_scores(source.bundle.root) for source in sources]
    for source, scores in zip(sources, of_each, strict=True):
        folder = source.bundle.root
        again = f"run `medseg validate --run {folder}` first."
        role = scores.facts.role or own_role(source.bundle, list(scores.cases))
        if role != "validation":
            raise ConfigError(f"{folder / 'metrics.json'} has scores of {role} cases, which give no weights; {again}")
        used = content_hash(source.weights)
        if (scores.facts.weights_sha256 or used) != used:
            raise ConfigError(
                f"{folder / 'metrics.json'} has the scores of other weights (checkpoint {scores.facts.checkpoint}) "
                f"than are joined (checkpoint {checkpoint}); {again}"
            )
        differs = of_each[0].definition.differences(scores.definition)
        if differs:
            raise ConfigError(
                f"{sources[0].bundle} and {folder} were scored in different ways ({', '.join(differs)}), so their Dice "
                "gives no weights; run `medseg validate` on both with the same options."
            )
        if math.isnan(scores.mean_dice):
            raise ConfigError(f"{folder} has no mean Dice (no validation case has a label); give --weights as numbers.")
    return [scores.mean_dice for scores in of_each]


def _scores(run: Path) -> Scores:
    scores = Scores.found(run)
    if scores is None:
        raise ConfigError(f"{run} has no metrics.json for weights by Dice; run `medseg validate --run {run}` first.")
    return scores
