"""Submit: predictions of a run, or made already, become what a challenge takes, once they keep its rules."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Any

from medseg.data import read_datalist
from medseg.errors import ConfigError
from medseg.settings import File, Folder, takes
from medseg.storage import write_text
from medseg.submission import ChallengeFacts, challenge_module
from medseg.submission.check import Submission, check_predictions
from medseg.workflows.options import check_options
from medseg.workflows.prediction import predict
from medseg.workflows.run_folder import require_run
from medseg.workflows.stored_list import read_stored_list

__all__ = ["SubmitSettings", "submit"]

logger = logging.getLogger("medseg")


@dataclass(frozen=True)
class SubmitSettings:
    """What is submitted to which challenge.

    Attributes:
        challenge: name of the challenge, such as amos.
        output: archive to write. Its report is beside it, as .txt, and is written before it.
        run: run or bundle folder. Without --predictions it segments the cases first, into a folder beside the archive.
        predictions: folder of label maps of medseg infer or ensemble, or of another program.
        json_list: datalist with the test images (default: the run's).
        data_dir: base directory for relative paths in the datalist (default: its folder).
        section: section of the datalist (default: the challenge's).
        checkpoint: best, last or a file.
        device: cpu, cuda or cuda:N (default: a GPU where there is one).
        overwrite: new archive in the place of an existing one.
        show: function that takes each line of the report.
        options: options of the challenge itself by their names, such as the task.
    """

    challenge: str = field(metadata={"positional": "CHALLENGE"})
    output: File
    _: KW_ONLY
    run: Folder | None = None
    predictions: Folder | None = None
    json_list: File | None = None
    data_dir: Folder | None = None
    section: str | None = None
    checkpoint: str = "best"
    device: str | None = None
    overwrite: bool = False
    show: Callable[[str], object] = field(default=logger.info, metadata={"option": None})
    options: Mapping[str, Any] | None = field(default=None, metadata={"option": None})


@takes(SubmitSettings)
def submit(settings: SubmitSettings) -> Submission:
    """Check predictions by the rules of a challenge, report, and pack them.

    Predictions that lie there already, of the same weights, are not made again.

    Raises:
        ConfigError: neither a run nor predictions, or an archive that exists.
        DataError: a rule is broken; the report is there, no archive is written.
    """
    challenge, run, predictions, options = (
        settings.challenge,
        settings.run,
        settings.predictions,
        settings.options or {},
    )
    module, target = challenge_module(challenge), Path(settings.output)
    _refuse_output(target, module.FACTS, overwrite=settings.overwrite)
    check_options(challenge, module.submitted, options)
    if run is None and (predictions is None or settings.json_list is None):
        raise ConfigError("Nothing to submit: name a run with --run, or --predictions and --json_list.")
    if settings.json_list is None and run is not None:
        datalist = read_stored_list(run, settings.data_dir or require_run(run).trained["dataset_dir"])
    else:
        datalist = read_datalist(Path(str(settings.json_list)), settings.data_dir)
    cases = datalist.cases(settings.section or module.FACTS.section)
    if predictions is None:
        chosen = [submitted.case for submitted in module.submitted(cases, **options)]
        predictions = target.with_name(f"{target.stem}_predictions")
        predict(str(run), predictions, cases=chosen, checkpoint=settings.checkpoint, device=settings.device)
    values = {value for part in datalist.label_space.fragments.values() for value in part.declared}
    submission = check_predictions(challenge, cases, predictions, options, values)
    lines = submission.lines()
    write_text(target.with_suffix(".txt"), "\n".join(lines) + "\n")
    for line in lines:
        settings.show(line)
    submission.write(target)
    return submission


def _refuse_output(target: Path, facts: ChallengeFacts, *, overwrite: bool) -> None:
    if target.suffix != facts.suffix:
        raise ConfigError(f"--output {target}: {facts.title} takes a {facts.suffix} file; name it so.")
    if target.exists() and not overwrite:
        raise ConfigError(f"{target} exists; name another --output, or allow it with --overwrite.")
