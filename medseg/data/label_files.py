"""Label files of a data set against the label table that is stated for it: a wrong table is found before training."""

from __future__ import annotations

import numpy as np

from medseg.data.datalist import Datalist
from medseg.data.files import Unreadable, read_volume
from medseg.data.findings import Finding
from medseg.data.voxels import check_label_values, count_values
from medseg.errors import DataError
from medseg.labels import LabelSpace

__all__ = ["check_label_files", "refuse_undeclared"]

_READ = 16  # a wrong table shows in a few files; `medseg check` reads all


def check_label_files(datalist: Datalist) -> None:
    """Read some of the label files, evenly distributed over the cases.

    Raises:
        DataError: one of them cannot be read, or holds a value that the label table does not declare.
    """
    labelled = [case for cases in datalist.sections.values() for case in cases if case.label]
    for case in labelled[:: -(-len(labelled) // _READ) or 1]:
        try:
            label = read_volume(str(case.label), mask=True).channels[0]
        except Unreadable as error:
            raise DataError(". ".join(error.args)) from error
        refuse_undeclared(label, datalist.label_space, str(case.label), case.dataset)


def refuse_undeclared(label: np.ndarray, space: LabelSpace, shown: str, dataset: str | None = None) -> None:
    """Refuse a label map with values that are not declared.

    Args:
        label: voxels, raw values.
        space: meaning of the values.
        shown: name of the file in the sentence.
        dataset: data set whose values the file has.

    Raises:
        DataError: with the file and the values.
    """
    for message, remedy, _ in map(Finding._make, check_label_values(count_values(label), space, dataset, shown)):
        raise DataError(f"{message if shown in message else f'{shown}: {message}'}. {remedy}")
