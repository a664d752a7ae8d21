"""What a training took: the figures by which two trainings are of equal effort, or are not."""

from __future__ import annotations

import os
from dataclasses import dataclass

__all__ = ["Effort", "cpu_seconds"]


@dataclass(frozen=True)
class Effort:
    """Figures of a whole training, all parts of a resumed run together.

    Attributes:
        iterations: batches of each process.
        training_seconds: from the first iteration to the last, validations included.
        cpu_seconds: CPU time of the processes and their loader workers.
        validations: how many gave a score.
        schedule_completed: whether the learning rate came to the end of its schedule.
        energy_joules: energy of the machine's processors meanwhile; ``None`` where it is not measured.
    """

    iterations: int
    training_seconds: float
    cpu_seconds: float
    validations: int
    schedule_completed: bool
    energy_joules: float | None = None

    def __str__(self) -> str:
        completed = "completed" if self.schedule_completed else "not completed"
        return (
            f"{self.iterations} iterations in {self.training_seconds:.0f} s ({self.cpu_seconds:.0f} s of CPU), "
            f"{self.validations} validations, learning-rate schedule {completed}"
        )


def cpu_seconds() -> float:
    """CPU time of this process and of its children that have ended, in user and system mode."""
    return sum(os.times()[:4])
