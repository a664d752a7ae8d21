"""One tree from its layers, with the origin of every value."""

import pytest

from medseg.bundle.recipe import Layer, Recipe
from medseg.errors import ConfigError

BASE = Layer(
    {"a": {"b": 1, "c": [1, {"d": 2}]}, "e": 3}, "base", "base.yaml", {"a": 1, "a::b": 2, "e": 9}, {"a": "plan"}
)


def over(**changes):
    return Recipe.of(BASE, Layer({key.replace("__", "::"): value for key, value in changes.items()}, "user", "--set"))


def test_a_key_with_colons_replaces_below():
    recipe = over(a__b=5, a__c__1__d=6)
    assert recipe.tree == {"a": {"b": 5, "c": [1, {"d": 6}]}, "e": 3}
    assert str(recipe.origin("a::b")) == "--set"
    assert str(recipe.origin("a::c::0")) == "base.yaml:1, plan"
    assert str(recipe.origin("e")) == "base.yaml:9"


def test_plus_extends_and_tilde_removes():
    recipe = Recipe.of(BASE, Layer({"+a::c": [4], "~e": None, "+a": {"f": 7}}, "overlay", "o.yaml"))
    assert recipe.tree == {"a": {"b": 1, "c": [1, {"d": 2}, 4], "f": 7}}
    assert recipe.origin("e") is None
    assert recipe.origin("a::f").kind == "overlay"


@pytest.mark.parametrize("key", ["a::x::y", "e::f", "~g", "+g", "a::c::7", "+e"])
def test_what_is_not_there_is_neither_patched_nor_extended_nor_removed(key):
    with pytest.raises(ConfigError, match="o.yaml.*check its id|Leave out"):
        Recipe.of(BASE, Layer({key: [1]}, "overlay", "o.yaml"))


def test_a_layer_changes_no_other_recipe():
    first = Recipe.of(BASE)
    first.over(Layer({"a::c::1::d": 9}, "user"))
    assert first.value("a::c::1::d") == 2
    with pytest.raises(ConfigError, match="'a::bb'.*a::b"):
        first.value("a::bb")


def test_lines_of_a_file_are_the_origins(tmp_path):
    (tmp_path / "x.yaml").write_text("a:\n  b: 1\n  c: [1,\n    2]\n")
    recipe = Recipe.of(Layer.read(tmp_path / "x.yaml", "bundle"))
    assert [str(recipe.origin(id_)).rpartition(":")[2] for id_ in ("a::b", "a::c::1")] == ["2", "4"]
