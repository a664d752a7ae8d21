"""BKAI-IGH NeoPolyp: run-length codes of the test images' two kinds of polyps, as a table."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from medseg.datasets.bkai import FACTS as DATASET
from medseg.errors import DataError
from medseg.storage import whole_file
from medseg.submission import ChallengeFacts
from medseg.submission.fixed_set import fixed_cases

if TYPE_CHECKING:
    import numpy as np

__all__ = ["FACTS", "encode_runs", "submitted", "pack"]

FACTS = ChallengeFacts(
    title="BKAI-IGH NeoPolyp",
    dataset="bkai",
    section="test",
    source="kaggle.com/c/bkai-igh-neopolyp",
    examples=("picture001",),
    documented=("200 test images, masks of their own size", "neoplastic and non-neoplastic polyps are told apart"),
    unverified=(
        "predictions X.png with the values 0 to 2 (background, non-neoplastic, neoplastic) make the table",
        "a CSV file with the columns Ids and Expected, two rows per image: X_0 neoplastic, X_1 non-neoplastic",
        "run-length codes along the rows, starts from 1; an empty class has an empty code",
    ),
    number=DATASET.splits["test"],
    member="{case}.png",
    suffix=".csv",
)

_VALUES = {name: value for value, name in DATASET.labels.items()}
_ROWS = (_VALUES["neoplastic polyp"], _VALUES["non-neoplastic polyp"])  # X_0 and X_1

submitted = fixed_cases(FACTS)


def pack(files: Mapping[str, Path], output: Path) -> None:
    """Write the table of run-length codes, whole or not at all.

    Raises:
        DataError: no prediction holds a neoplastic polyp: they are of a network of two classes.
    """
    import numpy as np
    from PIL import Image

    from medseg.storage.csv_file import CsvWriter

    rows, found = [], set()
    for member, file in files.items():
        with Image.open(file) as picture:
            labels = np.asarray(picture)
        found |= set(np.unique(labels).tolist())
        stem = member.removesuffix(".png")
        rows += [(f"{stem}_{row}", encode_runs(labels == value)) for row, value in enumerate(_ROWS)]
    if _ROWS[0] not in found:
        raise DataError(
            f"None of the {len(files)} predictions holds a neoplastic polyp (value {_ROWS[0]}); three classes are "
            "expected. Train with --overlay three_classes and the datalist of `medseg prepare bkai --classes 3`."
        )
    with whole_file(output) as temporary, temporary.open("w", newline="", encoding="utf-8") as table:
        writer = CsvWriter(table, lineterminator="\n")
        writer.writerow(("Ids", "Expected"))
        writer.writerows(rows)


def encode_runs(mask: np.ndarray) -> str:
    """The runs of a boolean mask ``(H, W)`` along its rows, ``"start length start length …"``; starts count from 1."""
    import numpy as np

    edges = np.flatnonzero(np.diff(mask.ravel().astype(np.int8), prepend=0, append=0))
    starts, ends = edges[::2], edges[1::2]
    return " ".join(f"{start + 1} {end - start}" for start, end in zip(starts, ends, strict=True))
