"""Fine-tuning: a new run that starts from the weights of another run, bundle or checkpoint file."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from medseg.bundle.compose import command
from medseg.bundle.folder import INITIAL, Bundle
from medseg.bundle.recipe import Layer
from medseg.data import Datalist
from medseg.data.sampling import replay_weights
from medseg.errors import ConfigError, ModelError
from medseg.labels import LabelSpace
from medseg.networks import SliceWise, create_network, own_network
from medseg.networks.layers.task_conditioned import TaskConditioned
from medseg.weights import read_state_dict, transfer_state
from medseg.weights.encoder import encoder_state
from medseg.weights.notice import read_notice
from medseg.weights.task_rows import rows_by_name
from medseg.workflows.checkpoints import weights_of

__all__ = ["Transfer", "TransferRequest", "channel_tensors"]

logger = logging.getLogger("medseg")

_OF_DATA = ("spatial_dims", "in_channels", "out_channels", "num_modalities")


@dataclass(frozen=True)
class TransferRequest:
    """What a user asks of a new run that starts from other weights.

    Attributes:
        source: run or bundle folder (its best weights), or file of weights.
        reinitialize: patterns of the names of parameters that start from scratch, besides the head where the labels
            differ and the first layers where the channels do.
        partial: whether weights that do not fit are skipped.
        new_tasks_only: whether only the rows of tasks that a source on several data sets lacks are trained.
        replay: share of the drawn cases that are of the data sets of such a source.
        distill: weight of the loss that holds the answers for the tasks of such a source where they were.
        encoder: whether only the network's encoder starts from the weights.

    Raises:
        ConfigError: ``replay`` is not a share, or ``distill`` is not above 0.
    """

    source: Path
    reinitialize: Sequence[str] = ()
    partial: bool = False
    new_tasks_only: bool = False
    replay: float | None = None
    distill: float | None = None
    encoder: bool = False

    def __post_init__(self) -> None:
        if self.replay is not None and not 0 < self.replay < 1:
            raise ConfigError(f"--replay: expected a share between 0 and 1, got {self.replay}.")
        if self.distill is not None and not self.distill > 0:
            raise ConfigError(f"--distill: expected a weight above 0, got {self.distill}.")


class Transfer:
    """What a new run takes over from a source of weights.

    Raises:
        ModelError: there are no weights at the source, or they are damaged.
    """

    def __init__(self, request: TransferRequest) -> None:
        self.request = request
        self.source = self.weights = request.source
        self.config: dict[str, Any] = {}
        if self.source.is_dir():
            self.weights = weights_of(self.source, "best")
            self.config = Bundle(self.source).recipe("train").tree
        self.state = read_state_dict(self.weights)

    @property
    def notice(self) -> str:
        """What the new run's docs say of the weights that it starts from."""
        trained = own_network(self.config.get("network_def", {})).get("_target_", "") if self.source.is_dir() else ""
        first = f"Starts from the weights of {self.source.name}{f' ({trained})' if trained else ''}.\n"
        own = read_notice(self.source / "models" / "model.pt" if self.source.is_dir() else self.weights)
        return f"{first}\n{own}" if own else first

    def network_arguments(self, target: str, *, slices: bool = False) -> dict[str, Any]:
        """Overrides that give a network of the same class the source's architecture; the channels stay the data's.

        Args:
            target: class of the network.
            slices: whether it is one in 2D for the slices of volumes.

        Raises:
            ConfigError: the source is one for slices, and the network is not, or the other way round.
        """
        definition = self.config.get("network_def", {})
        if not isinstance(definition, Mapping):
            return {}
        own = own_network(definition)
        if definition and slices != (own is not definition):
            raise ConfigError(
                f"--transfer {self.source} is a run {'in 3D' if slices else 'on slices (--configuration 2d)'}; "
                f"expected one {'on slices, as --configuration 2d trains' if slices else 'in 3D'}. Name another "
                "source, or the same configuration."
            )
        if own.get("_target_") != target:
            return {}
        place = "network_def::network" if slices else "network_def"
        return {f"{place}::{k}": v for k, v in own.items() if k not in ("_target_", *_OF_DATA)}

    def install(
        self, network: nn.Module, config: Mapping[str, Any], datalist: Datalist
    ) -> tuple[Layer, Mapping[str, torch.Tensor]]:
        """Fit the weights to a network.

        Args:
            network: network of the new training; its parameters change.
            config: config of the new training, unresolved and judged.
            datalist: that it trains on.

        Returns:
            What changes in the config, and the weights that the training starts from, ``models/initial.pt`` of the run.

        Raises:
            ConfigError: the config has no ``initial``.
            ModelError: the weights do not fit the config's network.
        """
        if "initial" not in config:
            raise ConfigError(
                "The bundle's train.yaml has no id 'initial', so it cannot start from other weights; give its "
                "medseg.workflows.network the argument initial: '@initial'."
            )
        fresh = list(self.request.reinitialize)
        changes: dict[str, Any] = {}
        state = self.state
        if self.request.encoder:
            own = network.network if isinstance(network, SliceWise) else network
            prefix = "" if own is network else "network."
            state, fresh = encoder_state(own, state, str(self.weights), fresh)
            state, fresh = {f"{prefix}{k}": v for k, v in state.items()}, [f"{prefix}{name}" for name in fresh]
        elif isinstance(network, TaskConditioned) and "labels" in self.config:
            state, changes = self._move_rows(network, config)
            changes |= self._remember(config, datalist)
        else:
            if self.request.replay is not None or self.request.distill is not None:
                raise ConfigError("--replay and --distill continue from a run on several data sets; leave them out.")
            fresh += self._new_tensors(config)
        # A misfit is told now.
        transfer_state(network, state, str(self.weights), reinitialize=fresh, partial=self.request.partial)
        initial = {"_target_": "medseg.workflows.inside", "root": "@bundle_root", "name": INITIAL}
        changes["initial"] = {"path": initial, "reinitialize": fresh, "partial": self.request.partial}
        return command(changes, f"starts from {self.source.name}"), state

    def _move_rows(
        self, network: TaskConditioned, config: Mapping[str, Any]
    ) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """The weights with the rows of tasks and modalities where the new label table has them, and what changes in
        the config.
        """
        old, new = (LabelSpace.from_table(content["labels"]) for content in (self.config, config))
        state, lines = rows_by_name(self.state, old, network, new)
        for line in lines:
            logger.info("start from %s: %s", self.source, line)
        if not self.request.new_tasks_only:
            return state, {}
        fresh = [task for name, task in zip(new.labels, new.task_ids, strict=True) if name not in old.labels]
        if not fresh or "new_tasks" not in config:
            raise ConfigError(
                f"--new_tasks_only: {self.source} knows all tasks of the datalist already, or its network was not "
                "planned for several data sets; leave the option out."
            )
        return state, {"new_tasks": fresh}

    def _remember(self, config: Mapping[str, Any], datalist: Datalist) -> dict[str, Any]:
        """What changes in the config so that old tasks are not forgotten: weights of cases, loss and inferer."""
        if self.request.replay is None and self.request.distill is None:
            return {}
        old, new = (LabelSpace.from_table(content["labels"]) for content in (self.config, config))
        known = [name for name, part in new.fragments.items() if name and set(part.values) <= set(old.labels)]
        changes: dict[str, Any] = {}
        if self.request.replay is not None:
            training, _ = datalist.split(config["fold"])
            cases = [case.to_dict() for case in training]
            changes["weights"] = replay_weights(cases, config["weights"], known, self.request.replay)
        if self.request.distill is not None:
            if not known:
                raise ConfigError(
                    f"--distill: the datalist has no data set whose tasks {self.source} knows; name one there, by its "
                    "labels alone where its images are not at hand."
                )
            inferer = {"_target_": "medseg.engines.DistillingInferer", "network": "@network", "datasets": known}
            inferer |= {"label_space": "@label_space"} | {k: f"@{k}" for k in ("null_tasks",) if k in config}
            changes["train::inferer"] = inferer
            changes["loss"] = {
                "_target_": "medseg.losses.DistilledLoss",
                "loss": config["loss"],
                "weight": self.request.distill,
            }
        return changes

    def _new_tensors(self, config: Mapping[str, Any]) -> list[str]:
        """Names of the head's tensors where the labels differ, and of those whose shape follows from the channels."""
        definition = dict(config["network_def"])
        shapes = {name: tuple(value.shape) for name, value in self.state.items()}
        if "labels" not in self.config:
            logger.warning("%s does not tell its labels: a head that fits in shape is taken over.", self.source)
        head = channel_tensors(definition, "out_channels")
        new_head = self._labels_differ(config)
        found = [k for k, shape in head.items() if new_head or shapes.get(k, shape) != shape]
        stem = channel_tensors(definition, "in_channels")
        found += [k for k, shape in stem.items() if shapes.get(k, shape) != shape]
        return list(dict.fromkeys(found))

    def _labels_differ(self, config: Mapping[str, Any]) -> bool:
        if "labels" not in self.config:
            return False
        old, new = (LabelSpace.from_table(content["labels"]) for content in (self.config, config))
        return (old.mode, old.channels) != (new.mode, new.channels)


