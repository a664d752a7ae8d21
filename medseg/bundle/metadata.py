"""``metadata.json`` by the model zoo's schema 20240725, generated from what the config says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import medseg
from medseg.bundle.folder import EARLIER
from medseg.data.datalist import Datalist
from medseg.data.fit import image_channels
from medseg.data.modality import channel_kind
from medseg.data.union import is_union
from medseg.labels import LabelSpace
from medseg.networks import catalog, network_name

__all__ = ["SCHEMA_URL", "data_format", "make_metadata", "output_names", "plain_text"]

SCHEMA_URL = "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json"

_MODALITY = {"ct": "CT", "mr": "MR", "pet": "PET", "rgb": "n/a"}
_FORMAT = {"ct": "hounsfield", "mr": "magnitude", "pet": "magnitude", "rgb": "raw"}


def plain_text(value: Any, otherwise: str) -> str:
    """One line of free text from a datalist; what a MONAI parser would read as an expression is omitted."""
    text = " ".join(str(value or "").split())
    return text[:300] if text and text[0] not in "$@%+" else otherwise


def output_names(space: LabelSpace, out_channels: int) -> list[str]:
    """The names of a network's output channels; of one that is asked for tasks they are by id, and may be unused."""
    if not is_union(space):
        return list(space.channels)
    names = dict(zip(space.task_ids, space.labels, strict=True))
    return [names.get(task, "unused") for task in range(out_channels)]


def data_format(train: Mapping[str, Any], names: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Number, size and names of the channels that a train.yaml's network takes and gives.

    Args:
        train: its content, unresolved.
        names: names of the image's channels; numbered where they are not as many as the network takes.
    """
    network, size = train["network_def"], list(train["roi_size"])
    channels, own = network["in_channels"], image_channels(train)
    given = [name for name in names if not name.startswith(EARLIER)]
    given = given if len(given) == own else [f"channel {number}" for number in range(own)]
    if own != channels:
        given += [f"{EARLIER}{label}" for label in LabelSpace.from_table(train["labels"]).labels]
    inputs = {"num_channels": channels, "spatial_shape": size, "channel_def": _numbered(given)}
    outputs: dict[str, Any] = {"num_channels": network["out_channels"], "spatial_shape": size}
    outputs["channel_def"] = _numbered(output_names(LabelSpace.from_table(train["labels"]), network["out_channels"]))
    return inputs, outputs


def _numbered(names: Sequence[str]) -> dict[str, str]:
    return {str(number): name for number, name in enumerate(names)}


def make_metadata(network: str, train: Mapping[str, Any], datalist: Datalist) -> dict[str, Any]:
    """The metadata of a bundle for a network, its train.yaml and a datalist."""
    kinds = [channel_kind(name) for name in datalist.channels] or ["mr"]
    given, made = data_format(train, datalist.channels or ("image",))
    patches = not str(train["validate"]["inferer"]["_target_"]).endswith("WholeVolume")
    common = {"type": "image", "dtype": "float32", "value_range": [], "is_patch_data": patches}
    inputs = {
        **common,
        **given,
        "format": _FORMAT[kinds[0]] if len(set(kinds)) == 1 else "raw",
        "modality": _MODALITY[kinds[0]] if len(set(kinds)) == 1 else "n/a",
    }
    outputs = {**common, **made, "format": "segmentation"}
    references = [catalog()[network].paper] if network in catalog() else []
    return {
        "schema": SCHEMA_URL,
        "version": "0.1.0",
        "changelog": {"0.1.0": "first version"},
        "monai_version": version("monai"),
        "pytorch_version": version("torch").split("+")[0],
        "numpy_version": version("numpy"),
        "required_packages_version": {
            name: version(name) for name in ("pytorch-ignite", "nibabel", "pyyaml", "fire", "einops")
        }
        | {"medseg": medseg.__version__},
        "name": f"{network} on {datalist.name}",
        "task": f"Segmentation of {', '.join(datalist.label_space.labels)}",
        "description": f"{network_name(train['network_def'])} trained with medseg on {datalist.name}",
        "authors": "medseg developers",
        "copyright": "Copyright (c) medseg developers; Apache-2.0",
        "data_source": plain_text(datalist.table.get("reference"), datalist.name),
        "image_classes": ", ".join(datalist.channels),
        "label_classes": ", ".join(datalist.label_space.labels),
        "pred_classes": ", ".join(made["channel_def"].values()),
        "intended_use": "Research; not for clinical use",
        "references": references,
        "network_data_format": {"inputs": {"image": inputs}, "outputs": {"pred": outputs}},
    }
