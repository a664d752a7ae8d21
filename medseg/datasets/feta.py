"""FeTA 2021: seven tissues of the fetal brain in reconstructed T2-weighted MRI."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from medseg.datasets import DatasetFacts
from medseg.errors import DataError, few

__all__ = ["FACTS", "prepare"]

FACTS = DatasetFacts(
    title="FeTA 2021",
    spatial_dims=3,
    modality=("T2",),
    labels={
        0: "background",
        1: "external cerebrospinal fluid",
        2: "grey matter",
        3: "white matter",
        4: "ventricles",
        5: "cerebellum",
        6: "deep grey matter",
        7: "brainstem",
    },
    source="Synapse, feta.grand-challenge.org (registration); Payette et al. 2021, Scientific Data 8, 167",
    terms="the terms accepted at Synapse; no redistribution",
    layout="feta_2.1/sub-001/anat/{sub-001_rec-mial_T2w.nii.gz, sub-001_rec-mial_dseg.nii.gz}, 80 subjects",
    splits={"training": 80},
)

_SUBJECTS = FACTS.splits["training"]
_IMAGE = re.compile(r"(sub-\d{3})_rec-(mial|irtk)_T2w\.nii\.gz")


def prepare(raw_dir: str | Path, out_dir: str | Path, *, num_folds: int = 5, seed: int = 0) -> Path:
    """Write ``<out_dir>/feta21.json`` with folds by subject; paths are relative to ``raw_dir``.

    Args:
        raw_dir: ``feta_2.1`` (or ``feta_2.0``) as unpacked; the reconstruction's name, ``mial`` or ``irtk``, is kept
            as the case's ``reconstruction``.
        num_folds: number of folds of the 80 subjects; the publications name none.
        seed: random seed of the folds.

    Raises:
        DataError: subjects or labels are missing.
    """
    raw = Path(raw_dir)
    return FACTS.write(
        Path(out_dir) / "feta21.json",
        raw,
        {"training": _cases(raw)},
        num_folds=num_folds,
        seed=seed,
        name="FeTA21",
        description="FeTA 2021: seven tissues of the fetal brain in T2-weighted MRI",
        tensorImageSize="3D",
    )


def _cases(raw: Path) -> list[dict[str, Any]]:
    images = sorted(raw.glob("sub-*/anat/sub-*_T2w.nii.gz"))
    found = [(path, match) for path in images if (match := _IMAGE.fullmatch(path.name))]
    subjects = [match[1] for _, match in found]
    if len(set(subjects)) != _SUBJECTS or len(found) != _SUBJECTS:
        raise DataError(
            f"{raw} has {len(found)} images of {len(set(subjects))} subjects, expected one of each of {_SUBJECTS}. "
            f"{FACTS.hint(raw, '*/sub-001')}"
        )
    labels = [path.with_name(path.name.replace("_T2w", "_dseg")) for path, _ in found]
    missing = [label.relative_to(raw).as_posix() for label in labels if not label.is_file()]
    if missing:
        raise DataError(
            f"{len(missing)} labels of FeTA 2021 are missing in {raw}: {few(missing)}. Unpack the archive again."
        )
    return [
        {
            "image": path.relative_to(raw).as_posix(),
            "label": label.relative_to(raw).as_posix(),
            "subject": match[1],
            "reconstruction": match[2],
        }
        for (path, match), label in zip(found, labels, strict=True)
    ]
