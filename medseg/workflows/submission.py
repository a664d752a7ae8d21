"""Submit: predictions of a run, or made already, become what a challenge takes, once they keep its rules."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from medseg.bundle.compose import merged_config
from medseg.data import read_datalist
from medseg.errors import ConfigError
from medseg.storage import write_text
from medseg.submission import ChallengeFacts, challenge_module
from medseg.submission.check import Submission, check_predictions
from medseg.workflows.options import check_options
from medseg.workflows.prediction import predict
from medseg.workflows.run_folder import require_run
from medseg.workflows.stored_list import read_stored_list

__all__ = ["submit"]

logger = logging.getLogger("medseg")


def submit(
    challenge: str,
    output: str | Path,
    *,
    run: str | Path | None = None,
    predictions: str | Path | None = None,
    json_list: str | Path | None = None,
    data_dir: str | Path | None = None,
    section: str | None = None,
    checkpoint: str = "best",
    device: str | None = None,
    overwrite: bool = False,
    show: Callable[[str], object] = logger.info,
    **options: Any,
) -> Submission:
    """Check predictions by the rules of a challenge, report, and pack them.

    Args:
        challenge: module name in ``medseg.submission.challenges``.
        output: the archive. The report goes beside it, as text, before the archive is written.
        run: run or bundle folder; without ``predictions`` the cases are segmented first, into a folder beside
            ``output``; what that holds of the same weights is not made again.
        predictions: folder of label maps, of ``medseg infer`` or ``medseg ensemble``, or of another program.
        json_list, data_dir: datalist with the test images; default: the run's.
        section: of the datalist; default: the challenge's.
        checkpoint, device: as for prediction.
        overwrite: replace an existing archive.
        show: takes each line of the report.
        **options: the challenge's own.

    Raises:
        ConfigError: neither a run nor predictions, or an archive that exists.
        DataError: a rule is broken; the report is there, no archive is written.
    """
    module, target = challenge_module(challenge), Path(output)
    _refuse_output(target, module.FACTS, overwrite)
    check_options(challenge, module.items, options)
    if run is None and (predictions is None or json_list is None):
        raise ConfigError("Nothing to submit: name a run with --run, or --predictions and --json_list.")
    if json_list is None and run is not None:
        config = merged_config([require_run(run) / "configs" / "train.yaml"])
        datalist = read_stored_list(run, data_dir or config["dataset_dir"])
    else:
        datalist = read_datalist(Path(str(json_list)), data_dir)
    cases = datalist.cases(section or module.FACTS.section)
    if predictions is None:
        chosen = {item.case_id for item in module.items(cases, **options)}
        predictions = target.with_name(f"{target.stem}_predictions")
        todo = [case for case in cases if case.id in chosen]
        predict(str(run), predictions, cases=todo, checkpoint=checkpoint, device=device)
    values = {value for part in datalist.label_space.fragments.values() for value in part.declared}
    submission = check_predictions(challenge, cases, predictions, options, values)
    lines = submission.lines()
    write_text(target.with_suffix(".txt"), "\n".join(lines) + "\n")
    for line in lines:
        show(line)
    submission.write(target)
    return submission


def _refuse_output(target: Path, facts: ChallengeFacts, overwrite: bool) -> None:
    if target.suffix != facts.suffix:
        raise ConfigError(f"--output {target}: {facts.title} takes a {facts.suffix} file; name it so.")
    if target.exists() and not overwrite:
        raise ConfigError(f"{target} exists; name another --output, or allow it with --overwrite.")
