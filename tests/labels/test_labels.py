"""The label space: tables, channels, partial labels, regions, task ids, merging, voxels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medseg.errors import DataError
from medseg.labels import IGNORE, LabelSpace

BRATS = {
    "mode": "sigmoid",
    "labels": {"background": 0, "necrosis": 1, "oedema": 2, "enhancing": [3, 4]},
    "regions": {
        "WT": ["necrosis", "oedema", "enhancing"],
        "TC": ["necrosis", "enhancing"],
        "ET": ["enhancing"],
    },
}
ABDOMEN = {
    "labels": {"background": 0, "liver": 1, "spleen": 2, "kidney": 3},
    "datasets": {"lits": {"labels": {"background": [0, 3], "liver": [1, 2]}, "ignore": [9]}},
    "tasks": {"liver": 7},
}


# ---------------------------------------------------------------------- tables
def test_decathlon_form() -> None:
    space = LabelSpace.from_table({"0": "background", "1": "liver", "2": "tumour"})
    assert space.labels == ("liver", "tumour")
    assert space.channels == ("background", "liver", "tumour")
    assert space.targets == {"liver": (1,), "tumour": (2,)}


def test_values_of_one_name_are_one_label() -> None:
    space = LabelSpace.from_table({"0": "Background", "1": "vessel", "2": "liver", "3": "vessel", "255": "ignore"})
    assert space.labels == ("vessel", "liver")
    assert space.fragments[""].values == {"vessel": (1, 3), "liver": (2,)}
    assert space.fragments[""].ignore == (255,)
    assert space.has_ignore


@pytest.mark.parametrize("table", [{"labels": {"0": "background", "1": "liver"}}, BRATS, ABDOMEN])
def test_tables_survive_a_round_trip(table: dict[str, Any]) -> None:
    space = LabelSpace.from_table(table)
    assert LabelSpace.from_table(space.to_table()) == space


def test_nnunet_regions_and_ignore() -> None:
    space = LabelSpace.from_table(
        {"background": 0, "whole_tumor": [1, 2, 3], "tumor_core": [2, 3], "enhancing": 3, "ignore": 4}
    )
    assert space.mode == "sigmoid"
    assert space.channels == ("whole_tumor", "tumor_core", "enhancing")
    assert space.labels == ("value 1", "value 2", "enhancing")
    assert space.targets == {"whole_tumor": (1, 2, 3), "tumor_core": (2, 3), "enhancing": (3,)}
    assert space.fragments[""].ignore == (4,)
    raw = np.array([[0, 1, 2], [3, 4, 1]])
    assert space.encode(raw).tolist() == [[0, 1, 2], [3, IGNORE, 1]]
    assert space.decode(space.encode(raw)).tolist() == raw.tolist()


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        ({}, r"'labels' is \{\}; expected for example"),
        ({"labels": ["background", "liver"]}, "expected for example"),
        ({"labels": {"0": "background"}}, "declares no label besides the background"),
        ({"background": 0, "liver": "one"}, "Label 'liver' has value 'one'; expected an integer"),
        ({"background": 0, "liver": 1.5}, "Label 'liver' has value 1.5; expected an integer"),
        ({"background": 0, "liver": []}, "Label 'liver' has no raw value"),
        ({"background": 0, "liver": 1, "spleen": 1}, "value 1 is declared for both 'liver' and 'spleen'"),
        ({"0": "bg", "1": "liver"}, "Label value 0 is named 'bg'; expected 'background'. Rename it"),
        ({"0": "background", "1": "$import os"}, "cannot be used"),
        ({"labels": {"liver": 1}, "ignore": 1}, "value 1 is declared for both 'liver' and 'ignore'"),
        ({"labels": {"liver": 1}, "ignore": "x"}, "'ignore' has value 'x'; expected an integer"),
        ({"labels": {"liver": 1}, "mode": "softmx"}, "Label mode 'softmx' is unknown; use 'softmax' or 'sigmoid'"),
        ({"labels": {"liver": 1}, "region": {}}, "Unknown key 'region' in the label table. Did you mean 'regions'?"),
        ({"labels": {"liver": 1}, "regions": {"A": ["livr"]}}, "Region 'A' uses label 'livr', not declared. Did you"),
        ({"labels": {"liver": 1}, "regions": {"A": "lung"}}, "Region 'A' uses label 'lung', not declared. Declared"),
        ({"labels": {"liver": 1}, "regions": {"A": []}}, "Region 'A' is empty; name at least one label"),
        ({"labels": {"liver": 1}, "regions": ["A"]}, r"'regions' of the label table is \['A'\]; expected a table"),
        ({"labels": {"liver": 1}, "tasks": {"lung": 1}}, "Task 1 names 'lung', not declared"),
        ({"labels": {"liver": 1}, "tasks": {"liver": "one"}}, "Task id of 'liver' is 'one'; expected an integer"),
        ({"labels": {"a": 1, "b": 2}, "tasks": {"a": 3, "b": 3}}, "Task id 3 is used by both 'a' and 'b'"),
        ({"labels": {"liver": 1}, "datasets": {"x": {}}}, r"'labels' is \{\}; expected for example"),
        (
            {"mode": "sigmoid", "labels": {"a": 1, "b": 2}, "regions": {"W": ["a", "b"]}},
            "Region 'W' cannot be written to a label map: it adds 2 labels",
        ),
    ],
)
def test_bad_tables(table: dict[str, Any], sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        LabelSpace.from_table(table)


# ---------------------------------------------------------------------- channels, partial labels
def test_regions() -> None:
    space = LabelSpace.from_table(BRATS)
    assert space.channels == ("WT", "TC", "ET")
    assert space.num_channels == 3
    softmax = LabelSpace.from_table({**BRATS, "mode": "softmax"})
    assert softmax.channels == ("background", "necrosis", "oedema", "enhancing")
    assert softmax.targets == space.targets == {"WT": (1, 2, 3), "TC": (1, 3), "ET": (3,)}


def test_partial_labels() -> None:
    space = LabelSpace.from_table(ABDOMEN)
    assert space.has_ignore
    assert space.annotated() == space.annotated("unlisted") == (True, True, True)
    assert space.annotated("lits") == (True, False, False)
    assert space.encode(np.array([0, 1, 2, 3, 9]), "lits").tolist() == [0, 1, 1, 0, IGNORE]
    assert space.encode(np.array([0, 1, 2, 3])).tolist() == [0, 1, 2, 3]
    with pytest.raises(DataError, match=r"Label values \{4, 9\} are not declared; declared are \{0, 1, 2, 3\}"):
        space.encode(np.array([0, 4, 9]))


def test_task_ids_are_unique_and_keep_the_given_ones() -> None:
    assert LabelSpace.from_table({"a": 1, "b": 2}).task_ids == (0, 1)
    table = {"labels": {"a": 1, "b": 2, "c": 3}, "tasks": {"a": 1}}
    assert LabelSpace.from_table(table).task_ids == (1, 0, 2)
    assert LabelSpace.from_table(BRATS | {"tasks": {"TC": 0}}).task_ids == (1, 0, 2)


# ---------------------------------------------------------------------- merging
def test_merge() -> None:
    space = LabelSpace.merge(
        {
            "amos": {"labels": {"background": 0, "spleen": 1, "liver": 6}, "tasks": {"liver": 0, "spleen": 2}},
            "lits": {"labels": {"background": 0, "liver": [1, 2], "lesion": 3}, "ignore": [255]},
        }
    )
    assert space.labels == ("liver", "lesion", "spleen")
    assert space.tasks == {"liver": 0, "lesion": 1, "spleen": 2}
    assert space.mode == "sigmoid"
    assert space.channels == space.labels
    assert space.annotated("lits") == (True, True, False)
    assert space.encode(np.array([0, 1, 6]), "amos").tolist() == [0, 3, 1]
    assert space.decode(np.array([0, 1, 3]), "amos").tolist() == [0, 6, 1]
    assert space.decode(np.array([0, 1, 2, 3])).tolist() == [0, 1, 2, 3]
    assert LabelSpace.from_table(space.to_table()) == space
    with pytest.raises(DataError, match="A case names no data set; set its 'dataset' to one of amos, lits"):
        space.encode(np.array([0]))
    with pytest.raises(DataError, match="No label table for data set 'amoss'. Did you mean 'amos'?"):
        space.fragment("amoss")


def test_merge_does_not_depend_on_the_order_where_ids_are_given() -> None:
    one = {"labels": {"a": 1}, "tasks": {"a": 5}}
    two = {"labels": {"b": 1, "a": 2}, "tasks": {"b": 3}}
    assert LabelSpace.merge({"1": one, "2": two}) == LabelSpace.merge({"2": two, "1": one})


@pytest.mark.parametrize(
    ("second", "sentence"),
    [
        ({"labels": {"a": 1}, "tasks": {"a": 4}}, "'a' has task id 3 and, in data set 'two', 4; use one id"),
        ({"labels": {"b": 1}, "tasks": {"b": 3}}, "Task id 3 is used by both 'a' and 'b'; ids must be unique"),
        (
            {"labels": {"a": 1}, "datasets": {"one": {"labels": {"a": 2}}}},
            "Data set 'one' is in two tables; give each its own name",
        ),
    ],
)
def test_merge_refuses_collisions(second: dict[str, Any], sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        LabelSpace.merge({"one": {"labels": {"a": 1}, "tasks": {"a": 3}}, "two": second})


# ---------------------------------------------------------------------- voxels
@st.composite
def _spaces(draw: Any) -> LabelSpace:
    """A space of 1 to 6 labels with distinct raw values, sometimes with ignored ones."""
    number = draw(st.integers(1, 6))
    values = draw(st.lists(st.integers(-300, 300), min_size=number + 2, max_size=number + 2, unique=True))
    labels: dict[str, Any] = {"background": values[0], **{f"label {i}": values[i + 1] for i in range(number)}}
    ignore = values[-1:] if draw(st.booleans()) else []
    return LabelSpace.from_table({"labels": labels, "ignore": ignore})


@settings(max_examples=60, deadline=None)
@given(_spaces(), st.integers(0, 2**32 - 1), st.sampled_from([np.int16, np.int64, np.float32]))
def test_encode_decode_round_trip(space: LabelSpace, seed: int, dtype: Any) -> None:
    raw = np.random.default_rng(seed).choice(sorted(space.fragments[""].declared), (5, 4, 3)).astype(dtype)
    indices = space.encode(raw)
    assert indices.dtype == np.int16
    assert indices.min() >= IGNORE
    assert indices.max() <= len(space.labels)
    np.testing.assert_array_equal(space.decode(indices), raw)
    np.testing.assert_array_equal(space.encode(np.asfortranarray(raw)), indices)


def test_decoded_values_of_labels_that_a_data_set_lacks_collide_with_none() -> None:
    space = LabelSpace.from_table(ABDOMEN)
    values = space.decode(np.arange(4), "lits").tolist()
    assert values[:2] == [0, 1]
    assert not {*values[2:]} & space.fragment("lits").declared
    assert len(set(values)) == 4


def test_encode_of_more_than_one_block_and_of_odd_values() -> None:
    space = LabelSpace.from_table({"background": 0, "a": 1000, "b": -7})
    raw = np.tile(np.array([0, 1000, -7, 0, 0], np.int16), 300_000).reshape(1500, 1000)
    expected = np.tile(np.array([0, 1, 2, 0, 0], np.int16), 300_000).reshape(1500, 1000)
    np.testing.assert_array_equal(space.encode(raw), expected)
    with pytest.raises(DataError, match=r"Label values \{0.5\} are not declared"):
        space.encode(np.array([0, 0.5]))


@st.composite
def _nested(draw: Any) -> tuple[LabelSpace, list[set[int]]]:
    """Labels 1..n, and for each a region with it and some whole earlier regions: nested, each adding one label."""
    number = draw(st.integers(1, 5))
    names = [f"l{i}" for i in range(number)]
    members: list[set[int]] = []
    for i in range(number):
        inner = draw(st.lists(st.sampled_from(range(i)), unique=True)) if i else []
        members.append({i}.union(*(members[j] for j in inner)))
    order = draw(st.permutations(range(number)))
    regions = {f"R{i}": [names[m] for m in sorted(members[i])] for i in order}
    table = {"mode": "sigmoid", "labels": {name: i + 1 for i, name in enumerate(names)}, "regions": regions}
    return LabelSpace.from_table(table), [members[i] for i in order]


@settings(max_examples=60, deadline=None)
@given(_nested(), st.integers(0, 2**32 - 1))
def test_compose_binary_round_trip(made: tuple[LabelSpace, list[set[int]]], seed: int) -> None:
    space, members = made
    indices = np.random.default_rng(seed).integers(0, len(space.labels) + 1, (4, 3, 5)).astype(np.int16)
    maps = space.binary(indices)
    for channel, labels in zip(maps, members, strict=True):
        np.testing.assert_array_equal(channel, np.isin(indices - 1, sorted(labels)))
    np.testing.assert_array_equal(space.compose(maps), indices)


def test_compose_without_regions() -> None:
    space = LabelSpace.from_table({"labels": {"a": 1, "b": 2}, "mode": "sigmoid"})
    maps = np.array([[1, 0, 1], [0, 1, 1]], bool)
    assert space.compose(maps).tolist() == [1, 2, 2]
