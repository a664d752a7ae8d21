"""What a test at another resolution changes in a run's config, and what is refused."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medseg.data import CaseFacts
from medseg.errors import ConfigError
from medseg.metrics import Summary
from medseg.reports.resolution import (
    Resolution,
    SpaceScores,
    TestedPoint,
    TestedRun,
    resolution_figure,
    resolution_markdown,
    write_resolution,
)
from medseg.workflows.resolution import TrainedGrid, resolution

WHOLE = {"inferer": {"_target_": "medseg.inferers.WholeVolume"}}
WINDOWS = {"inferer": {"_target_": "medseg.inferers.SlidingWindow"}}


def grid(preprocess: dict[str, Any], spacing: tuple[float, ...] = (1.0, 1.0, 1.0), inferer: Any = WHOLE) -> TrainedGrid:
    facts = [
        CaseFacts(
            "a", shape=(8, 8, 8), spacing=spacing, ras_shape=(8, 8, 8), ras_spacing=spacing, channels=1, intensity=[]
        )
    ]
    return TrainedGrid.of("run", {"preprocess": preprocess, "roi_size": [78, 120, 120], "validate": inferer}, facts)


def test_a_whole_volume_keeps_its_field_of_view():
    half = grid({"scale": 0.5, "spacing": [1.0, 1.0, 1.0]})
    assert half.size == 0.5 and half.spacing == 2.0
    assert half.at_size(0.5) == {"preprocess::scale": 0.5, "roi_size": [78, 120, 120]}
    assert half.at_size(0.25) == {"preprocess::scale": 0.25, "roi_size": [39, 60, 60]}
    assert half.at_spacing(1.0) == {
        "preprocess::spacing": [1.0] * 3, "preprocess::scale": 1.0, "roi_size": [156, 240, 240]
    }  # fmt: skip


def test_windows_keep_their_voxels():
    windows = grid({"scale": 1.0, "spacing": [1.0, 1.0, 1.0]}, inferer=WINDOWS)
    assert windows.at_size(0.75) == {"preprocess::scale": 0.75}
    fixed = grid({"spacing": [1.5, 1.5, 1.5], "window": [-175, 250]}, inferer=WINDOWS)
    assert fixed.size == pytest.approx(2 / 3, abs=1e-4)
    np.testing.assert_allclose(fixed.at_size(1.0)["preprocess::spacing"], [1.0] * 3, rtol=1e-3)


def test_sizes_count_from_the_source_grid():
    """Trained at 2 mm of 1 mm, a run is at half the size, whatever its scale says; coarse slices keep their ratio."""
    coarse = grid({"scale": 1.0, "spacing": [2.0, 2.0, 2.0]})
    assert coarse.size == 0.5 and coarse.at_size(1.0)["preprocess::scale"] == 2.0
    slices = grid({"scale": 0.5, "spacing": [0.8, 0.8, 5.0]}, spacing=(0.8, 0.8, 5.0))
    assert slices.size == 0.5 and slices.at_size(0.25)["preprocess::scale"] == 0.25
    stored = grid({"scale": 0.5, "mode": "nearest"})
    assert stored.size == 0.5 and stored.at_size(1.0)["preprocess::scale"] == 1.0
    with pytest.raises(ConfigError, match="use --sizes"):
        stored.at_spacing(1.0)
    with pytest.raises(ConfigError, match="neither preprocess::scale nor preprocess::spacing"):
        grid({"size": 512})


def test_wrong_values_are_refused(tmp_path):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "train.yaml").write_text("a: 1\n")
    for given, sentence in (({}, "either by --sizes"), ({"sizes": [0.5, -1]}, "--sizes: -1 is not a valid size")):
        with pytest.raises(ConfigError, match=sentence):
            resolution([tmp_path], tmp_path / "out", **given)
    with pytest.raises(ConfigError, match="is not a run"):
        resolution([tmp_path / "none"], tmp_path / "out", sizes=[1])


def test_undefined_scores_are_skipped_and_the_training_is_marked(tmp_path: Path):
    def point(value: float, mean: float) -> TestedPoint:
        found = SpaceScores(mean, (math.nan, math.nan), {"a": Summary(mean, 1)})
        return TestedPoint(value, found, found)

    runs = [
        TestedRun("inside", "UNet", 0.5, [point(0.5, 0.8), point(1.0, math.nan)]),
        TestedRun("outside", "UNet", 0.25, [point(0.5, 0.6), point(1.0, 0.4)]),
    ]
    content = Resolution(
        axis="size", values=[0.5, 1.0], cases=["c"], section="validation", postprocessing="raw", labels=["a"],
        warnings=["few"], runs=runs,
    )  # fmt: skip
    text = resolution_markdown(content)
    assert text.startswith("Warning: few") and "| inside  |        0.5 | 0.8000 |      – |" in text
    axes = resolution_figure(content).axes[0]
    rings = [line for line in axes.lines if line.get_markersize() == 11 and len(line.get_xdata())]
    assert [round(float(line.get_xdata()[0]), 2) for line in rings] == [0.5, 0.25]
    assert axes.get_xlim()[0] < 0.25
    assert len(axes.lines[0].get_xdata()) == 1
    write_resolution(content, tmp_path)
    rows = (tmp_path / "resolution.csv").read_text().splitlines()
    assert rows[3] == "inside,0.5,0.5,source,mean,0.8,,,1" and rows[5] == "inside,0.5,1.0,model,mean,,,,1"
