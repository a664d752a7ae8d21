"""A run as the folder of a Hugging Face repository: the bundle, its weights as safetensors, a model card, checksums."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

import numpy as np
import yaml

from medseg.bundle.folder import Bundle
from medseg.bundle.package import SUMS, package, unpack
from medseg.data.content import content_hash
from medseg.engines.run_facts import read_facts
from medseg.errors import ConfigError
from medseg.labels import LabelSpace
from medseg.metrics import Scores
from medseg.networks import network_name
from medseg.settings import Folder, takes
from medseg.storage import write_text
from medseg.weights import read_state_dict
from medseg.weights.notice import read_notice
from medseg.workflows.cite import cite
from medseg.workflows.fetch import address_of

__all__ = ["PublishSettings", "publish"]


@dataclass(frozen=True)
class PublishSettings:
    """What is published.

    Attributes:
        run: run or bundle folder with weights in models/.
        output: new folder for the repository.
        source: place that the folder will have, as `medseg fetch` takes it: OWNER/NAME, or address of the files.
    """

    run: Folder = field(metadata={"positional": "RUN"})
    output: Folder
    source: str | None = None


@takes(PublishSettings)
def publish(settings: PublishSettings) -> str:
    """Write a run as the folder of a Hugging Face repository; nothing is sent.

    It is the bundle as `medseg package` packs it, with a model card, the weights as safetensors and SHA256SUMS. With
    --source it also has large_files.yml: the folder without models/ is then what MONAI's model zoo takes.

    Returns:
        SHA-256 of the checksums, by which `medseg fetch` knows the repository.

    Raises:
        ConfigError: the output exists, the source is not valid, or safetensors is not installed.
        ModelError: as `medseg package`.
    """
    target = Path(settings.output)
    if target.exists():
        raise ConfigError(f"--output {target} exists; expected a new folder. Name another.")
    if find_spec("safetensors") is None:
        raise ConfigError(
            "`medseg publish` needs the package safetensors, which is not installed; install it with "
            "`pip install medseg[safetensors]`."
        )
    from safetensors.torch import save_file

    address = None if settings.source is None else address_of(settings.source)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".partial_") as scratch:
        package(settings.run, output=Path(scratch) / "bundle.zip")
        made = unpack(Path(scratch) / "bundle.zip", output=scratch)
        state = read_state_dict(made / "models" / "model.pt")
        plain = {name: value.clone().contiguous() for name, value in state.items()}  # it refuses shared memory
        save_file(plain, str(made / "models" / "model.safetensors"), metadata={"format": "pt"})
        write_text(made / "README.md", _card(Bundle(settings.run), target.name))
        if address is not None:
            write_text(made / "large_files.yml", _large_files(made, address))
        files = sorted(path for path in made.rglob("*") if path.is_file() and path.name != SUMS)
        lines = [f"{content_hash(path)}  {path.relative_to(made).as_posix()}\n" for path in files]
        write_text(made / SUMS, "".join(lines))
        os.replace(made, target)
    return content_hash(target / SUMS)


def _large_files(folder: Path, address: str) -> str:
    """Where the weights are, in the form of the model zoo, whose repository holds no large files."""
    entries = [
        {
            "path": name,
            "url": f"{address}/{quote(name)}",
            "hash_val": content_hash(folder / name),
            "hash_type": "sha256",
        }
        for name in (path.relative_to(folder).as_posix() for path in sorted((folder / "models").iterdir()))
    ]
    return yaml.safe_dump({"large_files": entries}, sort_keys=False)


def _card(bundle: Bundle, name: str) -> str:
    """The model card, from what the run states of itself."""
    meta, facts, scores = bundle.metadata, read_facts(bundle.root), Scores.found(bundle.root)
    space = LabelSpace.from_table(bundle.trained["labels"])
    head = {
        "library_name": "monai",
        "pipeline_tag": "image-segmentation",
        "license": "other",
        "license_name": "terms-of-the-training-data",
        "license_link": "docs/data_license.txt",
        "tags": ["medical", "monai", "medseg", "segmentation"],
    }
    raw = space.decode(np.arange(len(space.labels) + 1)).tolist()
    rows = [f"| {value} | {label} |" for value, label in zip(raw, ("background", *space.labels))]
    licence = bundle.root / "docs" / "data_license.txt"
    trained = [
        f"- {title}: {value}"
        for title, value in (
            ("network", facts.network or network_name(bundle.trained["network_def"])),
            ("parameters", f"{facts.parameters:,}" if facts.parameters else None),
            ("training cases", len(facts.training_cases) if facts.training_cases else None),
            ("validation cases", len(facts.validation_cases) if facts.validation_cases else None),
            ("epochs", facts.epochs_done),
            ("versions", ", ".join(f"{k} {v}" for k, v in (facts.versions or {}).items()) or None),
        )
        if value is not None
    ]
    scored = f"Mean Dice {scores.mean_dice:.4f} on {len(scores.cases)} cases." if scores else "Not validated."
    parts = {
        str(meta.get("name") or name): meta.get("description", ""),
        "Intended use": meta.get("intended_use", "Research; not for clinical use"),
        "Labels": "\n".join(["| value | label |", "|---|---|", *rows]),
        "Input": ", ".join(bundle.channel_names),
        "Training": "\n".join(trained),
        "Training data and licence": licence.read_text(encoding="utf-8").strip()
        if licence.is_file()
        else "Not stated.",
        "First weights": read_notice(bundle.root / "models" / "model.pt").strip(),
        "Scores": scored,
        "Use": f"    medseg infer --bundle {name} --output out image.nii.gz\n\n`models/model.safetensors` holds the "
        "same weights as `models/model.pt`, which MONAI's commands read; `SHA256SUMS` has the checksums.",
        "Citation": "```bibtex\n" + "\n".join(cite(bundle.root)) + "\n```",
    }
    sections = [f"{'##' if i else '#'} {title}\n\n{text}" for i, (title, text) in enumerate(parts.items()) if text]
    return f"---\n{yaml.safe_dump(head, sort_keys=False)}---\n\n" + "\n\n".join(sections) + "\n"
