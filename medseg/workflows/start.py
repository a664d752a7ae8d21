"""What a training starts with: the cases, read and checked, and the bundle that its run will be, planned or taken."""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from medseg.bundle.build import Section
from medseg.bundle.compile_choice import compile_layer
from medseg.bundle.compose import Workflow, command, user
from medseg.bundle.draft import Draft
from medseg.bundle.folder import INITIAL, Bundle
from medseg.bundle.parts import device_component, inside_of
from medseg.bundle.recipe import Layer
from medseg.bundle.step_memory import free_gpu_bytes
from medseg.data import Case, CaseFacts, Datalist
from medseg.data.fingerprint import DataFingerprint
from medseg.data.plan_grid import CASCADE, SLICES
from medseg.data.run_settings import SET
from medseg.data.union import is_union
from medseg.engines.ranks import world_size
from medseg.engines.run_facts import read_facts
from medseg.errors import ConfigError, DataError
from medseg.networks import checkpointed, network_target
from medseg.settings import File
from medseg.weights.configs import network_of, read_original
from medseg.weights.notice import notice_file
from medseg.workflows.cascade import FirstStage
from medseg.workflows.checks import check_cases
from medseg.workflows.fitted import without_fitted
from medseg.workflows.new_bundle import PlanRequest, given_nnunet, planned_draft
from medseg.workflows.run_folder import trained_on
from medseg.workflows.run_limits import check_training
from medseg.workflows.train_settings import TrainSettings
from medseg.workflows.transfer import Transfer

__all__ = ["NOT_USED", "Start"]

logger = logging.getLogger("medseg")

NOT_USED = "not used: --max_minutes decides when the training ends"  # reason of the number of epochs then
_PLANNED_WITH = ("roi_size", "batch_size", "preprocess::spacing", "preprocess::longest")


