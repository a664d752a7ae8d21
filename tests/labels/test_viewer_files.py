"""Names and colours of labels for viewers."""

import json

from medseg.labels import LabelSpace
from medseg.labels.viewer_files import write_viewer_files


def test_values_names_and_colours(tmp_path):
    space = LabelSpace.from_table({"labels": {"background": 0, "left kidney": 2, 'a "red"  one': 7}})
    names = {path.name for path in write_viewer_files(tmp_path, space, [None, None])}
    assert names == {"labels.txt", "labels.lut", "labels.ctbl", "labels.mitklabel.json"}
    assert (tmp_path / "labels.txt").read_text().splitlines()[1:] == [
        '2 242 142 43 1 1 1 "left kidney"',
        "7 232 71 95 1 1 1 \"a 'red' one\"",
    ]
    assert (tmp_path / "labels.lut").read_text().splitlines()[0] == "2 0.9490 0.5569 0.1686 left kidney"
    assert (tmp_path / "labels.ctbl").read_text().splitlines()[1] == "2 left_kidney 242 142 43 255"
    labels = json.loads((tmp_path / "labels.mitklabel.json").read_text())["groups"][0]["labels"]
    assert labels[1] == {"name": "a 'red' one", "value": 7, "color": [232, 71, 95]}


def test_each_data_set_has_its_values(tmp_path):
    first, second = {"labels": {"background": 0, "liver": 6}}, {"labels": {"background": 0, "spleen": 3}}
    space = LabelSpace.merge({"a": first, "b": second})
    assert len(write_viewer_files(tmp_path, space, ["a", "b"])) == 8
    assert (tmp_path / "labels_a.lut").read_text().split()[::4] == ["6", "liver"]
    assert (tmp_path / "labels_b.lut").read_text().split()[::4] == ["3", "spleen"]
