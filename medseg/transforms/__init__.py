"""Transforms: recipes per modality, normalisation, label encoding, and the way back to the source grid."""

from medseg.transforms.hermes import hermes_augmentation, hermes_preprocessing
from medseg.transforms.intensity import NormalizeChannelsd
from medseg.transforms.label import EncodeLabelsd, LogitsToLabelsd, ToSourceGridd
from medseg.transforms.published import window_augmentation, window_postprocessing, window_preprocessing
from medseg.transforms.reader import IMAGE_SUFFIXES, VolumeReader, is_2d_file
from medseg.transforms.recipes import augmentation, load, preprocessing
from medseg.transforms.save import SaveLabelsd, write_label_map
from medseg.transforms.tasks import CaseFactsd, TasksToLabelsd

__all__ = [
    "IMAGE_SUFFIXES",
    "CaseFactsd",
    "EncodeLabelsd",
    "LogitsToLabelsd",
    "NormalizeChannelsd",
    "SaveLabelsd",
    "TasksToLabelsd",
    "ToSourceGridd",
    "VolumeReader",
    "augmentation",
    "hermes_augmentation",
    "hermes_preprocessing",
    "is_2d_file",
    "load",
    "preprocessing",
    "window_augmentation",
    "window_postprocessing",
    "window_preprocessing",
    "write_label_map",
]
