"""The eleven data sets of Hermes: published counts, sampling shares and task ids."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from medseg.bundle.plan_layer import universal_plan
from medseg.data import Datalist, read_datalist
from medseg.data.sampling import case_weights

FOLDER = Path(__file__).parents[2] / "data_json" / "hermes"
# images in training, validation and test; share of the draws: arXiv 2306.02416 and its published lists
PUBLISHED = {
    "amos_ct": (195, 5, 100, 0.399),
    "structseg_head_oar": (39, 1, 10, 0.115),
    "mnm": (286, 14, 340, 0.098),
    "autopet": (705, 21, 235, 0.080),
    "amos_mr": (38, 2, 20, 0.069),
    "brain_structure": (124, 5, 43, 0.056),
    "kits": (159, 9, 42, 0.054),
    "bcv": (23, 1, 6, 0.039),
    "lits": (99, 6, 26, 0.034),
    "structseg_oar": (38, 2, 10, 0.030),
    "chaos": (45, 3, 12, 0.026),
}


@pytest.fixture(scope="module")
def union(tmp_path_factory: pytest.TempPathFactory) -> Datalist:
    root = tmp_path_factory.mktemp("hermes")
    for name in PUBLISHED:
        (root / name).mkdir()
    return read_datalist(FOLDER / "universal.yaml", root)


def test_counts_and_shares(union: Datalist) -> None:
    counts = {key: Counter(case.dataset for case in union.sections[key]) for key in union.sections}
    training = union.sections["training"]
    weights = case_weights([case.to_dict() for case in training], union.table["weights"])
    assert len(training) == 1751
    for name, (train, validation, test, share) in PUBLISHED.items():
        assert [counts[key][name] for key in ("training", "validation", "test")] == [train, validation, test]
        own = sum(weight for case, weight in zip(training, weights, strict=True) if case.dataset == name)
        assert own / sum(weights) == pytest.approx(share, abs=6e-4), name


def test_tasks_are_the_published_ones(union: Datalist) -> None:
    space = union.label_space
    assert sorted(space.task_ids) == list(range(71)) and space.labels[9] == "amos liver"
    assert [*space.dataset_tasks("amos_mr")] == list(range(4, 17)) and [*space.dataset_tasks("chaos")] == [
        38,
        39,
        40,
        41,
    ]
    assert sum(len(space.dataset_tasks(name)) for name in PUBLISHED) == 84  # scores of the published mean
    assert universal_plan(union)["network_def::out_channels"] == 72
    assert universal_plan(union)["network_def::num_modalities"] == 5
    kinds = {case.dataset: set() for case in union.sections["training"]}
    for case in union.sections["training"]:
        kinds[case.dataset].add(case.modality)
    assert kinds["chaos"] == {"t1", "t2"} and kinds["amos_mr"] == {"unknown"} and kinds["autopet"] == {"pet"}
