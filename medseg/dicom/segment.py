"""What a label is called in DICOM: its number, name, colour and SNOMED code."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from medseg.labels import LabelSpace
from medseg.labels.colors import rgb_of, space_colors

__all__ = ["Segment", "segments_of"]

_SIDES = {"left": codes.SCT.Left, "right": codes.SCT.Right}
_LESION = re.compile(r"tumou?r|neoplasm|lesion|cyst|nodule|necro|oedema|edema|metasta|carcinoma|polyp|mass", re.I)
_SPELT = {"Tumour": "Neoplasm", "Tumor": "Neoplasm", "Oedema": "Edema", "Oesophagus": "Esophagus", "Kidneys": "Kidney"}
_SPELT |= {"Lungs": "Lung", "AdrenalGlands": "AdrenalGland"}


@dataclass(frozen=True)
class Segment:
    """A label.

    Attributes:
        number: label index, from 1.
        name: as in the label table.
        color: ``#rrggbb``.
        category, kind: SNOMED codes of what it is.
        side: code of left or right.
    """

    number: int
    name: str
    color: str
    category: Code
    kind: Code
    side: Code | None = None

    @property
    def rgb(self) -> tuple[int, int, int]:
        """0 to 255."""
        return rgb_of(self.color)


def segments_of(space: LabelSpace) -> list[Segment]:
    """The labels of a table, in its order."""
    colors = space_colors(space)
    return [_segment(i, name, colors[name], space.codes) for i, name in enumerate(space.labels, 1)]


def _segment(number: int, name: str, color: str, given: Mapping[str, str]) -> Segment:
    """The table's own code, else that of the name in DICOM's dictionary, else a structure or a lesion as such."""
    words = re.findall(r"[a-z]+", name.lower())
    side = next((_SIDES[word] for word in words if word in _SIDES), None)
    keyword = "".join(word.capitalize() for word in words if word not in _SIDES)
    lesion = _LESION.search(name) is not None
    category = codes.SCT.MorphologicallyAbnormalStructure if lesion else codes.SCT.AnatomicalStructure
    known = getattr(codes.SCT, _SPELT.get(keyword, keyword), None) if keyword else None
    kind = Code(given[name], "SCT", name) if name in given else known or category
    return Segment(number, name, color, category, kind, side)