@dataclass(frozen=True)
class Start:
    """What a training starts with, decided before anything is written.

    Attributes:
        settings: as they were given.
        datalist: the cases' list.
        training, validation: its cases after the split.
        facts: facts of all of them, checked.
        initial: weights that it starts from; ``None`` from scratch.
        draft: the bundle that the run will be.
        previous: the stage before, of a cascade.
        device: on which it runs.
        gpu_bytes: memory of the GPU that it is planned for; ``None`` on a CPU.
        earlier_images: hashes of the images that the weights it takes have seen.
    """

    settings: TrainSettings
    datalist: Datalist
    training: list[Case]
    validation: list[Case]
    facts: Sequence[CaseFacts]
    initial: Mapping[str, torch.Tensor] | None
    draft: Draft
    device: torch.device
    previous: FirstStage | None = None
    gpu_bytes: int | None = None
    earlier_images: Collection[str] = ()

    @classmethod
    def of(
        cls, settings: TrainSettings, datalist: Datalist, chosen: torch.device, gpu_bytes: int | None = None
    ) -> Start:
        """Read and check the cases, then plan a bundle, or take the one that is named, whose network stands.

        Args:
            settings: as they were given.
            datalist: the cases' list.
            chosen: device on which it runs.
            gpu_bytes: memory of a GPU to plan for; ``None`` is what is free now.

        Raises:
            ConfigError, DataError, ModelError: what is given does not fit together.
        """
        gpu_bytes = (gpu_bytes or free_gpu_bytes()) if chosen.type == "cuda" else None
        request = settings.transfer_request()
        transfer = Transfer(request) if request else None
        fold = None if settings.fold == "all" else settings.fold
        training, validation = datalist.split(fold)
        if not training:
            raise DataError(f"{datalist.path} leaves no training case for fold {fold}; choose another --fold.")
        facts = check_cases(training + validation, datalist, training=training, fold=fold)
        previous = FirstStage.of(settings.previous, datalist, training, validation) if settings.previous else None
        if settings.from_original is not None:
            asked = PlanRequest("", chosen.type, settings.overrides or {}, gpu_bytes=gpu_bytes)
            draft = _original_draft(settings.from_original, asked, datalist, facts, len(training))
        elif settings.network is not None:
            slices = settings.configuration == SLICES and len(facts[0].shape) == 3
            taken = transfer.network_arguments(network_target(settings.network), slices=slices) if transfer else {}
            layer = Layer(taken, "plan", reasons=dict.fromkeys(taken, f"as in {settings.transfer}"))
            nnunet = given_nnunet(settings.nnunet_plans, settings.configuration)
            asked = PlanRequest(
                settings.network,
                chosen.type,
                dict(settings.overrides or {}),
                nnunet,
                layer,
                settings.recipe,
                configuration=settings.configuration,
                gpu_bytes=gpu_bytes,
            )
            draft = planned_draft(asked, datalist, facts, len(training))
        else:
            bundle = Bundle(str(settings.bundle))
            draft = _own_places(Draft.copied(bundle, settings.overlays, datalist)).over(user(settings.overrides))
        draft = draft.over(*_options(settings, datalist, draft, len(training)))
        if "previous" in draft.train.tree and previous is None:
            raise ConfigError(
                f"{settings.bundle} refines the label maps of an earlier run, which its configs do not hold; expected "
                f"--network with --configuration {CASCADE} and --previous. Give these."
            )
        started = draft.train.tree.get("initial")
        if transfer is None and isinstance(started, Mapping) and isinstance(started.get("path"), Mapping):
            raise ConfigError(
                f"{settings.bundle} began with the weights of another training, which its configs do not hold. Name "
                f"them with --transfer {settings.bundle}/{INITIAL}, or begin from scratch with "
                "--set initial::path=null."
            )
        if previous is not None:
            hashes = {f"previous::{key}": value for key, value in previous.hashes.items()}
            draft = draft.over(command(hashes, f"weights and label maps of {previous.run.name}"))
        planned = settings.network is not None and "compile" not in (settings.overrides or {})
        if planned and chosen.type == "cuda" and world_size() == 1:
            draft = draft.over(compile_layer(draft.train.tree, _per_epoch(draft, len(training))))
        check_training(draft.train.tree, facts, datalist)
        draft.check()
        network = Workflow(draft.train.tree, "train").parser.get_parsed_content("network_def")
        if draft.train.tree.get("checkpointing"):
            checkpointed(network)  # one that cannot be is refused before anything is written
        changes, initial = transfer.install(network, draft.train.tree, datalist) if transfer else (command({}), None)
        draft = draft.over(changes)
        sources = [*_source(transfer, draft), *([previous.run] if previous else [])]
        earlier = _earlier_images(sources, training, validation)
        if transfer:
            notice = notice_file("models/model.pt").as_posix()
            draft = replace(draft, texts={**draft.texts, notice: transfer.notice})
        return cls(
            settings, datalist, training, validation, facts, initial, draft, chosen, previous, gpu_bytes, earlier
        )

    @property
    def cases(self) -> list[Case]:
        """All cases of the training."""
        return self.training + self.validation

    @property
    def title(self) -> str:
        """Name of the training in the log."""
        what = self.settings.network or self.settings.bundle or self.settings.from_original
        return f"training of {what} on {self.datalist.name}"


def _source(transfer: Transfer | None, draft: Draft) -> list[Path]:
    """The run of the weights that a training starts from, if it starts from weights and they lie in a run."""
    initial = draft.train.tree.get("initial")
    path = transfer.source if transfer else initial.get("path") if isinstance(initial, Mapping) else None
    if not isinstance(path, (str, Path)):
        return []
    source = Path(path).resolve()
    places = (source,) if source.is_dir() else source.parents[:2]
    return [place for place in places if (place / "run.json").is_file()][:1]


def _earlier_images(sources: Sequence[Path], training: Sequence[Case], validation: Sequence[Case]) -> set[str]:
    """Hashes of the images that the runs from which a training starts have seen; warns of validation cases in them."""
    found: set[str] = set()
    for run in sources:
        facts = read_facts(run)
        files = DataFingerprint.of([*training, *validation]).cases
        seen = trained_on(facts, files)
        found |= facts.seen_images.union(*(files[case][:-1] for case in seen))
        held = [case.id for case in validation if case.id in seen]
        if held:
            logger.warning(
                "the weights of %s, from which this training starts, have seen %d of its %d validation cases, such as "
                "%s: scores on them are optimistically biased. Start from a run that holds them out.",
                run, len(held), len(validation), held[0],
            )  # fmt: skip
    return found