def channel_tensors(network_def: Mapping[str, Any], argument: str) -> dict[str, tuple[int, ...]]:
    """Tensors whose shape follows from ``in_channels`` or ``out_channels`` -> shape: a network's first layers or head.

    Found by building the network a second time with one channel more, on torch's meta device where it can be built
    there (MONAI's SwinUNETR reads numbers while it is built).

    Raises:
        ModelError: the network cannot be built.
    """
    own = own_network(network_def)
    prefix = "" if own is network_def else "network."
    arguments = {key: value for key, value in own.items() if key != "_target_"}
    more = arguments | {argument: arguments[argument] + 1}

    def built(device: str) -> list[dict[str, torch.Tensor]]:
        with torch.device(device):
            return [create_network(own["_target_"], **given).state_dict() for given in (arguments, more)]

    try:
        try:
            here, there = built("meta")
        except RuntimeError:
            here, there = built("cpu")
    except (TypeError, ValueError, RuntimeError, KeyError) as error:
        raise ModelError(
            f"The parameters of {own['_target_']} that depend on {argument} cannot be found ({error}); name "
            "them with --reinitialize and use --partial."
        ) from error
    return {f"{prefix}{k}": tuple(v.shape) for k, v in here.items() if k in there and there[k].shape != v.shape}
