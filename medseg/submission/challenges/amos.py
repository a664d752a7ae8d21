"""AMOS 2022: label maps of the validation cases; task 1 takes the CT, task 2 the CT and the MR."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from medseg.datasets.amos import SPLITS, modality_of
from medseg.errors import ConfigError
from medseg.submission import ChallengeFacts, SubmittedCase
from medseg.submission.fixed_set import fixed_cases

if TYPE_CHECKING:
    from medseg.data.case import Case

__all__ = ["FACTS", "submitted"]

FACTS = ChallengeFacts(
    title="AMOS 2022",
    dataset="amos",
    section="validation",
    source="amos22.grand-challenge.org",
    examples=("amos_0001",),
    documented=(
        "validation phase: one zip with the folder results/ and exactly one amos_xxxx.nii.gz per validation image, "
        "such as results/amos_0001.nii.gz",
        "100 images in task 1 (CT), 120 in task 2 (CT and MR)",
        "the test phase takes a container, no label maps",
    ),
    unverified=("voxel type uint8, values 0 to 15, on the image's grid",),
    number=SPLITS[1]["validation"],
    case=r"amos_\d{4}",
    member="results/{case}.nii.gz",
)


def submitted(cases: Sequence[Case], *, task: int = 1) -> list[SubmittedCase]:
    """The cases of a task, named ``results/amos_xxxx.nii.gz``.

    Args:
        cases: cases of the datalist's section.
        task: 1 leaves MR out, 2 takes all.

    Raises:
        ConfigError: another task.
        DataError: the cases are not as many as the validation phase has.
    """
    if task not in SPLITS:
        raise ConfigError(f"AMOS has no task {task}; use 1 (CT) or 2 (CT and MR).")
    chosen = [case for case in cases if task == 2 or modality_of(case.id) == "CT"]
    number = FACTS.number if task == 1 else SPLITS[task]["validation"]
    return fixed_cases(replace(FACTS, title=f"{FACTS.title}, task {task}", number=number))(chosen)
