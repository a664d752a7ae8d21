"""The members of an ensemble: runs, bundles, or files of weights, made ready and joined into one network."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from monai.transforms import Compose
from torch import nn

from medseg.bundle.compose import resolve, start
from medseg.bundle.folder import Bundle
from medseg.bundle.recipe import Recipe
from medseg.data.content import content_hash
from medseg.errors import ConfigError, ModelError
from medseg.inferers import Ensemble, Member
from medseg.metrics import CleanupRules
from medseg.weights import load_weights
from medseg.workflows.checkpoints import weights_of
from medseg.workflows.cleanup import stored_rules
from medseg.workflows.probabilities import TEMPERATURE, stored_temperature
from medseg.workflows.run_limits import check_members, mirrored_axes

__all__ = [
    "Source",
    "common_rules",
    "joined",
    "load_member",
    "load_members",
    "refuse_twice",
    "settings_hash",
    "shared_rules",
    "sources_of",
    "weights_hash",
]

logger = logging.getLogger("medseg")

# Ids of inference.yaml that do not change what the network is given.
_OWN = (
    "_meta_",
    "bundle_root",
    "dataset_dir",
    "json_list",
    "section",
    "output_dir",
    "ckpt_path",
    "network_def",
    "network",
    TEMPERATURE,
)


@dataclass(frozen=True)
class Source:
    """What a member of an ensemble is made from.

    Attributes:
        bundle: run or bundle.
        weights: file of its network's weights.
        recipe: its inference as it was asked for; ``None``: as its configs say.
    """

    bundle: Bundle
    weights: Path
    recipe: Recipe | None = None


def joined(
    own: Member,
    bundle_root: str | Path,
    device: torch.device | str,
    members: Sequence[str | Path] | None = None,
    method: str = "mean",
    weights: Sequence[float] | None = None,
) -> Ensemble:
    """The network of an ensemble, as ``ensemble.yaml`` names it.

    Args:
        own: the network, preprocessing (which begins with ``LoadImaged``) and inferer of the bundle whose config names
            the ensemble; weights are loaded into it.
        bundle_root: its folder.
        device: device of all members.
        members: as of ``sources_of``, with paths relative to ``bundle_root``.
        method, weights: arguments of ``Ensemble``.

    Raises:
        ConfigError, ModelError: as ``sources_of``; the members do not fit together, or weights not their network.
    """
    bundle = Bundle(bundle_root)
    sources = sources_of(bundle, members)
    check_members([bundle, *(source.bundle for source in sources)])
    after_loading = Compose(own.preprocessing.transforms[1:])
    others = iter(load_members([source for source in sources if source.bundle is not bundle], torch.device(device)))
    found = []
    for source in sources:
        if source.bundle is not bundle:
            found.append(next(others))
            continue
        load_weights(own.network, source.weights)
        load = partial(load_weights, own.network, source.weights, again=True)
        temperature = stored_temperature(bundle)
        found.append(Member(own.network, after_loading, own.inferer, own.label_space, str(bundle), load, temperature))
    return Ensemble(found, method, weights)


def sources_of(bundle: Bundle, members: Sequence[str | Path] | None = None) -> list[Source]:
    """The members that ``ensemble.yaml`` of a bundle names.

    Args:
        bundle: the bundle.
        members: folders of runs or bundles, which may differ in architecture, voxel size and patch size, and files of
            weights of this bundle's network; paths are relative to it. Default: all ``models/*.pt``.

    Raises:
        ConfigError: fewer than two members, or one twice.
        ModelError: a member has no weights.
    """
    root = bundle.root
    if members is None:
        members = sorted((root / "models").glob("*.pt"))
        if not members:
            raise ModelError(f"No weights in {root / 'models'}; put the members' state dicts there, or list 'members'.")
    if len(members) < 2:
        raise ConfigError(
            f"An ensemble needs two or more members, got {[str(member) for member in members]}; list them in "
            "'members', or use inference.yaml alone."
        )
    found = []
    for path in (root / member for member in members):
        if path.is_dir():
            found.append(Source(Bundle(path), weights_of(path, "best")))
        else:
            found.append(Source(bundle, weights_of(root, str(path))))
    refuse_twice(found)
    return found


def refuse_twice(sources: Sequence[Source]) -> None:
    """One network twice is not an ensemble, and half of one of three.

    Raises:
        ConfigError: two members have the same weights file.
    """
    count = Counter(source.weights for source in sources)
    for source in sources:
        if count[source.weights] > 1:
            raise ConfigError(
                f"{source.weights} would be joined {count[source.weights]} times; expected each member of an ensemble "
                "once. Name it once, and give it more weight if you want that."
            )


def weights_hash(sources: Sequence[Source]) -> str:
    """SHA-256 of the hashes of all members' weights, which tells whether an ensemble's scores are of these weights."""
    return sha256(" ".join(content_hash(source.weights) for source in sources).encode()).hexdigest()


def settings_hash(sources: Sequence[Source]) -> str:
    """SHA-256 of what all members' networks are given and how, as their inference says now."""
    trees = [(source.recipe or resolve(source.bundle, "infer")).tree for source in sources]
    kept = [{key: value for key, value in tree.items() if key not in _OWN} for tree in trees]
    return sha256(json.dumps(kept, sort_keys=True, default=str).encode()).hexdigest()


