"""One rule for empty masks, for all scores of a table: what a case counts where the reference or prediction is empty.

All columns then stand on the same cases: who misses a lesion gets no better HD95, and false positives on healthy cases
are not free in one column and counted in the next.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from medseg.errors import ConfigError, nearest
from medseg.metrics.shares import Share, failures

__all__ = ["EMPTY_RULES", "EmptyRule", "LesionFree", "Settled", "lesion_free", "rule_words", "settle"]

EMPTY_RULES = ("penalty", "reference_only", "no_penalty", "challenge")
KINDS = ("overlap", "distance", "sensitivity", "precision", "other")
_BRATS_MM = 374.0
_SENTENCES = {
    "penalty": "Where only the reference or only the prediction is empty, a score is the worst: 0, of a distance {}; "
    "where both are, it is undefined.",
    "reference_only": "Cases whose reference lacks the label are in no column; where the prediction lacks it, a score "
    "is the worst: 0, of a distance {}.",
    "no_penalty": "Cases whose reference lacks the label are in no column; where the prediction lacks it, distances "
    "are undefined.",
    "challenge": "Where both masks are empty, a score is the best (1; 0 mm), where one is, the worst (0; of a distance "
    "{}).",
}


@dataclass(frozen=True)
class EmptyRule:
    """What empty masks count.

    Attributes:
        name: ``penalty``: two empty masks are undefined, one is the worst value (0; the image's diagonal in mm).
            ``reference_only``: cases whose reference is empty are in no column; an empty prediction is the worst value.
            ``no_penalty``: the same, but distances of an empty prediction are undefined, as in many publications.
            ``challenge``: two empty masks are the best value (1; 0 mm), one is the worst (0; 374 mm), as in BraTS.
        penalty_mm: distance in place of the diagonal or of 374 mm.
        empty_precision_zero: the precision of an empty prediction is 0 instead of undefined.

    Raises:
        ConfigError: an unknown rule, or a distance below 0.
    """

    name: str = "penalty"
    penalty_mm: float | None = None
    empty_precision_zero: bool = False

    def __post_init__(self) -> None:
        if self.name not in EMPTY_RULES:
            hint = nearest(self.name, EMPTY_RULES)
            raise ConfigError(f"No rule for empty masks '{self.name}'.{hint} Known: {', '.join(EMPTY_RULES)}.")
        if self.penalty_mm is not None and not 0 <= self.penalty_mm < math.inf:
            raise ConfigError(f"A penalty of {self.penalty_mm:g} mm is not valid; expected 0 or more, such as 374.")

    @classmethod
    def of(cls, text: str) -> EmptyRule:
        """The rule of a setting: its name, or ``name:mm`` with a distance of its own, such as ``penalty:374``.

        Raises:
            ConfigError: another form.
        """
        name, colon, distance = text.partition(":")
        try:
            return cls(name, float(distance) if colon else None)
        except ValueError as error:
            raise ConfigError(f"'{text}' is not a valid rule for empty masks; expected such as penalty:374.") from error

    @property
    def text(self) -> str:
        """The setting of which ``of`` makes this rule."""
        return self.name if self.penalty_mm is None else f"{self.name}:{self.penalty_mm:g}"

    @property
    def words(self) -> str:
        """What it does, in a sentence for readers of a table."""
        usual = f"{_BRATS_MM:g} mm" if self.name == "challenge" else "the image's diagonal"
        return _SENTENCES[self.name].format(usual if self.penalty_mm is None else f"{self.penalty_mm:g} mm")


def rule_words(recorded: str) -> str:
    """``EmptyRule.words`` of what scores record; empty where that is not a known rule."""
    return EmptyRule.of(recorded).words if recorded.partition(":")[0] in EMPTY_RULES else ""


@dataclass(frozen=True)
class Settled:
    """A column of the table, one entry per case.

    Attributes:
        values: scores ``(cases,)``; NaN is undefined.
        penalised: whether the value is the rule's, not the formula's.
    """

    values: np.ndarray
    penalised: np.ndarray

    @property
    def undefined(self) -> int:
        """Number of cases without a value."""
        return int(np.isnan(self.values).sum())

    @property
    def mean(self) -> float:
        return _mean(self.values)

    @property
    def median(self) -> float:
        known = self.values[~np.isnan(self.values)]
        return float(np.median(known)) if len(known) else math.nan

    @property
    def mean_without_penalties(self) -> float:
        """Of distances, printed beside the mean."""
        return _mean(self.values[~self.penalised])


def _mean(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else math.nan


def settle(
    scores: Mapping[str, np.ndarray],
    kinds: Mapping[str, str],
    reference_empty: np.ndarray,
    prediction_empty: np.ndarray,
    diagonals_mm: np.ndarray,
    rule: EmptyRule,
) -> dict[str, Settled]:
    """Apply one rule to all scores of one label.

    Args:
        scores: score -> values of all cases ``(cases,)``, by their formulas, NaN or infinite where those are undefined.
        kinds: score -> ``overlap`` (1 is best, 0 worst), ``distance`` (in mm), ``sensitivity``, ``precision`` or
            ``other`` (no worst value: volume differences, specificity).
        reference_empty, prediction_empty: whether a case's mask is empty ``(cases,)``.
        diagonals_mm: diagonal of each image in mm ``(cases,)``.

    Raises:
        ConfigError: an unknown kind.
    """
    wrong = next((kind for kind in kinds.values() if kind not in KINDS), None)
    if wrong is not None:
        raise ConfigError(f"No kind of score '{wrong}'.{nearest(wrong, KINDS)} Known: {', '.join(KINDS)}.")
    challenge, by_reference = rule.name == "challenge", rule.name in ("reference_only", "no_penalty")
    penalty = np.full(len(diagonals_mm), _BRATS_MM) if challenge else np.asarray(diagonals_mm, dtype=float)
    if rule.penalty_mm is not None:
        penalty = np.full_like(penalty, rule.penalty_mm)
    if rule.name == "no_penalty":
        penalty = np.full_like(penalty, math.nan)
    neither = reference_empty & prediction_empty
    one = reference_empty ^ prediction_empty
    settled = {}
    for score, given in scores.items():
        kind, values = kinds[score], np.array(given, dtype=float)
        values[~np.isfinite(values)] = math.nan
        penalised = np.zeros(len(values), dtype=bool)
        if kind != "other":
            penalised = one.copy()
            if not challenge and kind == "sensitivity":
                penalised &= prediction_empty
            elif not challenge and kind == "precision" and not rule.empty_precision_zero:
                penalised &= reference_empty
            values[one] = math.nan
            values[penalised] = penalty[penalised] if kind == "distance" else 0.0
        if challenge and kind != "other":
            values[neither] = 0.0 if kind == "distance" else 1.0
        elif not challenge:
            values[neither] = math.nan
        if by_reference:
            values[reference_empty] = math.nan
        settled[score] = Settled(values, penalised & ~np.isnan(values))
    return settled


@dataclass(frozen=True)
class LesionFree:
    """Scans whose reference is empty, apart from all others.

    Attributes:
        kept_empty: those whose prediction is empty too, of all of them, with an interval.
        false_positive_ml: mean predicted volume a scan in ml.
        components: mean number of predicted parts a scan.
    """

    kept_empty: Share
    false_positive_ml: float
    components: float


def lesion_free(
    reference_empty: np.ndarray, volumes_ml: np.ndarray, components: np.ndarray, subjects: np.ndarray
) -> LesionFree:
    """What was predicted in the scans without a lesion; each argument has one entry per case."""
    healthy = np.asarray(reference_empty, dtype=bool)
    volumes = np.asarray(volumes_ml, dtype=float)[healthy]
    # A scan that stays empty is a score of 0, below 0.5; one that does not, of 1.
    kept = failures((volumes > 0).astype(float), np.asarray(subjects, dtype=str)[healthy].tolist(), below=0.5)
    return LesionFree(kept, _mean(volumes), _mean(np.asarray(components, dtype=float)[healthy]))
