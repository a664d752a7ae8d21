"""AMOS 2022: label maps of the validation cases; task 1 takes the CT, task 2 the CT and the MR."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from medseg.datasets.amos import SPLITS, modality_of
from medseg.errors import ConfigError, DataError
from medseg.submission import ChallengeFacts, Item

if TYPE_CHECKING:
    from medseg.data.case import Case

__all__ = ["FACTS", "items"]

FACTS = ChallengeFacts(
    title="AMOS 2022",
    dataset="amos",
    section="validation",
    source="amos22.grand-challenge.org",
    documented=(
        "validation phase: one zip with the folder results/ and exactly one amos_xxxx.nii.gz per validation image",
        "100 images in task 1 (CT), 120 in task 2 (CT and MR)",
        "the test phase takes a container, no label maps",
    ),
    unverified=("voxel type uint8, values 0 to 15, on the image's grid",),
)


def items(cases: Sequence[Case], *, task: int = 1) -> list[Item]:
    """The cases of a task, named ``results/amos_xxxx.nii.gz``.

    Args:
        cases: of the datalist's section.
        task: 1 leaves MR out, 2 takes all.

    Raises:
        ConfigError: another task.
        DataError: the cases are not as many as the validation phase has.
    """

    if task not in SPLITS:
        raise ConfigError(f"AMOS has no task {task}; use 1 (CT) or 2 (CT and MR).")
    chosen = [case for case in cases if task == 2 or modality_of(case.id) == "CT"]
    expected = SPLITS[task]["validation"]
    if len(chosen) != expected:
        raise DataError(
            f"The section has {len(chosen)} cases of AMOS task {task}; its validation phase takes exactly {expected}. "
            "Use the datalist of `medseg prepare amos`, or name another section with --section."
        )
    return [
        Item(case.id, Path(case.images[0]), f"results/{Path(case.id).name}.nii.gz")
        for case in sorted(chosen, key=lambda case: case.id)
    ]