def common_rules(bundle_root: str | Path, members: Sequence[str | Path] | None = None) -> CleanupRules:
    """The post-processing that all members have alike, as ``ensemble.yaml`` asks for it; none where it differs.

    Args:
        bundle_root, members: as of ``joined``.
    """
    return shared_rules([source.bundle for source in sources_of(Bundle(bundle_root), members)])


def shared_rules(bundles: Sequence[Bundle]) -> CleanupRules:
    """The post-processing that all have alike; none where it differs."""
    found = [stored_rules(bundle) for bundle in bundles]
    if any(rules != found[0] for rules in found):
        logger.warning("The members' post-processing differs, so none is applied.")
        return {}
    return found[0]


def load_members(
    sources: Sequence[Source], device: torch.device | None = None, *, calibrated: bool = True
) -> list[Member]:
    """The members in order; those of one architecture share its network.

    Args:
        sources: what they are made from.
        device: device of all members (default: as their configs say).
        calibrated: whether each has the temperature that its config holds.

    Raises:
        ModelError: weights do not fit.
    """
    networks: dict[str, nn.Module] = {}
    built = {} if device is None else {"device": device}
    return [load_member(source, networks, built, calibrated=calibrated) for source in sources]


def load_member(
    source: Source, networks: dict[str, nn.Module], built: Mapping[str, Any] | None = None, *, calibrated: bool = True
) -> Member:
    """One member.

    Args:
        source: what it is made from.
        networks: networks of the members before, by their definitions; a new one is added.
        built: ids of the config with objects that exist already.
        calibrated: whether it has the temperature that its config holds.

    Raises:
        ModelError: weights do not fit.
    """
    recipe = source.recipe
    if recipe is None:
        recipe = resolve(source.bundle, "infer")
        mirrored_axes(source.bundle, recipe.tree)
    parser = start(recipe, "infer", built).parser
    network = networks.setdefault(_text(recipe.tree["network_def"]), parser.get_parsed_content("network"))
    load_weights(network, source.weights)
    return Member(
        network,
        Compose(parser.get_parsed_content("preprocessing").transforms[1:]),
        parser.get_parsed_content("inferer"),
        parser.get_parsed_content("label_space"),
        _text({key: value for key, value in recipe.tree.items() if key not in _OWN}),
        partial(load_weights, network, source.weights, again=True),
        stored_temperature(source.bundle) if calibrated else 1.0,
    )


def _text(value: Any) -> str:
    """Equal for equal parts of configs; what tells the preprocessing tells the grid."""
    return json.dumps(value, sort_keys=True, default=str)
