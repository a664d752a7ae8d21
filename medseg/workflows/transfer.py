"""Fine-tuning: a new run that starts from the weights of another run, bundle or checkpoint file."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from medseg.bundle import dump_yaml
from medseg.data import read_datalist
from medseg.data.sampling import replay_weights
from medseg.errors import ConfigError, ModelError
from medseg.labels import LabelSpace
from medseg.networks import create_network
from medseg.networks.layers.task_conditioned import TaskConditioned
from medseg.weights import read_state_dict, save_file, transfer_weights
from medseg.weights.task_rows import rows_by_name
from medseg.workflows.compose import config_files, merged_config
from medseg.workflows.evaluation import weights_of
from medseg.workflows.parts import inside_of
from medseg.workflows.run_folder import differences

__all__ = ["Transfer", "channel_tensors"]

logger = logging.getLogger("medseg")

_OF_DATA = ("spatial_dims", "in_channels", "out_channels", "num_modalities")


class Transfer:
    """What a new run takes over from a source of weights.

    Args:
        source: a run or bundle folder (its best weights), or a file of weights.
        reinitialize: patterns of tensor names that start anew, besides the head where the labels differ and the first
            layers where the channels do.
        partial: take what fits and leave the rest.
        new_tasks_only: of a source that was trained on several data sets, train the rows of tasks that it lacks, and
            nothing else.
        replay: of such a source, share of the drawn cases that are of its data sets.
        distill: of such a source, weight of the loss that holds the answers for its tasks where they were.

    Raises:
        ConfigError: ``replay`` is no share, or ``distill`` not above 0.
        ModelError: there are no weights at the source, or they are damaged.
    """

    def __init__(
        self,
        source: str | Path,
        reinitialize: Sequence[str] = (),
        partial: bool = False,
        new_tasks_only: bool = False,
        replay: float | None = None,
        distill: float | None = None,
    ) -> None:
        if replay is not None and not 0 < replay < 1:
            raise ConfigError(f"--replay: expected a share between 0 and 1, got {replay}.")
        if distill is not None and not distill > 0:
            raise ConfigError(f"--distill: expected a weight above 0, got {distill}.")
        self.source = Path(source).expanduser().resolve()
        self.reinitialize = list(reinitialize)
        self.partial = partial
        self.new_tasks_only = new_tasks_only
        self.replay = replay
        self.distill = distill
        self.config: dict[str, Any] = {}
        if self.source.is_dir():
            self.config = merged_config(config_files(self.source, "train"))
            self.weights = weights_of(self.source, "best")
        else:
            self.weights = self.source
        self.state = read_state_dict(self.weights)

    def network_arguments(self, target: str) -> dict[str, Any]:
        """Overrides that give a network of the same class the source's architecture; the channels stay the data's."""
        definition = self.config.get("network_def", {})
        if not isinstance(definition, Mapping) or definition.get("_target_") != target:
            return {}
        return {f"network_def::{k}": v for k, v in definition.items() if k not in ("_target_", *_OF_DATA)}

    def install(self, bundle: Path) -> dict[str, str]:
        """Copy the weights into a bundle that was just written, and write into its ``initial`` what starts anew.

        Returns:
            Ids of the config that changed -> why.

        Raises:
            ConfigError: the bundle's config has no ``initial``.
            ModelError: the weights do not fit the bundle's network.
        """
        path = bundle / "configs" / "train.yaml"
        config = merged_config([path])
        if "initial" not in config:
            raise ConfigError(
                f"{path} has no id 'initial', so it cannot start from other weights; its network has to be "
                "medseg.workflows.network with the argument initial: '@initial'."
            )
        arguments = {key: value for key, value in config["network_def"].items() if key != "_target_"}
        network = create_network(config["network_def"]["_target_"], **arguments)
        target = bundle / "models" / "initial.pt"
        target.parent.mkdir(exist_ok=True)
        anew = list(self.reinitialize)
        before = dict(config)
        if isinstance(network, TaskConditioned) and "labels" in self.config:
            config |= self._move_rows(network, config, target)
            config |= self._remember(config, bundle)
        else:
            if self.replay is not None or self.distill is not None:
                raise ConfigError("--replay and --distill go on from a run on several data sets; leave them out.")
            anew += self._new_tensors(config)
            shutil.copyfile(self.weights, target)
        transfer_weights(network, target, reinitialize=anew, partial=self.partial)  # a misfit is told now
        config["initial"] = {
            "path": inside_of("bundle_root", "models/initial.pt"),
            "reinitialize": anew,
            "partial": self.partial,
        }
        dump_yaml(config, path, f"Starts from the weights of {self.source.name}.")
        return dict.fromkeys(differences(before, config), f"starts from {self.source.name}")

    def _move_rows(self, network: TaskConditioned, config: Mapping[str, Any], target: Path) -> dict[str, Any]:
        """Write the weights with the rows of tasks and modalities where the new label table has them; what changes in
        the config.
        """
        old, new = (LabelSpace.from_table(content["labels"]) for content in (self.config, config))
        state, lines = rows_by_name(self.state, old, network, new)
        for line in lines:
            logger.info("start from %s: %s", self.source, line)
        save_file(state, target)
        if not self.new_tasks_only:
            return {}
        fresh = [task for name, task in zip(new.labels, new.task_ids, strict=True) if name not in old.labels]
        if not fresh or "new_tasks" not in config:
            raise ConfigError(
                f"--new_tasks_only: {self.source} knows all tasks of the datalist already, or its network was not "
                "planned for several data sets; leave the option out."
            )
        return {"new_tasks": fresh}

    def _remember(self, config: Mapping[str, Any], bundle: Path) -> dict[str, Any]:
        """What changes in the config so that old tasks are not forgotten: weights of cases, loss and inferer."""
        if self.replay is None and self.distill is None:
            return {}
        old, new = (LabelSpace.from_table(content["labels"]) for content in (self.config, config))
        known = [name for name, part in new.fragments.items() if name and set(part.values) <= set(old.labels)]
        changes: dict[str, Any] = {}
        if self.replay is not None:
            listed = read_datalist(bundle / "configs" / "datalist.json", config["dataset_dir"])
            training, _ = listed.split(config["fold"])
            cases = [case.to_dict() for case in training]
            changes["weights"] = replay_weights(cases, config["weights"], known, self.replay)
        if self.distill is not None:
            if not known:
                raise ConfigError(
                    f"--distill: the datalist has no data set whose tasks {self.source} knows; name one there, by its "
                    "labels alone where its images are not at hand."
                )
            inferer = {"_target_": "medseg.engines.DistillingInferer", "network": "@network", "datasets": known}
            inferer |= {"label_space": "@label_space"} | {k: f"@{k}" for k in ("null_tasks",) if k in config}
            changes["train"] = {**config["train"], "inferer": inferer}
            changes["loss"] = {
                "_target_": "medseg.losses.DistilledLoss",
                "loss": config["loss"],
                "weight": self.distill,
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

    Found by building the network a second time with one channel more, on torch's meta device.

    Raises:
        ModelError: the network cannot be built there.
    """
    arguments = {key: value for key, value in network_def.items() if key != "_target_"}
    try:
        with torch.device("meta"):
            here = create_network(network_def["_target_"], **arguments).state_dict()
            there = create_network(
                network_def["_target_"], **arguments | {argument: arguments[argument] + 1}
            ).state_dict()
    except (TypeError, ValueError, RuntimeError, KeyError) as error:
        raise ModelError(
            f"The tensors of {network_def['_target_']} that depend on {argument} cannot be found ({error}); name them "
            "with --reinitialize and use --partial."
        ) from error
    return {k: tuple(value.shape) for k, value in here.items() if k in there and there[k].shape != value.shape}
