"""``metadata.json`` by the model zoo's schema 20240725, generated from what the config says."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import medseg
from medseg.data.datalist import Datalist
from medseg.data.modality import channel_kind
from medseg.data.plan import Plan
from medseg.data.union import is_union
from medseg.labels import LabelSpace
from medseg.networks import catalog

__all__ = ["SCHEMA_URL", "make_metadata", "output_names", "plain_text"]

SCHEMA_URL = "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json"

_MODALITY = {"ct": "CT", "mr": "MR", "pet": "PET", "rgb": "n/a"}
_FORMAT = {"ct": "hounsfield", "mr": "magnitude", "pet": "magnitude", "rgb": "raw"}


def plain_text(value: Any, otherwise: str) -> str:
    """One line of free text from a datalist; what a MONAI parser would read as an expression is left out."""
    text = " ".join(str(value or "").split())
    return text[:300] if text and text[0] not in "$@%+" else otherwise


def output_names(space: LabelSpace, out_channels: int) -> list[str]:
    """The names of a network's output channels; of one that is asked for tasks they are by id, and may be unused."""
    if not is_union(space):
        return list(space.channels)
    names = dict(zip(space.task_ids, space.labels, strict=True))
    return [names.get(task, "unused") for task in range(out_channels)]


def make_metadata(network: str, network_def: Mapping[str, Any], datalist: Datalist, plan: Plan) -> dict[str, Any]:
    """The metadata of a bundle for (network, datalist, plan)."""
    kinds = [channel_kind(name) for name in datalist.channels] or ["mr"]
    modality = _MODALITY[kinds[0]] if len(set(kinds)) == 1 else "n/a"
    inputs = {
        "type": "image",
        "format": _FORMAT[kinds[0]] if len(set(kinds)) == 1 else "raw",
        "modality": modality,
        "num_channels": plan.in_channels,
        "spatial_shape": list(plan.roi_size),
        "dtype": "float32",
        "value_range": [],
        "is_patch_data": not plan.whole_volume,
        "channel_def": {str(i): name for i, name in enumerate(datalist.channels or ("image",))},
    }
    channels = output_names(datalist.label_space, plan.out_channels)
    outputs = {
        "type": "image",
        "format": "segmentation",
        "num_channels": plan.out_channels,
        "spatial_shape": list(plan.roi_size),
        "dtype": "float32",
        "value_range": [],
        "is_patch_data": not plan.whole_volume,
        "channel_def": {str(i): name for i, name in enumerate(channels)},
    }
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
        "description": f"{network_def['_target_'].rpartition('.')[2]} trained with medseg on {datalist.name}",
        "authors": "medseg developers",
        "copyright": "Copyright (c) medseg developers; Apache-2.0",
        "data_source": plain_text(datalist.table.get("reference"), datalist.name),
        "image_classes": ", ".join(datalist.channels),
        "label_classes": ", ".join(datalist.label_space.labels),
        "pred_classes": ", ".join(channels),
        "intended_use": "Research; not for clinical use",
        "references": references,
        "network_data_format": {"inputs": {"image": inputs}, "outputs": {"pred": outputs}},
    }
