"""How runs do at other resolutions than the one they were trained at.

The cases are resampled to a fraction of the source grid's size, or to a voxel size, images and labels alike, and scored
there; predictions are also brought back to the source grid and scored on it. All cases of a run keep one voxel size, as
in its training: size 0.5 is half the voxels per axis in the median case. At the training size the scores are therefore
those of `medseg validate`. Networks of whole volumes keep their field of view, sliding windows their number of voxels.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from medseg.data import CaseFacts
from medseg.engines.run_facts import read_facts
from medseg.errors import ConfigError, DataError
from medseg.metrics import Scores, Summary
from medseg.metrics.estimate import estimate
from medseg.reports.resolution import Resolution, SpaceScores, TestedPoint, TestedRun, write_resolution
from medseg.reports.tables import digits
from medseg.settings import Folder, takes
from medseg.transforms import scaled_size
from medseg.workflows.checks import check_cases
from medseg.workflows.comparable import run_names
from medseg.workflows.evaluation import EvaluateSettings
from medseg.workflows.run_folder import require_run
from medseg.workflows.validation import evaluate

__all__ = ["ResolutionSettings", "TrainedGrid", "resolution"]

logger = logging.getLogger("medseg")

SPACES: tuple[Literal["model", "source"], ...] = ("model", "source")
_FEW = 10  # cases


@dataclass(frozen=True)
class TrainedGrid:
    """The grid on which a run was trained.

    Attributes:
        name: name of the run, for sentences.
        preprocess: its config entry.
        roi_size: its patch in voxels.
        whole_volume: whether the network sees cases at once.
        voxel: size of a voxel in mm; 1 per axis for 2D images.
        source: median size of a source voxel, in the same unit and order of axes.
    """

    name: str
    preprocess: Mapping[str, Any]
    roi_size: tuple[int, ...]
    whole_volume: bool
    voxel: tuple[float, ...]
    source: tuple[float, ...]

    @classmethod
    def of(cls, name: str, config: Mapping[str, Any], facts: Sequence[CaseFacts]) -> TrainedGrid:
        """Of a run's train.yaml and the cases that it is tested on.

        Raises:
            ConfigError: its preprocessing cannot change the size.
        """
        preprocess = config.get("preprocess")
        if not isinstance(preprocess, Mapping) or not ({"scale", "spacing"} & set(preprocess)):
            raise ConfigError(
                f"{name} has neither preprocess::scale nor preprocess::spacing, so it cannot be tested at other sizes; "
                "train it with --network, or leave it out."
            )
        source = tuple(float(s) for s in np.median([case.ras_spacing for case in facts], axis=0))
        scale = float(preprocess.get("scale") or 1.0)
        spacing = preprocess.get("spacing") or source
        return cls(
            name=name,
            preprocess=preprocess,
            roi_size=tuple(config["roi_size"]),
            whole_volume=str(config["validate"]["inferer"]["_target_"]).endswith("WholeVolume"),
            voxel=tuple(float(s) / scale for s in spacing),
            source=source,
        )

    @property
    def size(self) -> float:
        """Fraction of the source grid's voxels per axis, the geometric mean over axes."""
        ratios = [s / v for s, v in zip(self.source, self.voxel, strict=True)]
        return round(math.prod(ratios) ** (1 / len(ratios)), 4)

    @property
    def spacing(self) -> float:
        """Voxel size in mm, the geometric mean over axes."""
        return round(math.prod(self.voxel) ** (1 / len(self.voxel)), 4)

    def at_size(self, size: float) -> dict[str, Any]:
        """Overrides that test the run at a fraction of the source grid's voxels per axis."""
        factor = size / self.size
        if "scale" in self.preprocess:
            changes: dict[str, Any] = {"preprocess::scale": float(self.preprocess["scale"]) * factor}
        else:
            changes = {"preprocess::spacing": [v / factor for v in self.voxel]}
        return changes | self._window([factor] * len(self.roi_size))

    def at_spacing(self, spacing: float) -> dict[str, Any]:
        """Overrides that test the run at isotropic voxels of so many mm.

        Raises:
            ConfigError: the run's preprocessing has no spacing.
        """
        if self.preprocess.get("spacing") is None:
            raise ConfigError(
                f"{self.name} keeps the source's voxels (preprocess::spacing is null); use --sizes instead."
            )
        changes: dict[str, Any] = {"preprocess::spacing": [float(spacing)] * len(self.voxel)}
        changes |= {"preprocess::scale": 1.0} if "scale" in self.preprocess else {}
        return changes | self._window([v / spacing for v in self.voxel])

    def _window(self, factors: Sequence[float]) -> dict[str, Any]:
        """The field of view of a whole-volume network stays the same in mm."""
        if not self.whole_volume:
            return {}
        return {"roi_size": [scaled_size([n], f)[0] for n, f in zip(self.roi_size, factors, strict=True)]}


@dataclass(frozen=True)
class ResolutionSettings:
    """Which runs are scored at which resolutions.

    Attributes:
        runs: run folders, of any network, on the same cases and labels.
        output: folder for resolution.md, .csv, .json and .png, and a folder per run and resolution.
        sizes: numbers of voxels per axis, as fractions of the source's, such as 0.5 1.
        spacings: isotropic voxel sizes in mm.
        checkpoint: best, last, best_<metric> where it is kept, or a file.
        section: section of the datalist.
        data_dir: folder of the images, where they were moved (default: as in training).
        device: cpu, cuda or cuda:N (default: a GPU where there is one).
    """

    runs: Sequence[Folder] = field(metadata={"option": "run"})
    output: Folder
    _: KW_ONLY
    sizes: Sequence[float] = field(default=(), metadata={"or": "spacings"})
    spacings: Sequence[float] = ()
    checkpoint: str = "best"
    section: str = "validation"
    data_dir: Folder | None = None
    device: str | None = None


