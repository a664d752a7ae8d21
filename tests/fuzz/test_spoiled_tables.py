"""Spoiled datalists, label tables and configs: every answer is one of medseg's family, within ten seconds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from mutation import mutations, spoiled_bytes, spoiled_value, survives

from medseg.bundle.compose import parse_assignments
from medseg.bundle.config_check import check_arguments, check_config, check_overrides
from medseg.bundle.folder import Bundle
from medseg.bundle.trust import judged
from medseg.data import read_datalist
from medseg.errors import ConfigError, DataError
from medseg.labels import LabelSpace
from medseg.storage import parse_yaml, read_json, read_yaml

_BUNDLE = Path(__file__).parents[2] / "bundles"
_LIST = {
    "name": "toy",
    "modality": {"0": "T1", "1": "FLAIR"},
    "labels": {"0": "background", "1": "edema", "2": "core"},
    "regions": {"whole": ["edema", "core"], "core": ["core"]},
    "training": [{"image": ["a", "b"], "label": f"{i}", "fold": i, "subject": f"s{i}", "case_id": i} for i in range(3)],
    "validation": [{"image": ["a", "b"], "label": "c", "case_id": "v"}],
    "test": ["t.nii.gz"],
    "known_overlaps": ["s0"],
}
_TABLES = [
    {"0": "background", "1": "liver"},
    {"labels": {"background": 0, "liver": [1, 2], "tumour": 3}, "ignore": [255], "regions": {"all": ["liver"]}},
    {"labels": {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": 3}},
    {"mode": "sigmoid", "tasks": {"a": 3, "b": 1}, "modalities": {"ct": 0}, "datasets": {"x": {"labels": {"a": 1}},
     "y": {"labels": {"b": [2]}, "ignore": 9}}},
]  # fmt: skip


@mutations(250)
def test_datalists(seed: int, tmp_path_factory: Any) -> None:
    path = tmp_path_factory.getbasetemp() / "list.json"
    text = json.dumps(_LIST if seed % 4 == 0 else spoiled_value(_LIST, seed))
    path.write_bytes(spoiled_bytes(text.encode(), seed) if seed % 4 == 0 else text.encode())
    survives(lambda: read_datalist(path).split(1))


@mutations(100)
def test_unions(seed: int, tmp_path_factory: Any) -> None:
    folder = tmp_path_factory.getbasetemp() / "unions"
    folder.mkdir(exist_ok=True)
    (folder / "a.json").write_text(json.dumps(_LIST | {"modality": {"0": "CT"}}), encoding="utf-8")
    part = {
        "json_list": "a.json",
        "channel": 0,
        "fold": 0,
        "weight": 1.5,
        "labels": {"labels": {"edema": 1, "core": 2}},
    }
    content = {"name": "u", "tasks": {"edema": 0}, "modalities": {"ct": 0}, "capacity": 9, "datasets": {"x": part}}
    text = json.dumps(spoiled_value(content, seed))
    (folder / "u.yaml").write_bytes(spoiled_bytes(text.encode(), seed) if seed % 4 == 0 else text.encode())
    survives(lambda: read_datalist(folder / "u.yaml").split())


@mutations(300)
def test_label_tables(seed: int) -> None:
    table = spoiled_value(_TABLES[seed % len(_TABLES)], seed)
    survives(lambda: LabelSpace.from_table(LabelSpace.from_table(table).to_table()))


@pytest.fixture(scope="module")
def config() -> dict[str, Any]:
    return read_yaml(sorted(_BUNDLE.glob("*/configs/inference.yaml"))[0])


@mutations(80)
def test_configs(seed: int, config: dict[str, Any], tmp_path_factory: Any) -> None:
    folder = tmp_path_factory.getbasetemp() / "bundle" / "configs"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "inference.yaml"
    value = spoiled_value(config, seed)
    text = yaml.safe_dump(value, allow_unicode=False) if seed % 2 else json.dumps(value)
    path.write_bytes(spoiled_bytes(text.encode(), seed) if seed % 3 == 0 else text.encode())

    def judge() -> None:
        bundle = Bundle(folder.parent)
        recipe = bundle.recipe("infer")
        check_overrides(recipe.tree, {"roi_size": [32, 32, 32], "overlap": 0.5}, path.name)
        check_config(recipe.tree, path.name)
        check_arguments(judged(recipe).tree)

    survives(judge)


@mutations(150)
def test_assignments(seed: int) -> None:
    text = spoiled_bytes(b"network_def::channels=[1, {a: 2}, 'x', 1e-3, !!set {b}]", seed).decode("utf-8", "replace")
    survives(lambda: parse_assignments([text]))


def _bomb() -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (_bomb(), r"line \d+: aliases stand for more than"),
        ("a: &a [*a]", "refers to itself"),
        ("a: &a {b: {c: *a}}", "refers to itself"),
        ("[" * 5000, "nested too deeply"),
        ("a: " + "[" * 300 + "]" * 300, "nested"),
        ("a: " + "9" * 5000, "digits|not valid"),
        ("a: " + "9" * 40, "more than 64 bits"),
        ("a: 1\na: 2", "line 2: key 'a' appears twice"),
        ("a: {b: 1, b: 2}", "key 'b' appears twice"),
        ("a: !!python/object/apply:os.system [ls]", "would build Python objects"),
        ("? [a, b]\n: 1", "a key is a list or a mapping"),
        ("a: !!binary aGVsbG8=", "is not plain"),
        ('a: "x\\0y"', "is not text"),
        ("a: *nowhere", "not valid YAML"),
        ("a: !mine 3", "not valid YAML"),
    ],
)
def test_yaml_beyond_the_limits(text: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        parse_yaml(text, "x.yaml")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"[" * 100_000, "nested too deeply|not valid JSON"),
        (b"[" * 300 + b"]" * 300, "nested more than 64 deep"),
        (b"9" * 5000, "too many digits"),
        (b"9" * 30, "more than 64 bits"),
        (b'"\\ud800"', "is not text"),
        (b'{"image": "a\\u0000b"}', "is not text"),
        (b"\xff\xfe{}", "is not UTF-8"),
        (b"", "line 1, column 1: not valid JSON"),
    ],
)
def test_json_beyond_the_limits(content: bytes, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(DataError, match=sentence):
        read_json(tmp_path / "x.json")
