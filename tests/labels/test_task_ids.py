"""Task and modality ids: what universal training reads from the label table."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from full_set import FULL_SET

from medseg.errors import DataError
from medseg.labels import LabelSpace

FIXTURES = FULL_SET / "hermes"
MODALITIES = {"ct": 0, "pet": 1, "t1": 2, "t2": 3, "cine": 4}


def published_space() -> LabelSpace:
    """The eleven data sets; labels of one task id share their name, as AMOS CT and MR do."""
    facts = json.loads((FIXTURES / "label_space.json").read_text())
    tables: dict[str, Any] = {}
    names: dict[int, str] = {}
    for dataset, part in facts["datasets"].items():
        for row in part["tasks"]:
            names.setdefault(row["task"], f"{dataset}/{row['name']}")
        tables[dataset] = {
            "labels": {"background": 0, **{names[row["task"]]: row["local"] for row in part["tasks"]}},
            "tasks": {names[row["task"]]: row["task"] for row in part["tasks"]},
            "modalities": MODALITIES,
        }
    return LabelSpace.merge(tables)


@pytest.mark.usefixtures("full_set")
def test_published_space() -> None:
    facts = json.loads((FIXTURES / "label_space.json").read_text())
    space = published_space()
    assert len(space.labels) == facts["tasks_used"] and space.task_ids == tuple(range(facts["tasks_used"]))
    assert list(space.dataset_tasks("amos_mr")) == list(range(4, 17))
    assert space.dataset_tasks("amos_ct")[4] == space.dataset_tasks("amos_mr")[4]
    assert LabelSpace.from_table(space.to_table()) == space


@pytest.mark.usefixtures("full_set")
def test_targets_of_the_original() -> None:
    space = published_space()
    arrays = np.load(FIXTURES / "label_targets.npz")
    facts = json.loads((FIXTURES / "label_targets.json").read_text())
    for dataset, fact in facts.items():
        tasks = space.dataset_tasks(dataset)
        indices = space.encode(arrays[f"{dataset}/label"], dataset)
        assert len(tasks) == fact["classes"]
        assert [*tasks, *[-1] * (23 - len(tasks))] == arrays[f"{dataset}/tgt_idx"].tolist()
        masks = arrays[f"{dataset}/mask"]
        np.testing.assert_array_equal(np.stack([indices == index for index in tasks.values()]), masks[: len(tasks)])
        assert not masks[len(tasks) :].any()
    kinds = {"chaos_t1_in": "t1", "chaos_t1_out": "t1", "chaos_t2": "t2", "mnm": "cine"}
    for fact in facts.values():
        assert all(space.modality_id(kinds.get(name, "ct")) == number for name, number in fact["modality"].items())


def test_dataset_tasks() -> None:
    space = LabelSpace.merge(
        {
            "two": {"labels": {"b": 2, "a": 1}, "tasks": {"a": 9, "b": 4}},
            "one": {"labels": {"c": [1, 2], "a": 5}, "tasks": {"a": 9}},
        }
    )
    assert space.labels == ("c", "b", "a")
    assert space.dataset_tasks("two") == {4: 2, 9: 3}
    assert list(space.dataset_tasks("two")) == [4, 9]
    assert space.dataset_tasks("one") == {0: 1, 9: 3}


def test_modalities() -> None:
    table = {"labels": {"a": 1}, "modalities": {"ct": 0, "mr": 2}}
    space = LabelSpace.from_table(table)
    assert [space.modality_id(name) for name in ("ct", "mr", "unknown", "", None)] == [0, 2, -1, -1, -1]
    with pytest.raises(DataError, match="Modality 'ctt' is not in the label table. Did you mean 'ct'"):
        space.modality_id("ctt")
    assert LabelSpace.from_table(space.to_table()) == space
    other = {"labels": {"b": 1}, "modalities": {"ct": 0, "pet": 1}}
    assert LabelSpace.merge({"x": table, "y": other}).modalities == {"ct": 0, "mr": 2, "pet": 1}
    with pytest.raises(DataError, match="'ct' has modality id 0 and, in data set 'y', 3; use one id"):
        LabelSpace.merge({"x": table, "y": {"labels": {"b": 1}, "modalities": {"ct": 3}}})
    with pytest.raises(DataError, match="Modality id 0 is used by both 'ct' and 'pet'"):
        LabelSpace.merge({"x": table, "y": {"labels": {"b": 1}, "modalities": {"pet": 0}}})
    with pytest.raises(DataError, match="Modality id of 'ct' is '0'; expected an integer"):
        LabelSpace.from_table({"labels": {"a": 1}, "modalities": {"ct": "0"}})