def _original_draft(
    path: File, asked: PlanRequest, datalist: Datalist, facts: Sequence[CaseFacts], cases: int
) -> Draft:
    """The bundle that is planned for an original's config, which names the network; the user's overrides stand above.

    What has no home in the planned config is named in the log.
    """
    config = read_original(path)
    network, arguments = network_of(config)
    given, changes = dict(asked.overrides), dict(config.settings)
    per_epoch = cases / (given.get("batch_size") or changes.get("batch_size") or 1)
    for id_, number in (("epochs", config.iterations), ("val_interval", config.iterations_per_validation)):
        if number is not None:
            changes[id_] = max(1, math.ceil(number / per_epoch))
    planned = {id_: value for id_, value in changes.items() if id_.startswith(_PLANNED_WITH)}
    planned |= {f"network_def::{name}": value for name, value in arguments.items()}
    layer = Layer(planned, "plan", reasons=dict.fromkeys(planned, f"as in {path}"))
    draft = planned_draft(replace(asked, network=network, taken=layer), datalist, facts, cases)
    others = {id_: value for id_, value in changes.items() if id_ not in planned}
    tree = draft.train.tree
    if datalist.label_space.mode != "softmax" or datalist.label_space.has_ignore or is_union(datalist.label_space):
        others.pop("loss", None)  # that of the plan knows regions, ignored voxels and tasks
    homeless = [id_ for id_ in others if id_.partition("::")[0] not in tree or id_ == "loss::modality_weight"]
    kept = {id_: value for id_, value in others.items() if id_ not in homeless}
    names = [*config.homeless, *homeless]
    logger.info("%s: settings without a home here: %s", path, ", ".join(names) or "none")
    return draft.over(Layer(kept, "plan", reasons=dict.fromkeys(kept, f"as in {path}")), user(given))


def _options(settings: TrainSettings, datalist: Datalist, draft: Draft, cases: int) -> list[Layer]:
    """What the command's options say of a config; overrides of the user stay."""
    given = {
        "fold": settings.fold,
        "max_minutes": settings.max_minutes,
        "epochs": settings.epochs if settings.iterations is None else _epochs(settings.iterations, draft, cases),
        "seed": settings.seed or None,
    }
    if settings.device is not None:
        given["device"] = device_component(settings.device)  # type: ignore[assignment]
    always: dict[str, Any] = {"dataset_dir": str(datalist.data_dir.resolve()), "fold": settings.fold}
    always |= {"seed": settings.seed} if settings.bundle is None else {}
    chosen = {key: value for key, value in given.items() if value is not None}
    layers = [command({k: v for k, v in always.items() if k in draft.train.tree and k not in chosen})]
    layers.append(command({k: v for k, v in chosen.items() if k in draft.train.tree}, SET))
    if settings.tracker != "tensorboard":
        layers.append(command({"tracker": settings.tracker}, SET))
    if settings.select is not None:
        layers.append(command({"checkpoint::select": settings.select}, SET))
    if settings.max_minutes is not None and "epochs" in draft.train.tree:
        epochs = chosen.get("epochs") or draft.train.tree["epochs"]
        layers.append(command({"epochs": epochs}, NOT_USED))
    return layers


def _epochs(iterations: int, draft: Draft, cases: int) -> int:
    """The epochs that have a number of iterations, in full epochs; several processes share the cases of each."""
    processes, per_epoch = world_size(), _per_epoch(draft, cases)
    epochs = math.ceil(iterations / per_epoch)
    shared = f" in each of {processes} processes" if processes > 1 else ""
    unit = "epoch" if epochs == 1 else "epochs"
    logger.info("%d iterations, in full epochs: %d %s of %d%s", iterations, epochs, unit, per_epoch, shared)
    return epochs


def _per_epoch(draft: Draft, cases: int) -> int:
    """The iterations of an epoch in each process."""
    share = math.ceil(cases * draft.train.tree.get("repeats", 1) / world_size())
    per_epoch: int = draft.train.tree.get("iterations") or max(1, share // draft.train.tree["batch_size"])
    return per_epoch


def _own_places(draft: Draft) -> Draft:
    """A bundle that is copied into a run: the run's folder is the bundle, its datalist lies in it, and what was fitted
    to other weights goes.
    """
    own = {"bundle_root": ".", "json_list": inside_of("bundle_root", "configs/datalist.json")}
    train: dict[str, Any] = {**own, "output_dir": "@bundle_root", "max_minutes": None}
    recipe = draft.recipe.with_section(Section("train", command(train)))
    if "inference" in recipe.files:
        tree = recipe.config("inference").tree
        cleaned = without_fitted(tree)
        changes = {key: value for key, value in cleaned.items() if value != tree[key]}
        changes |= {f"~{key}": None for key in tree if key not in cleaned}
        recipe = recipe.with_section(Section("inference", command(own | changes)))
    return replace(draft, recipe=recipe)
