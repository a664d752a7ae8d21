"""Colours of labels."""

from medseg.labels import LabelSpace
from medseg.labels.colors import label_colors, space_colors


def test_names_have_the_colour_that_they_speak_of():
    colors = label_colors(["liver", "red nucleus", "White_Matter", "gray matter", "scarred", "left red nucleus"])
    assert colors["red nucleus"] == "#e8475f" and colors["White_Matter"] == "#f4f4f4"
    assert colors["liver"] == "#f28e2b" and colors["scarred"] == "#3d9df2"
    assert len(set(colors.values())) == len(colors)
    many = label_colors([f"organ {i}" for i in range(120)])
    assert len(set(many.values())) == 120


def test_regions_change_no_label():
    labels = {"background": 0, "edema": 1, "core": 2, "enhancing": 3}
    space = LabelSpace.from_table({"labels": labels, "regions": {"red region": ["core"], "whole": ["edema", "core"]}})
    assert list(space_colors(space).items())[:3] == list(label_colors(space.labels).items())
