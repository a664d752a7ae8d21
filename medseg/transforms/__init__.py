"""Transforms: recipes per modality, normalisation, label encoding, and the way back to the source grid."""

from medseg.transforms.chain import pipeline
from medseg.transforms.channel_changes import RandBlurd, RandCommonNoised, RandContrastd, RandGammad, RandLowResolutiond
from medseg.transforms.colors import GREEN, RED, RGBToYCrCbd, colors_to_labels
from medseg.transforms.hermes import hermes_augmentation, hermes_preprocessing
from medseg.transforms.intensity import NormalizeChannelsd
from medseg.transforms.label import EncodeLabelsd, LogitsToLabelsd
from medseg.transforms.label_changes import RandMorphologyd, RandRemoveComponentd
from medseg.transforms.nearest_affine import RandNearestAffined
from medseg.transforms.patches import RandForegroundCropd, RandRotateScaled, patch_augmentation
from medseg.transforms.photo import photo_augmentation, photo_preprocessing
from medseg.transforms.postprocess import CleanLabelsd, CleanRule, clean_labels, clean_mask
from medseg.transforms.probabilities import SaveProbabilitiesd, SaveTaskProbabilitiesd
from medseg.transforms.published import (
    window_affine_augmentation,
    window_augmentation,
    window_preprocessing,
)
from medseg.transforms.reader import IMAGE_SUFFIXES, VolumeReader, is_2d_file
from medseg.transforms.recipes import augmentation, load, preprocessing
from medseg.transforms.resize import AreaResized
from medseg.transforms.save import SaveLabelsd, find_label_map, write_label_map
from medseg.transforms.scale import ScaleSized, scaled_size
from medseg.transforms.tasks import CaseFactsd, TasksToLabelsd, TasksToSourceGridd
from medseg.transforms.to_source import ToSourceGridd
from medseg.transforms.volume import volume_augmentation, volume_preprocessing

__all__ = [
    "GREEN",
    "IMAGE_SUFFIXES",
    "RED",
    "AreaResized",
    "CaseFactsd",
    "CleanLabelsd",
    "CleanRule",
    "EncodeLabelsd",
    "LogitsToLabelsd",
    "NormalizeChannelsd",
    "RGBToYCrCbd",
    "RandBlurd",
    "RandCommonNoised",
    "RandContrastd",
    "RandForegroundCropd",
    "RandGammad",
    "RandLowResolutiond",
    "RandMorphologyd",
    "RandNearestAffined",
    "RandRemoveComponentd",
    "RandRotateScaled",
    "SaveLabelsd",
    "SaveProbabilitiesd",
    "SaveTaskProbabilitiesd",
    "ScaleSized",
    "TasksToLabelsd",
    "TasksToSourceGridd",
    "ToSourceGridd",
    "VolumeReader",
    "augmentation",
    "clean_labels",
    "clean_mask",
    "colors_to_labels",
    "find_label_map",
    "hermes_augmentation",
    "hermes_preprocessing",
    "is_2d_file",
    "load",
    "patch_augmentation",
    "photo_augmentation",
    "photo_preprocessing",
    "pipeline",
    "preprocessing",
    "scaled_size",
    "volume_augmentation",
    "volume_preprocessing",
    "window_affine_augmentation",
    "window_augmentation",
    "window_preprocessing",
    "write_label_map",
]
