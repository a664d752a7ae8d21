"""Write a MONAI bundle for (network, datalist, plan): the config of a run, complete and ready to ship."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medseg.bundle.document import document_bundle
from medseg.bundle.metadata import make_metadata, plain_text
from medseg.bundle.plan_layer import is_universal, plan_recipe, reasons_of
from medseg.data.datalist import Datalist
from medseg.data.plan import Plan
from medseg.networks import network_target
from medseg.storage import write_text

__all__ = ["write_bundle"]


def write_bundle(
    directory: str | Path,
    network: str,
    arguments: Mapping[str, Any],
    datalist: Datalist,
    plan: Plan,
    settings: Mapping[str, Any],
    overrides: Mapping[str, Any] | None = None,
) -> Path:
    """Write ``configs/``, ``docs/`` and ``LICENSE``; returns the bundle's folder.

    Whoever changes ``configs/train.yaml`` afterwards calls ``document_bundle``.

    Args:
        directory: the bundle's folder.
        network: registered name, MONAI class or dotted path.
        arguments: the network's constructor arguments.
        datalist: copied into ``configs/datalist.json``.
        plan: what the plan chose.
        settings: top-level values that differ from the defaults (``fold``, ``epochs``, ``seed``, ``learning_rate``, …).
        overrides: config id -> value, the user's.
    """
    root = Path(directory)
    configs = root / "configs"
    for name in ("configs", "docs", "models"):
        (root / name).mkdir(parents=True, exist_ok=True)
    recipe = plan_recipe(
        {"_target_": network_target(network), **arguments},
        datalist,
        plan,
        settings,
        universal=is_universal(network, datalist),
        overrides=overrides,
    )
    metadata = make_metadata(network, recipe.config("train").tree, datalist)
    write_text(configs / "metadata.json", json.dumps(metadata, indent=4) + "\n")
    recipe.write(root)
    datalist.copy_to(configs / "datalist.json")
    write_text(root / "docs" / "README.md", _readme(network, datalist))
    write_text(root / "docs" / "data_license.txt", _data_license(datalist))
    document_bundle(root, reasons_of(recipe, plan), datalist.channels)
    return root


def _readme(network: str, datalist: Datalist) -> str:
    return f"""# {network} on {datalist.name}

A MONAI bundle written by medseg. Labels: {", ".join(datalist.label_space.channels)}.

    python -m monai.bundle run --config_file configs/train.yaml --dataset_dir DIR
    python -m monai.bundle run --config_file "['configs/train.yaml','configs/evaluate.yaml']" --dataset_dir DIR
    python -m monai.bundle run --config_file configs/inference.yaml --dataset_dir DIR --output_dir OUT
    python -m monai.bundle run --config_file "['configs/inference.yaml','configs/ensemble.yaml']" --dataset_dir DIR

Run them in this folder.
"""


def _data_license(datalist: Datalist) -> str:
    terms = plain_text(datalist.table.get("licence") or datalist.table.get("license"), "not stated in the datalist")
    source = plain_text(datalist.table.get("reference"), "not stated in the datalist")
    return (
        f"Data: {datalist.name}. Source: {source}. Terms: {terms}.\n\n"
        "The images are not part of this bundle. The terms of their owners hold for whatever is derived from them,\n"
        "weights included; read them before you publish weights that were trained with this bundle.\n"
    )
