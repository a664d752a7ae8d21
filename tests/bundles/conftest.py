"""Tiny synthetic cases for whole bundles: smooth noise with one bright blob per label."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import nibabel
import numpy as np
import pytest


def write_datalist(
    folder: Path,
    *,
    labels: Sequence[str] = ("liver", "spleen"),
    shape: Sequence[int] = (26, 24, 22),
    spacing: Sequence[float] = (1.0, 1.0, 1.0),
    modality: str | Sequence[str] = "CT",
    **entries: object,
) -> Path:
    """Four training cases, one validation and one test case, and their datalist; returns its path.

    Several modalities make a file per channel.
    """
    sections: dict[str, list[dict]] = {"training": [], "validation": [], "test": []}
    affine = np.diag([*spacing, 1.0])
    channels = [modality] if isinstance(modality, str) else list(modality)
    for number, section in enumerate(["training"] * 4 + ["validation", "test"]):
        rng = np.random.default_rng(number)
        label = np.zeros(shape, dtype=np.uint8)
        for value in range(1, len(labels) + 1):
            corner = [int(rng.integers(0, max(1, n - 6))) for n in shape]
            label[tuple(slice(c, c + 6) for c in corner)] = value
        images = [rng.normal(0, 10, shape) + 15.0 * label for _ in channels]
        files = [
            f"images/case_{number}{f'_{i:04}' if i or len(channels) > 1 else ''}.nii.gz" for i in range(len(channels))
        ]
        case: dict = {"image": files if len(files) > 1 else files[0], "label": f"labels/case_{number}.nii.gz"}
        case["case_id"] = f"case_{number}"
        written = zip([*files, case["label"]], [*(i.astype(np.float32) for i in images), label], strict=True)
        for path, values in written:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            nibabel.save(nibabel.Nifti1Image(values, affine), folder / path)
        sections[section].append(case if section != "test" else {k: case[k] for k in ("image", "case_id")})
    table = {
        "name": "tiny",
        "modality": {str(i): name for i, name in enumerate(channels)},
        "labels": {"0": "background"} | {str(i): name for i, name in enumerate(labels, 1)},
        **sections,
        **entries,
    }
    path = folder / "datalist.json"
    path.write_text(json.dumps(table), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def make_datalist(tmp_path_factory) -> Callable[..., Path]:
    """``make_datalist(labels=…, spacing=…) -> datalist.json`` beside its images, made once per argument set."""
    made: dict[str, Path] = {}

    def make(**arguments: object) -> Path:
        key = repr(sorted(arguments.items()))
        if key not in made:
            made[key] = write_datalist(tmp_path_factory.mktemp("cases"), **arguments)
        return made[key]

    return make
