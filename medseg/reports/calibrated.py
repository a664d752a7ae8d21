"""What `medseg calibrate` found: its file, and how a page and a terminal show it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from medseg.metrics.single_score import ScoreInterval
from medseg.reports.drawing import Chart, to_chart
from medseg.reports.page import Table
from medseg.reports.reliability import reliability_figure
from medseg.reports.tables import digits
from medseg.storage import read_table

__all__ = ["Calibration", "ProbabilityScores", "ShownCalibration"]

_NAME = "calibration.json"
_INTERVAL = {"mean": float, "low": (float, None), "high": (float, None), "cases": int, "subjects": int, "method": str}
_TITLES = {"ece": "ECE", "ece_foreground": "ECE, foreground", "brier": "Brier score", "nll": "NLL"}
_SCORES = dict.fromkeys(_TITLES, _INTERVAL)
_FORM = {
    "temperature": float,
    "halves": [float],
    "cases": [str],
    "before": _SCORES,
    "after": (_SCORES, None),
    "reliability": {str: {"voxels": [int], "probability": [float], "right": [float]}},
}


@dataclass(frozen=True)
class ProbabilityScores:
    """How good probabilities are: means of cases, with intervals over subjects.

    Attributes:
        ece: expected calibration error of the largest probability, 15 bins, all voxels.
        ece_foreground: the same where reference or prediction is not background, which is most of a volume.
        brier: Brier score, 0 to 2.
        nll: negative log-likelihood, natural logarithm.
    """

    ece: ScoreInterval
    ece_foreground: ScoreInterval
    brier: ScoreInterval
    nll: ScoreInterval

    @classmethod
    def from_table(cls, table: Mapping[str, Mapping[str, Any]]) -> ProbabilityScores:
        """As ``calibration.json`` has them."""
        undefined = {key: math.nan for key in ("low", "high")}
        return cls(
            **{
                name: ScoreInterval(**{**row, **{k: v for k, v in undefined.items() if row[k] is None}})
                for name, row in table.items()
            }
        )


@dataclass(frozen=True)
class Calibration:
    """A fitted temperature and what it changes.

    Attributes:
        temperature: divisor of the logits; above 1 the network was too sure.
        halves: temperatures of the two halves of the subjects; empty with a single subject.
        cases: names of the cases.
        before, after: scores without it, and with that of the other half; ``after`` is ``None`` with one subject.
        reliability: ``before`` and ``after`` -> per bin of the foreground's curve: voxels, mean probability, share that
            is right.
    """

    temperature: float
    halves: Sequence[float]
    cases: Sequence[str]
    before: ProbabilityScores
    after: ProbabilityScores | None
    reliability: Mapping[str, Mapping[str, Sequence[float]]]

    @classmethod
    def found(cls, run: str | Path) -> Calibration | None:
        """That of a run, or of the folds that it is one of; ``None`` without one.

        Raises:
            DataError: the file is damaged.
        """
        run = Path(run)
        places = [run, run.resolve().parent] if run.resolve().name.startswith("fold") else [run]
        path = next((place / _NAME for place in places if (place / _NAME).is_file()), None)
        if path is None:
            return None
        table = read_table(path, "what `medseg calibrate` wrote; run it again", _FORM)
        states = {key: ProbabilityScores.from_table(table[key]) for key in ("before", "after") if table[key]}
        known = {one.name: table[one.name] for one in fields(cls)}
        return cls(**{**known, **states})

    def table(self) -> Table:
        """A row per score, before and after."""
        states = {"before": self.before} | ({} if self.after is None else {"after": self.after})
        rows = [
            [title, *(_shown(getattr(state, name)) for state in states.values())] for name, title in _TITLES.items()
        ]
        return Table(["score (95 % interval)", *states], rows)

    def notes(self) -> list[str]:
        """What a reader has to know of the figures, in sentences."""
        of = f"{len(self.cases)} validation case{'' if len(self.cases) == 1 else 's'}"
        found = [
            f"The temperature, {self.temperature:.4g}, was fitted on {of} by the likelihood of all voxels, most of "
            "which are background; it changes no label. Calibrated probabilities of these cases are optimistically "
            "biased."
        ]
        if self.after is None:
            return [*found, "With one subject there are no figures after it, as all cases were fitted on."]
        found.append("Figures after it are not: each half of the subjects has the temperature of the other half.")
        before, after = self.before.ece_foreground.mean, self.after.ece_foreground.mean
        if after > before:
            found.append(
                f"The ECE of the foreground became worse, {digits(before, 4)} to {digits(after, 4)}: do not rely on "
                "the calibrated probabilities of labels; --no_postprocess saves them without the temperature."
            )
        return found


@dataclass(frozen=True)
class ShownCalibration:
    """What a page shows of a calibration."""

    chart: Chart
    table: Table
    notes: Sequence[str]

    @classmethod
    def of(cls, found: Calibration) -> ShownCalibration:
        """With the reliability curves as an SVG."""
        chart = to_chart(reliability_figure(found.reliability), "reliability", "Reliability curves of the foreground")
        return cls(chart, found.table(), found.notes())


def _shown(score: ScoreInterval) -> str:
    interval = f" ({digits(score.low, 4)} to {digits(score.high, 4)})" if math.isfinite(score.low) else ""
    return f"{digits(score.mean, 4)}{interval}"
