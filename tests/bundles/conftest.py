"""Tiny synthetic cases for whole bundles, volumes or pictures: noise with one bright blob per label."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image


def write_datalist(
    folder: Path,
    *,
    labels: Sequence[str] = ("liver", "spleen"),
    shape: Sequence[int] = (26, 24, 22),
    spacing: Sequence[float] = (1.0, 1.0, 1.0),
    modality: str | Sequence[str] = "CT",
    values: Sequence[int] | None = None,
    case: Mapping[str, object] | None = None,
    **entries: object,
) -> Path:
    """Four training cases, one validation and one test case, and their datalist; returns its path.

    A shape of two axes gives colour pictures, several modalities a file per channel. ``values``: of the labels in the
    files, default 1, 2, …; ``case``: further entries of each case.
    """
    common = dict(case or {})
    values = values or range(1, len(labels) + 1)
    suffix = "png" if len(shape) == 2 else "nii.gz"
    channels = [modality] if isinstance(modality, str) else list(modality)
    sections: dict[str, list[dict]] = {"training": [], "validation": [], "test": []}
    affine = np.diag([*spacing, 1.0])
    for number, section in enumerate(["training"] * 4 + ["validation", "test"]):
        rng = np.random.default_rng(number)
        label = np.zeros(shape, dtype=np.uint8)
        for value in values:
            corner = [int(rng.integers(0, max(1, n - 6))) for n in shape]
            label[tuple(slice(c, c + 6) for c in corner)] = value
        stems = [f"case_{number}_{i:04}" for i in range(len(channels))] if len(channels) > 1 else [f"case_{number}"]
        files = [f"images/{stem}.{suffix}" for stem in stems]
        entry: dict = {"image": files if len(files) > 1 else files[0], "label": f"labels/case_{number}.{suffix}"}
        entry |= {"case_id": f"case_{number}", **common}
        images = [rng.normal(0, 10, shape) + 15.0 * np.minimum(label, len(labels)) for _ in channels]
        for path, voxels in zip([*files, entry["label"]], [*images, label], strict=True):
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            if suffix == "png":
                pixels = voxels if voxels is label else np.repeat(100 + voxels[..., None], 3, axis=-1).clip(0, 255)
                Image.fromarray(pixels.astype(np.uint8)).save(folder / path)
            else:
                stored = voxels if voxels is label else voxels.astype(np.float32)
                nibabel.save(nibabel.Nifti1Image(stored, affine), folder / path)
        if section == "test":
            del entry["label"]
        sections[section].append(entry)
    table = {
        "name": "tiny",
        "modality": {str(i): name for i, name in enumerate(channels)},
        "labels": {"0": "background"} | {str(i): name for i, name in zip(values, labels, strict=True)},
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
