"""Predictions against the rules of a challenge: complete, nothing else, each as it must be."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from medseg.data.case import Case
from medseg.data.findings import Finding, Problem
from medseg.datasets import datasets
from medseg.errors import ConfigError, DataError
from medseg.submission import ChallengeFacts, SubmittedCase, challenge_module
from medseg.submission.archive import write_zip
from medseg.submission.label_maps import check_label_map
from medseg.transforms.reader import stem_of

__all__ = ["Submission", "check_predictions"]

_WORKERS = 4  # volumes in memory at a time: an image and a label map each


@dataclass
class Submission:
    """Checked predictions of a challenge.

    Attributes:
        challenge: module name.
        facts: facts of the challenge.
        folder: folder of the predictions.
        files: name in the archive -> prediction.
        left_out: cases of the section that the challenge does not take.
        problems: broken rules, and warnings.
    """

    challenge: str
    facts: ChallengeFacts
    folder: Path
    files: dict[str, Path] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    @property
    def broken(self) -> list[Problem]:
        """Problems that are not warnings."""
        return [problem for problem in self.problems if not problem.warning]

    def lines(self) -> list[str]:
        """The report."""
        facts = self.facts
        lines = [f"{facts.title} ({facts.source}): {len(self.files)} predictions in {self.folder}"]
        for heading, rules in (("documented rules", facts.documented), ("could not be verified", facts.unverified)):
            lines += [f"{heading}:", *(f"  - {rule}" for rule in rules)] if rules else []
        if self.left_out:
            more = ", …" if len(self.left_out) > 3 else ""
            lines.append(f"skipped: {len(self.left_out)} cases ({', '.join(self.left_out[:3])}{more})")
        lines.append("all predictions keep these rules" if not self.broken else f"{len(self.broken)} rules broken:")
        for problem in sorted(self.problems, key=lambda problem: problem.warning):
            prefix = "warning: " if problem.warning else ""
            lines.append(f"  {prefix}{problem.case}: {problem.message}. {problem.remedy}")
        return lines

    def write(self, output: str | Path) -> Path:
        """Pack the predictions.

        Raises:
            DataError: a rule is broken; nothing is written.
        """
        if self.broken:
            first = self.broken[0]
            raise DataError(
                f"Not a submission of {self.facts.title}: {len(self.broken)} rules are broken, the first by "
                f"{first.case}: {first.message}. {first.remedy}"
            )
        pack = getattr(challenge_module(self.challenge), "pack", write_zip)
        pack(self.files, Path(output))
        return Path(output)


def check_predictions(
    challenge: str,
    cases: Sequence[Case],
    folder: str | Path,
    options: Mapping[str, Any] | None = None,
    values: Collection[int] = (),
) -> Submission:
    """Check a folder of predictions ``<case id>.<suffix>`` (or named as in the archive).

    Args:
        challenge: module name in ``medseg.submission.challenges``.
        cases: cases of the datalist's section.
        folder: folder of the predictions; JSON records beside them are not part of the submission.
        options: options of the challenge's ``submitted``.
        values: label values that the datalist declares, for a challenge whose data set has no fixed ones.

    Raises:
        ConfigError: no such challenge or folder.
        DataError: the cases are not the challenge's.
    """
    module, folder = challenge_module(challenge), Path(folder)
    chosen: list[SubmittedCase] = module.submitted(cases, **(options or {}))
    if not folder.is_dir():
        raise ConfigError(f"Folder {folder} not found; --predictions names the folder of the label maps.")
    result = Submission(challenge, module.FACTS, folder)
    result.left_out = sorted({case.id for case in cases} - {one.case.id for one in chosen})
    _assign_files(chosen, result)
    present = [one for one in chosen if one.member in result.files]
    with ThreadPoolExecutor(min(_WORKERS, os.cpu_count() or 1)) as pool:
        checks = pool.map(lambda one: list(_check(module, result.files[one.member], one, values)), present)
        for one, findings in zip(present, tqdm(checks, total=len(present), leave=False, disable=None), strict=True):
            result.problems += [Problem(one.case.id, *finding) for finding in findings]
    return result


def _assign_files(chosen: Sequence[SubmittedCase], result: Submission) -> None:
    """Which file belongs to which case; what is missing, double or stray becomes a problem."""
    named: dict[str, list[Path]] = {}
    for file in sorted(result.folder.iterdir()):
        if file.is_file() and not file.name.startswith(".") and file.suffix != ".json":
            named.setdefault(stem_of(file), []).append(file)
    for one in chosen:
        stems = dict.fromkeys((one.case.id, stem_of(one.member)))
        found = [file for stem in stems for file in named.pop(stem, [])]
        if len(found) == 1:
            result.files[one.member] = found[0]
        elif found:
            listed = " and ".join(file.name for file in found)
            result.problems.append(Problem(one.case.id, f"has {listed}; one file is expected", "Remove one."))
        else:
            message = f"no prediction in {result.folder}; {one.case.id}{_suffix(one)} is expected"
            result.problems.append(Problem(one.case.id, message, "Predict the case: `medseg infer`."))
    for stray in (file.name for stem, group in named.items() if stem not in result.left_out for file in group):
        message = "belongs to no case of the submission; predictions alone are expected"
        result.problems.append(Problem(stray, message, "Move it elsewhere."))


def _check(module: Any, prediction: Path, submitted: SubmittedCase, declared: Collection[int]) -> Iterator[Finding]:
    if hasattr(module, "check"):
        yield from module.check(prediction, submitted)
        return
    if not prediction.name.endswith(_suffix(submitted)):
        yield Finding(f"{prediction.name} is expected to end with {_suffix(submitted)}", "Save it in that format.")
        return
    values = submitted.values or tuple(datasets()[module.FACTS.dataset].labels) or tuple(declared)
    yield from check_label_map(prediction, Path(submitted.case.images[0]), values)


def _suffix(submitted: SubmittedCase) -> str:
    name = Path(submitted.member).name
    return name.removeprefix(stem_of(name))
