"""The study of RepUX-Net's tables has their structure, and runs from its file to its page at toy scale."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from medseg.data import write_datalist
from medseg.workflows.study import study
from medseg.workflows.study_file import read_study

STUDY = Path(__file__).parents[2] / "studies" / "repuxnet_tables.yaml"
SAME_KIND = ("data::amos22", "external::lits", "external::tcia_pancreas")
ORGANS = {"background": 0, "liver": 1, "kidney": 2, "spleen": 3, "pancreas": 4}


def toy(folder: Path, labels: dict[str, int], values: list[int], cases: int, folds: int) -> str:
    """Cases of 32³ voxels with a block of each value, brighter from value to value."""
    folder.mkdir(parents=True)
    entries: list[dict[str, Any]] = []
    draw = np.random.default_rng(len(str(folder)))
    for number in range(cases):
        label = np.zeros((32, 32, 32), np.uint8)
        for place, value in enumerate(values):
            start = 2 + 6 * place + int(draw.integers(0, 2))
            label[start : start + 5, 6:26, 6 + number % 3 : 26] = value
        image = (100 * label + draw.normal(0, 10, label.shape)).astype(np.float32)
        for name, array in (("image", image), ("label", label)):
            nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), folder / f"{number}_{name}.nii.gz")
        entry = {"case_id": str(number), "image": f"{number}_image.nii.gz", "label": f"{number}_label.nii.gz"}
        entries.append(entry | ({"fold": number % folds} if folds else {}))
    table = {
        "name": folder.name,
        "modality": {"0": "CT"},
        "labels": {str(value): name for name, value in labels.items()},
    }
    return str(write_datalist({**table, "training": entries}, folder / "list.json"))


@pytest.fixture
def overrides(tmp_path: Path) -> dict[str, Any]:
    flare = toy(tmp_path / "flare", ORGANS, [1, 2, 3, 4], 10, 5)
    amos = toy(tmp_path / "amos", {"background": 0, "spleen": 1, "aorta": 2}, [1, 2], 4, 2)
    external = {
        "msd_spleen": ({"background": 0, "spleen": 1}, [1]),
        "kits": ({"background": 0, "kidney": 1, "tumor": 2, "cyst": 3}, [1, 2]),
        "lits": ({"background": 0, "liver": 1, "tumor": 2}, [1, 2]),
        "tcia_pancreas": ({"background": 0, "pancreas": 1}, [1]),
    }
    changes: dict[str, Any] = {
        "budget": {"iterations": 1},
        "device": "cpu",
        "settings": {"roi_size": [64, 32, 32], "batch_size": 1},
    }
    for name, (labels, values) in external.items():
        changes[f"external::{name}::json_list"] = toy(tmp_path / name, labels, values, 1, 0)
    for name, listed in (("flare21", flare), ("amos22", amos), ("amos22_finetuned", amos)):
        changes |= {f"data::{name}::json_list": listed, f"data::{name}::data_dir": None, f"data::{name}::settings": {}}
    changes["networks::SwinUNETR"] = {"settings": {"network_def::feature_size": 12}}
    return {key: value for key, value in changes.items() if value is not None} | {
        f"~data::{name}::data_dir": None for name in ("flare21", "amos22", "amos22_finetuned")
    }


def test_it_has_the_structure_of_the_tables(overrides: dict[str, Any]) -> None:
    asked = read_study(STUDY, overrides)
    assert len(asked.networks) == 9 and len(asked.external) == 4
    assert [(data.name, list(data.folds), data.transfer) for data in asked.data] == [
        ("flare21", [0, 1, 2, 3, 4], None),
        ("amos22", [0], None),
        ("amos22_finetuned", [0], "flare21"),
    ]


@pytest.mark.slow
def test_it_runs_at_toy_scale(tmp_path: Path, overrides: dict[str, Any]) -> None:
    # One of five folds, one of two data sets from scratch, two of four external sets: the others take some minutes.
    overrides = {
        key: value
        for key, value in overrides.items()
        if not key.lstrip("~").startswith(tuple(f"{name}::" for name in SAME_KIND))
    }
    overrides |= {"data::flare21::folds": [0]} | {f"~{name}": None for name in SAME_KIND}
    result = study(STUDY, output=tmp_path / "studied", jobs=0, overrides=overrides)
    assert not isinstance(result, list)
    assert [one.name for one in result.data] == ["flare21", "amos22_finetuned"]
    assert result.data[0].cases == 2 and result.data[0].folds == 1
    assert all(len(one.methods) == 9 and len(one.differences) == 8 for one in result.data)
    assert [(one.name, one.trainings, len(one.means)) for one in result.external] == [
        ("msd_spleen", 1, 9),
        ("kits", 1, 9),
    ]
    tuned = tmp_path / "studied" / "runs" / "amos22_finetuned" / "UNETR" / "seed0" / "fold0"
    assert (tuned / "models" / "initial.pt").is_file()
    kits = json.loads((tuned.parents[3] / "flare21/UNETR/seed0/fold0/scores/external_kits/metrics.json").read_text())
    assert kits["targets"]["kits"] == {"kidney": [1, 2, 3]}
    table = (tmp_path / "studied" / "study.tex").read_text()
    assert table.count(r"\\") == 10 and r"\toprule" in table
