"""The phantom: equal every time, what its datalist declares, and hard for simple methods."""

import hashlib
import json

import nibabel
import numpy as np
import pytest

from medseg.cli import main
from medseg.data import Case, inspect_cases, read_datalist
from medseg.data.phantom import KINDS, write_phantom
from medseg.errors import ConfigError
from medseg.labels import LabelSpace
from medseg.metrics import case_scores, mean_dice
from medseg.transforms import load

CASES = 8


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory):
    root = tmp_path_factory.mktemp("phantom")
    return {kind: write_phantom(root / kind, kind, CASES) for kind in KINDS}


def digest(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize("kind", KINDS)
def test_deterministic(kind, phantoms, tmp_path):
    """Equal files for an equal seed; more cases leave the first ones as they are; another seed changes all images."""
    once = digest(phantoms[kind].parent)
    again = digest(write_phantom(tmp_path / "again", kind, CASES).parent)
    assert once == again
    other = digest(write_phantom(tmp_path / "other", kind, 2, seed=1).parent)
    assert all(once.get(name) != value for name, value in other.items())


@pytest.mark.parametrize("kind", KINDS)
def test_sound_as_declared(kind, phantoms):
    datalist = read_datalist(phantoms[kind])
    cases = datalist.sections["training"]
    facts = inspect_cases(cases + datalist.sections["test"], datalist.label_space, datalist.channels)
    assert len(cases) == CASES and len(datalist.sections["test"]) == 2
    assert not [problem for case in facts for problem in case.problems]
    declared = datalist.label_space.fragment().declared
    for case in facts[:CASES]:
        assert set(case.label_counts) == declared
        assert min(case.label_counts.values()) > 20
    assert all(len(case.shape) == (2 if kind == "skin" else 3) for case in facts)
    assert {case.channels for case in facts} == {{"organs": 1, "lesions": 3, "skin": 3}[kind]}


@pytest.mark.parametrize("kind", KINDS)
def test_folds_keep_subjects_together(kind, phantoms):
    cases = json.loads(phantoms[kind].read_text())["training"]
    subjects = {}
    for case in cases:
        subjects.setdefault(case["subject"], set()).add(case["fold"])
    assert len(subjects) < len(cases)
    assert all(len(folds) == 1 for folds in subjects.values())
    assert {case["fold"] for case in cases} == set(range(5))


def test_geometry_varies(tmp_path):
    datalist = read_datalist(write_phantom(tmp_path, "organs", 24))
    images = [nibabel.load(case.images[0]) for case in datalist.sections["training"]]
    spacings = np.array([image.header.get_zooms() for image in images])
    assert spacings.std(axis=0).min() > 0.1
    assert len({nibabel.aff2axcodes(image.affine) for image in images}) >= 3
    oblique = [np.count_nonzero(np.abs(image.affine[:3, :3]) > 1e-6) > 3 for image in images]
    assert 0 < sum(oblique) < len(images)
    assert any(max(z) > 1.35 * min(z) for z in spacings)
    assert all(image.get_data_dtype() == np.int16 for image in images)


def test_two_visits_share_anatomy(phantoms):
    cases = json.loads(phantoms["organs"].read_text())["training"]
    volumes = [np.asarray(nibabel.load(phantoms["organs"].parent / case["label"]).dataobj) for case in cases]
    sizes = np.array([[np.count_nonzero(volume == i) for i in range(1, 4)] for volume in volumes], dtype=float)
    assert cases[0]["subject"] == cases[1]["subject"] != cases[2]["subject"]
    assert np.abs(sizes[0] / sizes[1] - 1).mean() < 0.5 * np.abs(sizes[0] / sizes[5] - 1).mean()


def test_intensity_alone_fails(phantoms):
    """Each voxel goes to the label whose mean intensity (all channels, of the training cases) is nearest: below 0.4."""
    for kind in ("organs", "lesions"):
        datalist = read_datalist(phantoms[kind])
        train, validation = datalist.split(0)
        space = datalist.label_space
        pairs = [_arrays(case, space) for case in train]
        means = [
            np.mean([image[:, label == i].mean(axis=1) for image, label in pairs], axis=0)
            for i in range(len(space.labels) + 1)
        ]
        scores = {}
        for case in validation:
            image, label = _arrays(case, space)
            distance = np.stack([((image - mean[:, None, None, None]) ** 2).sum(axis=0) for mean in means])
            scores[case.id] = case_scores(distance.argmin(axis=0), label, space, [1, 1, 1], metrics=())
        assert mean_dice(scores) < 0.4, kind


def test_position_alone_fails(phantoms):
    """The most frequent label of each place in the other cases (after turning and resampling) scores low as well."""
    datalist = read_datalist(phantoms["organs"])
    train, validation = datalist.split(0)
    space = datalist.label_space
    votes = np.zeros((len(space.labels) + 1, 40, 40, 40))
    for case in train:
        label = _arrays(case, space, size=40)[1]
        for index in range(len(votes)):
            votes[index] += label == index
    atlas = votes.argmax(axis=0)
    scores = {
        case.id: case_scores(atlas, _arrays(case, space, size=40)[1], space, [1, 1, 1], metrics=())
        for case in validation
    }
    assert mean_dice(scores) < 0.65


def _arrays(case: Case, space: LabelSpace, size: int | None = None):
    """Image ``(C, *spatial)`` and label indices; ``size``: nearest samples of a RAS cube instead of the own grid."""
    from monai.transforms import Compose, Orientationd

    data = Compose([*load(["image", "label"], space), Orientationd(["image", "label"], "RAS", labels=None)])(
        case.to_dict()
    )
    image, label = data["image"].numpy(), data["label"].numpy()[0]
    if size is None:
        return image, label
    index = np.ix_(*(np.linspace(0, n - 1, size).round().astype(int) for n in label.shape))
    return image[(slice(None), *index)], label[index]


def test_errors(tmp_path):
    with pytest.raises(ConfigError, match="Did you mean 'lesions'"):
        write_phantom(tmp_path, "lesion")
    with pytest.raises(ConfigError, match="at least 2"):
        write_phantom(tmp_path, cases=1)


def test_command(tmp_path, capsys):
    assert main(["phantom", "--output", str(tmp_path), "--kind", "skin", "--cases", "3"]) == 0
    assert (tmp_path / "dataset.json").is_file() and "dataset.json" in capsys.readouterr().out
