"""Run the members of a study: here, in processes of this machine, under torchrun, or as a SLURM array."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medseg.errors import CasesFailed, ConfigError, MedsegError, ResourceError, few
from medseg.storage import write_text
from medseg.workflows.study_members import Member, command_line, inequalities
from medseg.workflows.training import train
from medseg.workflows.validation import evaluate

__all__ = ["run_member", "run_members", "write_slurm"]

logger = logging.getLogger("medseg")

_WAIT = 0.5  # seconds between two looks at the processes


def run_member(member: Member) -> None:
    """Train a member, or let it resume, and score it; what is done is skipped.

    Raises:
        MedsegError: as `medseg train` and `medseg validate`; a member that it needs is not done, or one of them was
            trained with other settings.
    """
    waiting = [one.name for one in member.needs if not one.is_done()]
    if waiting:
        raise ConfigError(f"{member.name} needs {waiting[0]}, which is not done; run that member first.")
    for one in (*member.needs, member):
        one.held()
    if not member.is_trained():
        _run("train", train, member, member.training())
    if not member.is_done():
        member.write_overlays()
        for settings in member.scorings():
            _run("validate", evaluate, member, settings)


def _run(name: str, function: Any, member: Member, settings: Any) -> None:
    if member.study.processes == 1:
        function.of(settings)
        return
    # scoring does not gain from more processes than cases, but has to hold the same network on the same devices
    status = _under_torchrun(["medseg.cli", *command_line(name, settings)], member.study.processes)
    if status:
        raise ResourceError(
            f"{member.name}: `medseg {name}` under torchrun ended with status {status}; see {member.folder}/log.txt, "
            "then rerun the same command to resume."
        )


def _under_torchrun(module: Sequence[str], processes: int) -> int:
    """The status of a module with its arguments, in so many processes, which save their state if this one is ended."""
    launch = ["torch.distributed.run", "--standalone", f"--nproc_per_node={processes}", "-m", "--", *module]
    # a session of its own: Ctrl-C in a terminal would reach the processes twice, and the second signal loses an epoch
    torchrun = subprocess.Popen([sys.executable, "-m", *launch], start_new_session=True)
    try:
        return torchrun.wait()
    finally:
        torchrun.terminate()  # nothing where it has ended
        torchrun.wait()


def run_members(members: Sequence[Member], jobs: int) -> dict[str, str]:
    """Run what is not done.

    Args:
        members: in an order in which each comes after those that it needs.
        jobs: number of processes; 0 runs one after the other in this process.

    Returns:
        Name of a member that failed -> why.

    Raises:
        ConfigError: two members are not trained alike, though the study says so.
    """
    left = [member for member in members if not member.is_done()]
    logger.info("%d of %d members are done", len(members) - len(left), len(members))
    failed: dict[str, str] = {}
    if jobs == 0:
        for member in left:
            logger.info("member %s", member.name)
            try:
                run_member(member)
            except (CasesFailed, MedsegError) as error:
                failed[member.name] = str(error)
                logger.error("%s: %s", member.name, error)
            _refuse_unequal(member, members)
        return failed
    _Processes(members, left, jobs).run(failed)
    return failed


class _Processes:
    """At most ``jobs`` members at a time, each in a process of its own, whose output goes to ``logs/``."""

    def __init__(self, members: Sequence[Member], left: Sequence[Member], jobs: int) -> None:
        self.members, self.left, self.jobs = members, list(left), jobs
        self.running: dict[str, tuple[Member, Any]] = {}
        # A server that imports once forks the members; this process, whose threads would not survive a fork, does not.
        forks = "forkserver" in multiprocessing.get_all_start_methods()
        self.context: Any = multiprocessing.get_context("forkserver" if forks else "spawn")
        if forks:
            self.context.set_forkserver_preload([__name__])

    def run(self, failed: dict[str, str]) -> None:
        (self.members[0].root / "logs").mkdir(parents=True, exist_ok=True)
        try:
            while self.left or self.running:
                self._start(failed)
                time.sleep(_WAIT)
                for member, process in [pair for pair in self.running.values() if not pair[1].is_alive()]:
                    del self.running[member.name]
                    if not member.is_done():
                        failed[member.name] = f"ended with status {process.exitcode}; see {_log(member)}"
                        logger.error("%s: %s", member.name, failed[member.name])
                    _refuse_unequal(member, self.members)
        finally:
            if self.running:
                logger.warning("stopping %s; rerun the same command to resume", few(self.running))
            for _, process in self.running.values():  # which save their state
                process.terminate()
            for _, process in self.running.values():
                process.join()

    def _start(self, failed: dict[str, str]) -> None:
        for member in list(self.left):
            needs = [one.name for one in member.needs]
            if lost := [name for name in needs if name in failed]:
                self.left.remove(member)
                failed[member.name] = f"{lost[0]} failed, which it needs"
            elif len(self.running) < self.jobs and not any(
                one.name in self.running or one in self.left for one in member.needs
            ):
                self.left.remove(member)
                process = self.context.Process(target=_work, args=(member,), name=member.name)
                process.start()
                self.running[member.name] = member, process
                logger.info("started %s", member.name)


def _log(member: Member) -> Path:
    return member.root / "logs" / f"{member.name.replace('/', '_')}.txt"


def _work(member: Member) -> None:
    """The process of a member; it ends, with its state saved, when the study's process is gone."""
    if hasattr(os, "setpgrp"):  # Ctrl-C in a terminal reaches the study alone, which ends its members
        os.setpgrp()
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    with _log(member).open("ab") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logger.setLevel(logging.INFO)
    threading.Thread(target=_follow, daemon=True).start()
    try:
        run_member(member)
    except MedsegError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        raise SystemExit(error.status) from None


