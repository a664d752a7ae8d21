"""Choose post-processing on validation predictions, on the raw ones: a step is taken only where it is shown to help by
a test that counts all that were tried (``cleanup_choice``).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path

from medseg.bundle.folder import Bundle
from medseg.engines.log_file import log_to
from medseg.labels import LabelSpace
from medseg.metrics import CleanupRules
from medseg.metrics.paired_difference import paired_difference
from medseg.metrics.subjects import subject_sums
from medseg.settings import Folder, takes
from medseg.storage import write_json
from medseg.workflows.cleanup import store_rules
from medseg.workflows.cleanup_choice import TriedStep
from medseg.workflows.folder_lock import writes_into
from medseg.workflows.folds import fold_runs
from medseg.workflows.out_of_fold import CleanedDice, Fold, RuleScores, pairs
from medseg.workflows.run_folder import require_run

__all__ = ["PostprocessSettings", "Postprocessing", "postprocess"]

logger = logging.getLogger("medseg")


@dataclass(frozen=True)
class PostprocessSettings:
    """The run whose predictions are cleaned.

    Attributes:
        run: run folder with raw validation predictions; folds are pooled.
        data_dir: folder of the references, where they were moved (default: as in training).
    """

    run: Folder
    _: KW_ONLY
    data_dir: Folder | None = None


@dataclass(frozen=True)
class LabelChoice:
    """The rule that was chosen for a label, step -> value, and every step that was tried."""

    rule: Mapping[str, bool | float]
    tried: Sequence[TriedStep]


@dataclass(frozen=True)
class BeforeAndAfter:
    """Mean Dice over targets of the mean over cases, raw and cleaned, and their difference.

    Attributes:
        before, after: raw and cleaned.
        mean_difference: their difference.
        interval: its 95 % interval over subjects; NaN with fewer than six.
        cases, subjects: numbers of those with a score.
        nested: whether the cases of each fold are cleaned by rules that were chosen on the other folds' cases.
    """

    before: float
    after: float
    mean_difference: float
    interval: tuple[float, float]
    cases: int
    subjects: int
    nested: bool

    @classmethod
    def of(cls, dice: CleanedDice, *, nested: bool) -> BeforeAndAfter:
        """Of raw and cleaned predictions of the same cases."""
        found = paired_difference(dice.raw, dice.cleaned, dice.subjects)
        return cls(
            before=subject_sums(dice.raw, dice.subjects).mean,
            after=subject_sums(dice.cleaned, dice.subjects).mean,
            mean_difference=found.mean,
            interval=(found.low, found.high),
            cases=found.cases.total,
            subjects=found.subjects.total,
            nested=nested,
        )


@dataclass(frozen=True)
class Postprocessing:
    """Post-processing that was chosen on validation predictions.

    Attributes:
        cases: number of cases.
        rules: label -> its rule, where it has one.
        mean_dice: scores without and with the rules, of a single run optimistically biased for new cases, since the
            rules were chosen on these; ``None`` without any rule.
        labels: label -> what was tried.
    """

    cases: int
    rules: CleanupRules
    mean_dice: BeforeAndAfter | None
    labels: Mapping[str, LabelChoice]


@takes(PostprocessSettings)
@writes_into("run")
def postprocess(settings: PostprocessSettings) -> Postprocessing:
    """Choose post-processing on a run's validation predictions; only what is shown to help is stored and applied.

    The rules are stored in the run's bundle; ``--fold all`` runs are pooled.

    Writes ``postprocessing.json`` into the run's folder, and the rules into ``configs/inference.yaml`` of the run or
    of all its folds, where inference, validation and ensembles apply them.

    Raises:
        DataError: the run is not validated in the original image space, its scores are of other cases than its
            validation cases, or a prediction is missing or was written by another command.
        ConfigError: its predictions are cleaned already.
    """
    run, data_dir = settings.run, settings.data_dir
    folders = fold_runs(run) or [require_run(run).root]
    folds = [Fold(folder, folder) for folder in folders]
    space = LabelSpace.from_table(Bundle(folders[0]).trained["labels"])
    log_to(run)
    scores = RuleScores.of(pairs(folds, space, data_dir), space)
    found = scores.tried()
    rules = {label: rule for label, (rule, _) in found.items() if any(rule)}
    mean_dice = None
    if rules:
        of_fold = [scores.rules(without=fold) if len(folds) > 1 else rules for fold in range(len(folds))]
        dice = CleanedDice.of(pairs(folds, space, data_dir), of_fold, space)
        mean_dice = BeforeAndAfter.of(dice, nested=len(folds) > 1)
    chosen = Postprocessing(
        cases=len(scores.subjects),
        rules={label: rule.to_table() for label, rule in rules.items()},
        mean_dice=mean_dice,
        labels={label: LabelChoice(rule.to_table(), tried) for label, (rule, tried) in found.items()},
    )
    write_json(Path(run) / "postprocessing.json", chosen)
    for folder in folders:
        store_rules(Bundle(folder), chosen.rules)
    logger.info("post-processing of %s: %s", run, chosen.rules or "none helps")
    return chosen
