"""What averaging over mirror images brings, by the scores of `medseg validate --tta` beside the run's own."""

from __future__ import annotations

import math
from pathlib import Path

from medseg.engines.run_files import is_outdated
from medseg.metrics import Scores
from medseg.metrics.paired_difference import paired_difference

__all__ = ["MIRROR_AXES", "TTA", "mirrored_note"]

TTA = "_tta"  # at the end of the name of the scores' folder
MIRROR_AXES = "mirror_axes"  # fact of these scores


def mirrored_note(folder: Path) -> str:
    """A sentence on a run, or on a folder of folds; empty where its two scores are not there, or not alike."""
    own, mirrored = (Scores.found(place) for place in (folder, folder / "scores" / f"validation{TTA}"))
    if own is None or mirrored is None or set(own.cases) != set(mirrored.cases):
        return ""
    if own.definition.differences(mirrored.definition) or is_outdated(folder, mirrored):
        return ""
    order = [list(mirrored.cases).index(case) for case in own.cases]
    found = paired_difference(own.table(), mirrored.table()[order], own.units)
    interval = f", 95 % interval {found.low:+.4f} to {found.high:+.4f} over"
    axes = mirrored.facts.others.get(MIRROR_AXES) or ()
    assert isinstance(axes, (list, tuple))
    unit = "subject" if own.facts.subjects else "case"
    return (
        f"Averaging over mirror images (--tta) changes the mean Dice by {found.mean:+.4f} "
        f"({own.mean_dice:.4f} to {mirrored.mean_dice:.4f}"
        + (interval if math.isfinite(found.low) else " of")
        + f" {found.subjects.total} {unit}{'' if found.subjects.total == 1 else 's'}), for {2 ** len(axes)} passes "
        "instead of one."
    )