@takes(ResolutionSettings)
def resolution(settings: ResolutionSettings) -> Resolution:
    """Score runs at other resolutions than the one they were trained at: table, figure and JSON.

    Writes ``resolution.json``, ``.csv``, ``.md`` and ``.png`` to ``output``, and
    what `medseg validate --no_postprocess` writes to a folder per run and resolution below it. The same call again
    keeps scores that were made from the same weights, settings and files.

    Raises:
        ConfigError: neither or both of sizes and spacings, a value that is not positive, or a run that cannot change.
        DataError: the runs' cases or labels differ.
    """
    sizes, spacings = settings.sizes, settings.spacings
    bundles = [require_run(run) for run in settings.runs]
    folders = [bundle.root for bundle in bundles]
    values = sorted({float(value) for value in sizes or spacings})
    if bool(sizes) == bool(spacings):
        raise ConfigError("Name the resolutions either by --sizes, such as 0.5 1, or by --spacings in mm.")
    if values[0] <= 0 or not all(map(math.isfinite, values)):
        raise ConfigError(
            f"{'--sizes' if sizes else '--spacings'}: {values[0]:g} is not a valid size; give numbers above 0."
        )
    names = run_names(folders)
    cases, facts, seen = _cases(folders, names, settings.data_dir, settings.section)
    grids = [TrainedGrid.of(name, bundle.trained, facts) for name, bundle in zip(names, bundles, strict=True)]
    plans = [[grid.at_size(v) if sizes else grid.at_spacing(v) for v in values] for grid in grids]
    target = Path(settings.output)
    target.mkdir(parents=True, exist_ok=True)
    axis, warnings = "size" if sizes else "spacing", _warnings(names, seen, cases)
    labels: list[str] = []
    runs = []
    for folder, grid, plan in zip(folders, grids, plans, strict=True):
        points = []
        for value, changes in zip(values, plan, strict=True):
            place = target.resolve() / "runs" / grid.name / f"{axis}_{value:g}"
            scores = {space: _scores(folder, place / space, space, changes, settings) for space in SPACES}
            labels = labels or list(scores["source"].labels)
            point = TestedPoint(value, _summary(scores["model"]), _summary(scores["source"]))
            points.append(point)
            logger.info(
                "%s at %s %g: Dice %s there, %s on the source grid",
                grid.name, axis, value, digits(point.model.mean, 4), digits(point.source.mean, 4),
            )  # fmt: skip
        runs.append(TestedRun(grid.name, read_facts(folder).network, grid.size if sizes else grid.spacing, points))
    result = Resolution(
        axis=axis,
        values=values,
        cases=cases,
        section=settings.section,
        postprocessing="raw",
        labels=labels,
        warnings=warnings,
        runs=runs,
    )
    write_resolution(result, target)
    return result


def _cases(
    folders: Sequence[Path],
    names: Sequence[str],
    data_dir: str | Path | None,
    section: str,
) -> tuple[list[str], list[CaseFacts], list[int]]:
    """Ids and facts of the cases, which must be the same for all runs, and how many of them each was trained on."""
    found = [EvaluateSettings(folder, data_dir=data_dir, section=section).selection() for folder in folders]
    ids = [sorted(case.id for case in selection.cases) for selection in found]
    first = found[0].datalist
    for name, other, selection in zip(names[1:], ids[1:], found[1:], strict=True):
        if other != ids[0]:
            raise DataError(f"{names[0]} and {name} are scored on different cases; train both on the same fold.")
        if list(selection.datalist.label_space.targets) != list(first.label_space.targets):
            raise DataError(f"{names[0]} and {name} have different labels; name runs of one label space.")
    return ids[0], check_cases(found[0].cases, first), [selection.seen for selection in found]


def _warnings(names: Sequence[str], seen: Sequence[int], cases: Sequence[str]) -> list[str]:
    found = []
    for name, number in zip(names, seen, strict=True):
        if number:
            found.append(f"{name} was trained on {number} of the {len(cases)} cases: its scores are biased.")
    if len(cases) < _FEW:
        found.append(f"Only {len(cases)} cases: intervals over so few are too narrow.")
    for text in found:
        logger.warning("%s", text)
    return found


def _scores(
    run: Path, place: Path, space: Literal["model", "source"], changes: Mapping[str, Any], settings: ResolutionSettings
) -> Scores:
    """The scores of raw predictions; kept where they were made from the same."""
    overrides = {"validate::key_metric::mean_dice::surface": False} | dict(changes)
    return evaluate(
        run,
        space=space,
        overrides=overrides,
        into=str(place),
        checked=True,
        reuse=True,
        postprocess=False,
        checkpoint=settings.checkpoint,
        section=settings.section,
        data_dir=settings.data_dir,
        device=settings.device,
    )


def _summary(scores: Scores) -> SpaceScores:
    found = estimate(scores).score
    labels = {label: row["dice"] for label, row in scores.labels.items()}
    means = {label: Summary(row.mean, row.cases) for label, row in labels.items()}
    return SpaceScores(found.mean, (found.low, found.high), means)
