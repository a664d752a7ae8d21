"""What data a run was trained on: hashes of every case's files, wherever they lie."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from medseg.data.case import Case
from medseg.data.content import content_hash

__all__ = ["DataFingerprint"]


@dataclass(frozen=True)
class DataFingerprint:
    """Hashes of the images and labels of cases.

    Attributes:
        cases: case id -> SHA-256 of each image file, then of the label, "" without.
    """

    cases: Mapping[str, tuple[str, ...]]

    @classmethod
    def of(cls, cases: Sequence[Case]) -> DataFingerprint:
        """Read the cases' files, in parallel.

        Raises:
            OSError: a file cannot be read.
        """
        with ThreadPoolExecutor() as pool:
            hashes = list(pool.map(_hashes, cases))
        return cls({case.id: found for case, found in zip(cases, hashes, strict=True)})

    @classmethod
    def from_table(cls, table: Any) -> DataFingerprint | None:
        """From ``to_table``; ``None`` where there is nothing of the kind."""
        cases = table.get("cases") if isinstance(table, Mapping) else None
        if not isinstance(cases, Mapping):
            return None
        return cls({str(case): tuple(map(str, hashes)) for case, hashes in cases.items()})

    def to_table(self) -> dict[str, Any]:
        """For JSON: one hash of all, and those of each case."""
        cases = {case: list(hashes) for case, hashes in sorted(self.cases.items())}
        whole = hashlib.sha256(json.dumps(cases).encode()).hexdigest()
        return {"sha256": whole, "cases": cases}

    def changes(self, now: DataFingerprint) -> dict[str, str]:
        """Cases of both whose files differ -> which: ``image``, ``label`` or ``image and label``."""
        found = {}
        for case, (*images, label) in now.cases.items():
            if case in self.cases and self.cases[case] != (*images, label):
                *before, old = self.cases[case]
                parts = (("image", before != images), ("label", old != label))
                found[case] = " and ".join(name for name, differs in parts if differs)
        return found


def _hashes(case: Case) -> tuple[str, ...]:
    return (*(content_hash(image) for image in case.images), content_hash(case.label) if case.label else "")