def _follow() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)


def _refuse_unequal(member: Member, members: Sequence[Member]) -> None:
    if not member.study.equal:
        return
    with contextlib.suppress(FileNotFoundError):
        for key, (before, after) in inequalities(member, members).items():
            raise ConfigError(
                f"{member.name} was trained with {key} {after!r}, another method on the same cases with {before!r}; "
                f"a study trains all alike. Set it for all (settings: {{{key}: …}}) and start into another --output "
                "folder, or say equal: false."
            )


def write_slurm(members: Sequence[Member], study_file: Path, root: Path, overrides: Sequence[str] = ()) -> Path:
    """Write ``members.sh``, a SLURM array script with a task for every member, and ``submit.sh``, which submits it
    stage after stage and then the summary.

    Returns:
        ``submit.sh``.
    """
    words = ["medseg", "study", str(study_file.resolve()), "--output", str(root), *overrides]
    one = f"{shlex.join(words)} --member $SLURM_ARRAY_TASK_ID"
    processes = members[0].study.processes
    gpu = "" if members[0].study.device == "cpu" else f"#SBATCH --gpus-per-task={processes}\n"
    logs = root / "logs"
    write_text(
        root / "members.sh",
        "#!/bin/bash\n#SBATCH --job-name=study\n#SBATCH --ntasks=1\n#SBATCH --cpus-per-task=4\n"
        f"{gpu}#SBATCH --signal=B:TERM@120\n#SBATCH --requeue\n#SBATCH --output={logs}/%A_%a.txt\n"
        "# A task that is ended saves its state; submitted again, it resumes.\n"
        f"exec {one}\n",
    )
    lines, before = ["#!/bin/bash", "set -e", f"mkdir -p {shlex.quote(str(logs))}"], ""
    for stage in sorted({member.stage for member in members}):
        numbers = [number for number, member in enumerate(members) if member.stage == stage]
        wait = f" --dependency=afterany:${before}" if before else ""
        before = f"stage{stage}"
        script = shlex.quote(str(root / "members.sh"))
        lines.append(f"{before}=$(sbatch --parsable{wait} --array={numbers[0]}-{numbers[-1]} {script})")
    summary = shlex.quote(f"{shlex.join(words)} --summary")
    lines.append(f"sbatch --dependency=afterany:${before} --job-name=summary --wrap {summary}")
    write_text(root / "submit.sh", "\n".join(lines) + "\n")
    return root / "submit.sh"
