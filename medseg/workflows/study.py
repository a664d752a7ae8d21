"""A study: many trainings under equal conditions, from one file to a page with tables, figures and Methods."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Any

from medseg.errors import CasesFailed, ConfigError, nearest
from medseg.reports.studied import StudyResult
from medseg.reports.study import write_study
from medseg.settings import File, Folder, takes
from medseg.workflows.study_file import read_study
from medseg.workflows.study_members import Member, plan_members, shown
from medseg.workflows.study_running import run_member, run_members, write_slurm
from medseg.workflows.study_summary import summarize_study

__all__ = ["StudySettings", "study"]

logger = logging.getLogger("medseg")


@dataclass(frozen=True)
class StudySettings:
    """What is studied, and how it is run.

    Attributes:
        study: YAML file of the study.
        output: folder of the study: its runs, comparisons, study.html, tables and figures.
        jobs: number of members at a time, each in a process of its own (0: one after the other in this process).
        overrides: values of the study file by their ids, such as budget::iterations=100.
        member: name or number of the only member that is run, for a job of a cluster.
        summary: page, tables and figures of what is done, without running anything.
        slurm: SLURM scripts, without running anything.
        dry_run: names and commands of the members, without running anything.
    """

    study: File = field(metadata={"positional": "STUDY"})
    _: KW_ONLY
    output: Folder
    jobs: int = 1
    overrides: Mapping[str, Any] | None = field(default=None, metadata={"option": "set"})
    member: str | None = None
    summary: bool = False
    slurm: bool = False
    dry_run: bool = False


@takes(StudySettings)
def study(settings: StudySettings) -> StudyResult | list[str]:
    """Train, score and compare networks under equal conditions, as a study file says; the same command again resumes.

    Every member is a run of `medseg train`, scored by `medseg validate`; what is done is read from their folders.

    Returns:
        What was found; lines to print where nothing was compared.

    Raises:
        ConfigError: an entry of the study file, members that were not trained alike, or one that was trained with
            other settings than the file says now.
        CasesFailed: some members failed; the page has what is complete.

    Examples:
        >>> from medseg.workflows.study import study
        >>> lines = study("study.yaml", output="studied", dry_run=True)
        >>> lines[0]
        'runs/phantom/UNet/seed0/fold0'
    """
    if settings.jobs < 0:
        raise ConfigError(f"--jobs {settings.jobs}: expected a number of processes from 0 on; correct it.")
    asked, root = read_study(settings.study, settings.overrides), Path(settings.output).resolve()
    members = plan_members(asked, root)
    if settings.member is None:
        for one in members:
            one.held()
    if settings.dry_run:
        return [line for member in members for line in _lines(member)]
    if settings.slurm:
        words = [
            word
            for key, value in (settings.overrides or {}).items()
            for word in ("--set", f"{key}={json.dumps(value)}")
        ]
        return [f"written: submit it by bash {write_slurm(members, Path(settings.study), root, words)}"]
    if settings.member is not None:
        member = _chosen(members, settings.member)
        run_member(member)
        return [f"done: {member.name}"]
    failed = {} if settings.summary else run_members(members, settings.jobs)
    result = summarize_study(asked, members, root, failed)
    write_study(result, root)
    if failed:
        name, why = next(iter(failed.items()))
        raise CasesFailed(
            f"{len(failed)} of {len(members)} members failed, such as {name} ({why}); see {root}/study.html"
        )
    return result


def _lines(member: Member) -> list[str]:
    """A member's name and its commands; what depends on members that it needs is told once they are done."""
    state = "done" if member.is_done() else f"needs {', '.join(one.name for one in member.needs)}"
    if member.is_done() or any(not trial.is_done() for trial in member.trials):
        return [member.name, f"  {state}"]
    commands = [shown("train", member.training()), *(shown("validate", one) for one in member.scorings())]
    return [member.name, *(f"  {command}" for command in commands)]


def _chosen(members: list[Member], name: str) -> Member:
    by_name = {member.name: member for member in members}
    if name.isdigit() and int(name) < len(members):
        return members[int(name)]
    if name not in by_name:
        raise ConfigError(
            f"--member {name}: expected a name of --dry_run, or a number below {len(members)}.{nearest(name, by_name)} "
            "Correct it."
        )
    return by_name[name]
