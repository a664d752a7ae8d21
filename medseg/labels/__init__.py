"""The label space: what voxel values mean, for one data set or for many.

Everything that touches labels (loss, metrics, sampler, inference, submission, metadata) reads this table and nothing
else.

A table in JSON or YAML, every key but ``labels`` optional::

    mode: softmax                    # softmax over exclusive labels (default) | sigmoid over regions or tasks
    labels: {background: 0, necrosis: 1, oedema: 2, enhancing: [3, 4]}     # name -> raw value(s)
    ignore: [255]                    # raw values that are neither trained on nor scored
    regions: {WT: [necrosis, oedema, enhancing], TC: [necrosis, enhancing], ET: [enhancing]}
    tasks: {necrosis: 7}             # stable ids for universal training
    modalities: {ct: 0, pet: 1}      # stable ids of what cases name as their modality, for universal training
    codes: {necrosis: "6574001"}     # SNOMED CT concepts of labels, for DICOM-SEG; default: by the names
    datasets:                        # other data sets: own raw values; a label missing here is not annotated there
      lits: {labels: {background: 0, liver: [1, 2]}, ignore: []}

The Decathlon form ``{"0": "background", "1": "liver"}`` is read as well, and nnU-Net's two extras: an entry named
``ignore``, and overlapping regions ``{"background": 0, "tumour": [1, 2], "core": 2}``, which become sigmoid channels.
A table with ``datasets`` may leave ``labels`` out (several data sets, none of them the datalist's own).

Raw values within 0.01 of a whole number are that number (a scale factor, floating point); other fractions are refused.

Inside medseg a label map holds *indices*: 0 is background, 1..L the labels in table order, ``IGNORE`` the ignored
voxels.
"""

from medseg.labels.fragment import BACKGROUND, IGNORE, Fragment, check_name
from medseg.labels.space import LabelSpace
from medseg.labels.whole import WHOLE_TOLERANCE, whole_values

__all__ = ["BACKGROUND", "IGNORE", "WHOLE_TOLERANCE", "Fragment", "LabelSpace", "check_name", "whole_values"]
