"""Write a MONAI bundle for (network, datalist, plan): the config of a run, complete and ready to ship."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medseg.bundle.configs import (
    ensemble_config,
    evaluate_config,
    inference_config,
    multi_gpu_config,
    train_config,
)
from medseg.bundle.document import document_bundle
from medseg.bundle.dump import dump_yaml
from medseg.bundle.metadata import make_metadata, plain_text
from medseg.bundle.trust import remember_own
from medseg.bundle.universal import (
    is_universal,
    universal_evaluation,
    universal_inference,
    universal_published,
    universal_train,
)
from medseg.data.datalist import Datalist
from medseg.data.plan import Plan
from medseg.data.run_settings import settings_of
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
    """
    root = Path(directory)
    configs = root / "configs"
    configs.mkdir(parents=True, exist_ok=True)
    (root / "docs").mkdir(exist_ok=True)
    (root / "models").mkdir(exist_ok=True)
    network_def = {"_target_": network_target(network), **arguments}
    remember_own({"network_def::_target_": network_def["_target_"]})  # whoever writes a bundle for it trusts it
    train, evaluate = train_config(network_def, datalist, plan), evaluate_config()
    universal = is_universal(network, datalist)
    reasons = plan.reasons_by_id()
    if universal:
        planned = {setting.id: setting.value for setting in settings_of(train)}
        train, evaluate = universal_train(train, datalist, plan), universal_evaluation(evaluate)
        changed = {s.id for s in settings_of(train) if s.value != planned.get(s.id)}
        reasons = {k: why for k, why in reasons.items() if k not in changed and not k.startswith("augment::")}
        reasons |= {id_: "as published for several data sets together" for id_ in changed}
    train |= dict(settings)
    inference = inference_config(train)
    dump_yaml(train, configs / "train.yaml", f"{network} on {datalist.name}: training and validation.")
    dump_yaml(evaluate, configs / "evaluate.yaml", "Overlay on train.yaml: scores on the source images' own grid.")
    dump_yaml(
        universal_inference(inference) if universal else inference,
        configs / "inference.yaml",
        "Images to label maps on their own grid.",
    )
    if universal:
        dump_yaml(
            universal_published(),
            configs / "evaluate_published.yaml",
            "Overlay on train.yaml and evaluate.yaml: the protocol of Hermes's publication.",
        )
    else:
        dump_yaml(
            ensemble_config(),
            configs / "ensemble.yaml",
            "Overlay on inference.yaml: other bundles, or several weights of this one, joined.",
        )
    dump_yaml(multi_gpu_config(), configs / "multi_gpu_train.yaml", "Overlay on train.yaml for torchrun.")
    datalist.copy_to(configs / "datalist.json")
    metadata = make_metadata(network, train, datalist)
    write_text(configs / "metadata.json", json.dumps(metadata, indent=4) + "\n")
    write_text(root / "LICENSE", _license())
    write_text(root / "docs" / "README.md", _readme(network, datalist))
    write_text(root / "docs" / "data_license.txt", _data_license(datalist))
    document_bundle(root, reasons, datalist.channels)
    return root


def _license() -> str:
    return (Path(__file__).parent / "LICENSE.txt").read_text(encoding="utf-8")


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
