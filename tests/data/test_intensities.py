"""What a model was trained on, read from a bundle's preprocessing, and images that it would not recognise."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from medseg.data.intensities import Expected, Intensity

_CT = {"kind": "fixed", "lower": -900.0, "upper": 900.0, "mean": 0, "std": 1}
_PET = {"kind": "fixed", "lower": 0.0, "upper": 20.0, "mean": 0, "std": 1}
_RAMP = np.linspace(0, 1, 8000).reshape(20, 20, 20)


@pytest.mark.parametrize(
    ("preprocess", "names", "modality", "ranges"),
    [
        ({"normalization": [_CT]}, ["CT"], None, [(-900, 900)]),
        ({"normalization": [{"kind": "case"}]}, ["T1", "T2"], None, [None, None]),
        ({"normalization": [_PET, _CT]}, ["PET", "CT"], None, [(0, 20), (-900, 900)]),
        ({"window": [-175, 250]}, ["CT"], None, [(-175, 250)]),
        ({"size": 512, "color": "rgb"}, ["red", "green", "blue"], None, [(0, 255)] * 3),
        ({"color": True, "normalization": [_PET]}, ["RGB"] * 3, None, [(0, 20)] * 3),
        ({"normalization": {"ct": [_CT], "default": [{"kind": "case"}]}}, ["CT or MR"], "ct", [(-900, 900)]),
        ({"normalization": {"ct": [_CT], "default": [{"kind": "case"}]}}, ["CT or MR"], "mr", [None]),
        ({}, ["CT"], None, [None]),
    ],
)
def test_ranges_of_every_recipe(preprocess: Any, names: list[str], modality: str | None, ranges: list[Any]) -> None:
    assert list(Expected.of(preprocess, names, modality).ranges) == ranges


def _said(expected: Expected, *channels: np.ndarray) -> str:
    return " ".join(finding.message for finding in expected.check([Intensity.of(channel) for channel in channels]))


def test_images_of_another_unit_are_named() -> None:
    both = Expected.of({"normalization": [_PET, _CT]}, ["PET", "CT"])
    suv, hu = _RAMP * 15, _RAMP * 2000 - 1000
    assert not _said(both, suv, hu)
    assert not _said(both, suv / 10, hu * 0.5 - 200)  # a faint scan, another field of view
    assert "in channel 0 (PET); the model was trained on about 0…20" in _said(both, suv * 5000, hu)
    assert "in channel 1 (CT); Hounsfield units" in _said(both, suv, hu + 1024)
    photo = Expected.of({"size": 512, "color": "rgb"}, ["red"])
    assert not _said(photo, _RAMP * 255)
    assert "trained on about 0…255" in _said(photo, _RAMP)
    assert "trained on about 0…255" in _said(photo, _RAMP * 65535)


def test_a_model_of_normalised_ct_takes_such_images() -> None:
    unit = Expected.of({"normalization": [_CT | {"lower": 0.0, "upper": 1.0}]}, ["CT"])
    assert not _said(unit, _RAMP)
    assert "trained on about 0…1" in _said(unit, _RAMP * 2000 - 1000)


def test_mr_has_no_range() -> None:
    model = Expected.of({"normalization": [{"kind": "case"}]}, ["T1"])
    assert not _said(model, _RAMP) + _said(model, _RAMP * 65535) + _said(model, _RAMP - 0.5)
