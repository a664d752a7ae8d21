"""The members of an ensemble: runs, bundles, or files of weights, made ready and joined into one network."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from monai.transforms import Compose
from torch import nn

from medseg.bundle.compose import command, resolve, start
from medseg.bundle.folder import Bundle
from medseg.bundle.parts import device_component
from medseg.errors import ConfigError, ModelError
from medseg.inferers import Ensemble, Member
from medseg.weights import load_weights
from medseg.workflows.checkpoints import weights_of
from medseg.workflows.run_limits import check_members, mirrored_axes

__all__ = ["joined", "load_members"]

# Ids of inference.yaml that do not change what the network is given.
_OWN = ("bundle_root", "dataset_dir", "json_list", "section", "output_dir", "ckpt_path", "network_def", "network")


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
        device: of all members.
        members: folders of runs or bundles, which may differ in architecture, voxel size and patch size, and files of
            weights of this bundle's network; paths are relative to ``bundle_root``. Default: all ``models/*.pt``.
        method, weights: of ``Ensemble``.

    Raises:
        ConfigError: fewer than two members, or members that do not fit together.
        ModelError: a member has no weights, or they are of another network.
    """
    root = Path(bundle_root).resolve()
    if members is None:
        members = sorted((root / "models").glob("*.pt"))
        if not members:
            raise ModelError(f"No weights in {root / 'models'}; put the members' state dicts there, or list 'members'.")
    if len(members) < 2:
        raise ConfigError(
            f"An ensemble needs two or more members, got {[str(member) for member in members]}; list them in "
            "'members', or use inference.yaml alone."
        )
    paths = [root / member for member in members]
    folders = [path for path in paths if path.is_dir()]
    bundles = [Bundle(folder) for folder in folders]
    check_members([Bundle(root), *bundles])
    files = [(bundle, weights_of(bundle.root, "best")) for bundle in bundles]
    others = iter(load_members(files, str(device)))
    after_loading = Compose(own.preprocessing.transforms[1:])
    found = []
    for path in paths:
        if path.is_dir():
            found.append(next(others))
            continue
        load_weights(own.network, weights_of(root, str(path)))
        load = partial(load_weights, own.network, path, again=True)
        found.append(Member(own.network, after_loading, own.inferer, own.label_space, str(root), load))
    return Ensemble(found, method, weights)


def load_members(members: Sequence[tuple[Bundle, Path]], device: str | None = None) -> list[Member]:
    """Runs or bundles with their files of weights, in order; members of one architecture share its network.

    Raises:
        ModelError: weights do not fit.
    """
    networks: dict[str, nn.Module] = {}
    return [_member(bundle, weights, networks, device) for bundle, weights in members]


def _member(bundle: Bundle, weights: Path, networks: dict[str, nn.Module], device: str | None) -> Member:
    config = bundle.recipe("infer").tree
    mirrored_axes(bundle, config)
    chosen = command({"device": device_component(device)} if device is not None else {})
    parser = start(resolve(bundle, "infer", chosen), "infer").parser
    network = networks.setdefault(_text(config["network_def"]), parser.get_parsed_content("network"))
    load_weights(network, weights)
    return Member(
        network,
        Compose(parser.get_parsed_content("preprocessing").transforms[1:]),
        parser.get_parsed_content("inferer"),
        parser.get_parsed_content("label_space"),
        _text({key: value for key, value in config.items() if key not in _OWN}),
        partial(load_weights, network, weights, again=True),
    )


def _text(value: Any) -> str:
    """Equal for equal parts of configs; what tells the preprocessing tells the grid."""
    return json.dumps(value, sort_keys=True, default=str)
