"""What a score means: scores of equal definitions may be set against each other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from medseg.labels import LabelSpace

__all__ = ["NOT_RECORDED", "CleanupRules", "ScoreDefinition", "target_values"]

CleanupRules: TypeAlias = Mapping[str, Mapping[str, bool | float]]  # label -> step -> value

NOT_RECORDED = "not recorded"  # of scores that an earlier version wrote
_WORDS = {
    "space": "the space of the scores",
    "unit": "the unit of lengths",
    "scorer": "the rule by which a case is scored",
    "include_background": "whether the background is scored",
    "targets": "the label table",
    "empty": "the rule for empty masks",
}


@dataclass(frozen=True)
class ScoreDefinition:
    """How scores come about, beside what their names say (``medseg.metrics.catalog``); each field is a key of
    ``metrics.json``.

    Attributes:
        space: ``source`` (original image space) or ``model`` (after preprocessing).
        unit: unit of lengths, ``mm`` or ``px``.
        scorer: name of the metric, which decides what counts as undefined, such as ``CaseScores``.
        include_background: whether the background is scored and in the mean.
        targets: data set -> label or region -> its values in the reference files.
        empty: rule for empty masks (``medseg.metrics.empty.EmptyRule.text``).
        cleanup: rules of post-processing, label -> steps; empty for raw predictions.
    """

    space: str = NOT_RECORDED
    unit: str = NOT_RECORDED
    scorer: str = NOT_RECORDED
    include_background: bool | str = NOT_RECORDED
    targets: Mapping[str, Mapping[str, list[int]]] | str = NOT_RECORDED
    empty: str = NOT_RECORDED
    cleanup: CleanupRules | str = NOT_RECORDED

    @property
    def postprocessing(self) -> str:
        """``raw`` or ``cleaned``."""
        return "cleaned" if self.cleanup else "raw"

    def differences(self, other: ScoreDefinition) -> dict[str, tuple[Any, Any]]:
        """What tells two definitions apart, in words -> both values; what either does not record is none."""
        found: dict[str, tuple[Any, Any]] = {}
        for key, words in _WORDS.items():
            pair = (getattr(self, key), getattr(other, key))
            if NOT_RECORDED not in pair and _plain(pair[0]) != _plain(pair[1]):
                found[words] = pair
        if self.postprocessing != other.postprocessing:
            found["post-processing"] = (self.postprocessing, other.postprocessing)
        return found


def _plain(value: Any) -> Any:
    """The labels of a single data set, whatever its name."""
    if isinstance(value, Mapping) and len(value) == 1:
        return next(iter(value.values()))
    return value


def target_values(space: LabelSpace, datasets: Iterable[str | None]) -> dict[str, dict[str, list[int]]]:
    """Data set -> label or region -> its values in the reference files, where the data set has all of its labels."""
    names = space.labels
    return {
        dataset or "": {
            target: sorted(value for index in members for value in values[names[index - 1]])
            for target, members in space.targets.items()
            if all(names[index - 1] in values for index in members)
        }
        for dataset in sorted(set(datasets), key=str)
        for values in [space.fragment(dataset).values]
    }
