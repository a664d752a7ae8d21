"""Transforms: recipes per modality, normalisation, label encoding, and the way back to the source grid."""

from medseg.transforms.intensity import NormalizeChannelsd
from medseg.transforms.label import EncodeLabelsd, LogitsToLabelsd, ToSourceGridd
from medseg.transforms.published import (
    window_affine_augmentation,
    window_augmentation,
    window_postprocessing,
    window_preprocessing,
)
from medseg.transforms.reader import IMAGE_SUFFIXES, VolumeReader, is_2d_file
from medseg.transforms.recipes import augmentation, load, preprocessing
from medseg.transforms.save import SaveLabelsd, write_label_map

__all__ = [
    "IMAGE_SUFFIXES",
    "EncodeLabelsd",
    "LogitsToLabelsd",
    "NormalizeChannelsd",
    "SaveLabelsd",
    "ToSourceGridd",
    "VolumeReader",
    "augmentation",
    "is_2d_file",
    "load",
    "preprocessing",
    "window_affine_augmentation",
    "window_augmentation",
    "window_postprocessing",
    "window_preprocessing",
    "write_label_map",
]
