"""Score a trained run: per case and label, in the original image space (or on the grid of the model)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from monai.transforms import Compose

from medseg.bundle.compose import Workflow
from medseg.bundle.parts import start_distributed
from medseg.data import Case
from medseg.data.content import content_hash
from medseg.engines import CaseCost, network_facts
from medseg.engines.log_file import log_to
from medseg.engines.ranks import barrier, is_main, on_main, unwrap
from medseg.engines.run_facts import RunFacts, write_facts
from medseg.errors import CasesFailed, ConfigError
from medseg.metrics import ScoredPredictions, ScoreFacts, Scores, background_cases, background_note
from medseg.settings import takes
from medseg.transforms import SaveLabelsd
from medseg.transforms.probability_file import files_beside
from medseg.workflows.evaluation import SCORES, EvaluateSettings, Evaluation
from medseg.workflows.folder_lock import writes_into
from medseg.workflows.run_folder import require_run

__all__ = ["evaluate", "warn_of_background"]

logger = logging.getLogger("medseg")


@takes(EvaluateSettings)
@writes_into("run")
def evaluate(settings: EvaluateSettings) -> Scores:
    """Score cases of a run; writes ``metrics.json``, ``metrics_per_case.csv`` and ``predictions/``, and what a
    validation case costs into ``run.json``.

    Scores of other cases than the run's validation cases lie in a folder of their own, ``scores/<section>``, wherever
    the choice came from, and are not facts of the run. Under torchrun every process makes the same call and takes its
    share of the cases.

    Returns:
        The scores, as ``metrics.json`` has them.

    Raises:
        CasesFailed: some cases failed, listed in ``failures.json``; the scores are of the others, and say so.

    Examples:
        >>> scores = medseg.evaluate("runs/first", device="cpu")
        >>> scores.scored, 0 <= scores.mean_dice <= 1
        (2, True)
    """
    start_distributed()
    if is_main():
        log_to(require_run(settings.run).root)
    else:
        logger.setLevel(logging.ERROR)  # the first process speaks for all
    evaluation = Evaluation.of(settings)
    folder, selection = evaluation.bundle.root, evaluation.selection
    facts = on_main(evaluation.facts)
    workflow = evaluation.workflow()
    target = Path(workflow.parser.get_parsed_content("score_dir"))
    if settings.place(selection) and target.resolve() == folder:
        raise ConfigError(
            f"{target} has the scores of validation cases in the original image space, which those of "
            f"{selection.words} would replace; name another score_dir."
        )
    kept = on_main(lambda: _kept(target, facts)) if settings.reuse else None
    if kept is not None:
        workflow.finalize()
        return kept
    logger.info("scoring %s of %s, checkpoint %s", selection.words, folder, settings.checkpoint)
    failed = _score(workflow, evaluation, facts, target)
    barrier()  # the first process writes the scores of all
    result = Scores.read(target)
    warn_of_background(background_cases(result.cases), len(result.cases))
    workflow.finalize()
    if failed is not None:
        raise CasesFailed(f"{failed} The scores in {target} are of {result.scored} of {result.asked} cases.")
    return result


def _score(workflow: Workflow, evaluation: Evaluation, facts: ScoreFacts, target: Path) -> CasesFailed | None:
    """Run it and write the scores of all cases that do not fail, and what a case costs."""
    parser, folder, cases = workflow.parser, evaluation.bundle.root, evaluation.selection.cases
    saved = _saved_to(parser.get_parsed_content("validate::postprocessing"))
    if saved is not None:
        on_main(lambda: _remove_beside(saved, cases))
    scores = parser.get_parsed_content(SCORES)
    scores.facts |= facts  # not in the config, where a name could become an expression
    scores.cleanup = evaluation.rules or scores.cleanup
    scores.space = "model" if evaluation.settings.space == "model" else scores.space
    evaluator, cost = parser.get_parsed_content("validate::evaluator"), CaseCost()
    cost.attach(evaluator)
    failed: CasesFailed | None = None
    try:
        workflow.run()
    except CasesFailed as error:
        failed = error
    if is_main():
        written = Scores.read(target)
        scored = [case for case in cases if case.id in written.cases]
        predictions = _predictions(target, saved, scored)
        replace(written, asked=len(cases), scored=len(scored), predictions=predictions).write(target)
        if target.resolve() == folder and failed is None:  # others are not the run's
            roi_size = parser.get_parsed_content("roi_size")
            measured = network_facts(unwrap(evaluator.network), parser["network_def::in_channels"], roi_size)
            measured |= cost.facts(measured.multiply_adds_per_window)
            write_facts(folder, measured | RunFacts(mean_dice=written.mean_dice), evaluation.selection.run)
    return failed


def warn_of_background(cases: Sequence[str], total: int) -> None:
    """Log which predictions are background throughout."""
    if cases and is_main():
        logger.warning("%s", background_note(cases, total))


def _kept(target: Path, facts: ScoreFacts) -> Scores | None:
    """Scores that were made from the same; ``None`` without."""
    kept = Scores.found(target)
    if kept is None or kept.asked != kept.scored:
        return None
    made = ("weights_sha256", "settings_sha256", "medseg", "files_sha256")
    return kept if all(getattr(kept.facts, name) == getattr(facts, name) for name in made) else None


def _saved_to(steps: Any) -> Path | None:
    """Where post-processing writes label maps; ``None`` where it writes none."""
    for step in steps.transforms if isinstance(steps, Compose) else [steps]:
        if isinstance(step, SaveLabelsd):
            return Path(step.output_dir)
    return None


def _remove_beside(folder: Path, cases: Sequence[Case]) -> None:
    """Probabilities and uncertainty of an earlier call must not pass for those of this one."""
    for case in cases:
        for file in files_beside(folder / case.output_name(), case.id).values():
            file.unlink(missing_ok=True)


def _predictions(target: Path, folder: Path | None, cases: Sequence[Case]) -> ScoredPredictions | None:
    """The label maps that were scored: their folder, below the scores' own where it is there, and their hashes."""
    if folder is None:
        return None
    folder, target = folder.resolve(), target.resolve()
    name = folder.relative_to(target) if folder.is_relative_to(target) else folder
    return ScoredPredictions(str(name), {case.id: content_hash(folder / case.output_name()) for case in cases})
