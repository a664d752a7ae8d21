"""The exact names that a config from anywhere may use: nothing here downloads, unpickles, imports what it is told to,
or writes anywhere but where its arguments in ``WRITES`` say.

Whoever adds a component to ``medseg`` that configs name adds it here; ``tests/bundle/test_known_parts.py`` holds
every name against the package that it is in.
"""

from __future__ import annotations

from functools import cache

from medseg.networks import catalog
from medseg.networks.catalog import SLICE_WISE

__all__ = ["CALLABLES", "INSIDE", "WRITES", "components", "is_misspelt"]

# Module -> names that `_target_` may have. Those of MONAI's may be written bare, as its own bundles do.
_COMPONENTS = {
    "medseg.data": "CaseDataset ReadCase make_dataset make_loader",
    "medseg.engines": """
        Attach CaseEvaluator CaseScores Checkpoint DistillingInferer EarlyStop FreezePart KeepOldTasks LoadWeights
        PhotoScores PrepareAugmented PreparePasses PrepareTasks Progress RandomStreams RunLog SegmentationTrainer
        TaskMapScores TaskScores TimeLimit UpdateAverage ValidationLoss evaluated_network frozen_epochs lower_is_better
        make_average run run_cases target_maps unselected_epochs""",
    "medseg.inferers": "HalfStepWindow Member SlidingWindow TaskPasses WholeVolume",
    "medseg.labels": "LabelSpace.from_table",
    "medseg.losses": """
        DistilledLoss ExponentialLogLoss MaskedDiceCELoss PearsonLoss TaskLoss TaskTarget WeightedSum""",
    "medseg.optimizers": "Lamb frequency_reparameterized iterations make_schedule parameter_groups",
    "medseg.transforms": """
        AreaResized CaseFactsd CleanLabelsd EncodeLabelsd LogitsToLabelsd NormalizeChannelsd RGBToYCrCbd RandBlurd
        RandCommonNoised RandContrastd RandForegroundCropd RandGammad RandLowResolutiond RandMorphologyd
        RandNearestAffined RandRemoveComponentd RandRotateScaled SaveLabelsd SaveProbabilitiesd
        SaveTaskProbabilitiesd ScaleSized TasksToLabelsd TasksToSourceGridd ToSourceGridd augmentation
        hermes_augmentation hermes_preprocessing patch_augmentation photo_augmentation photo_preprocessing pipeline
        preprocessing volume_augmentation volume_preprocessing window_affine_augmentation window_augmentation
        window_preprocessing
    """,
    "medseg.workflows": """
        PreviousStage cases common_rules device finalize initialize inside joined labelled network section""",
    "monai.data": "CacheDataset DataLoader Dataset ThreadDataLoader",
    "monai.engines": "SupervisedEvaluator SupervisedTrainer",
    "monai.handlers": """
        ConfusionMatrix EarlyStopHandler HausdorffDistance IgniteMetricHandler LrScheduleHandler MeanAbsoluteError
        MeanDice MeanIoUHandler StatsHandler SurfaceDistance ValidationHandler from_engine""",
    "monai.inferers": "SimpleInferer SliceInferer SlidingWindowInferer",
    "monai.losses": """
        AsymmetricUnifiedFocalLoss DeepSupervisionLoss DiceCELoss DiceFocalLoss DiceLoss FocalLoss
        GeneralizedDiceFocalLoss GeneralizedDiceLoss HausdorffDTLoss LogHausdorffDTLoss MaskedDiceLoss SSIMLoss
        SoftDiceclDiceLoss SoftclDiceLoss TverskyLoss""",
    "monai.metrics": """
        ConfusionMatrixMetric DiceMetric GeneralizedDiceScore HausdorffDistanceMetric MeanIoU SurfaceDiceMetric
        SurfaceDistanceMetric""",
    "monai.networks.nets": """
        AttentionUnet BasicUNet BasicUNetPlusPlus BasicUnet BasicUnetPlusPlus DAF3D DynUNet DynUnet Dynunet
        HighResNet MedNeXt MedNext Quicknat RegUNet ResNet SegResNet SegResNetDS SegResNetDS2 SegResNetVAE
        SwinUNETR UNETR UNet Unet VNet""",
    "monai.optimizers": "Novograd WarmupCosineSchedule",
    "monai.transforms": """
        Activationsd AsDiscreted CastToTyped CenterSpatialCropd Compose CopyItemsd CropForegroundd DivisiblePadd
        EnsureChannelFirstd EnsureTyped FillHolesd Invertd KeepLargestConnectedComponentd NormalizeIntensityd
        Orientationd Rand2DElasticd Rand3DElasticd RandAdjustContrastd RandAffined RandBiasFieldd
        RandCoarseDropoutd RandCropByLabelClassesd RandCropByPosNegLabeld RandFlipd RandGaussianNoised
        RandGaussianSharpend RandGaussianSmoothd RandHistogramShiftd RandRotate90d RandRotated RandScaleIntensityd
        RandShiftIntensityd RandSimulateLowResolutiond RandSpatialCropd RandZoomd RemoveSmallObjectsd Resized
        ScaleIntensityRangePercentilesd ScaleIntensityRanged ScaleIntensityd SelectItemsd Spacingd SpatialPadd""",
    "torch.nn": "BCEWithLogitsLoss CrossEntropyLoss Identity L1Loss MSELoss SmoothL1Loss",
    "torch.optim": "ASGD Adadelta Adagrad Adam AdamW Adamax NAdam RAdam RMSprop Rprop SGD",
    "torch.optim.lr_scheduler": """
        ConstantLR CosineAnnealingLR CosineAnnealingWarmRestarts CyclicLR ExponentialLR LinearLR MultiStepLR OneCycleLR
        PolynomialLR ReduceLROnPlateau StepLR""",
}

INSIDE = "medseg.workflows.inside"  # the component that makes paths

# What may be handed on uncalled (``_mode_: callable``): functions that write nothing, whatever they are called with.
CALLABLES = frozenset(
    {"medseg.engines.lower_is_better"}
    | {
        f"medseg.transforms.{name}"
        for name in _COMPONENTS["medseg.transforms"].split()
        if name.endswith(("augmentation", "preprocessing"))
    }
)

# Arguments that say where something is written: in any component, as a key of any mapping.
WRITES = frozenset({"cache_dir", "directory", "model_path", "output_dir"})


@cache
def components() -> frozenset[str]:
    """All names that a ``_target_`` may have."""
    listed = {module: names.split() for module, names in _COMPONENTS.items()}
    listed["medseg.networks"] = [facts.class_name for facts in catalog().values()]
    dotted = {SLICE_WISE, *(f"{module}.{name}" for module, names in listed.items() for name in names)}
    return frozenset(dotted | {name for module, names in listed.items() if module[:6] == "monai." for name in names})


def is_misspelt(target: str) -> bool:
    """Whether a target is in one of medseg's packages and nothing there has its name, so that nothing could run; the
    check of the config tells the nearest name.
    """
    import importlib

    module, _, name = target.rpartition(".")
    ours = module.startswith("medseg.") and (module in _COMPONENTS or module == "medseg.networks")
    return ours and name.isidentifier() and not hasattr(importlib.import_module(module), name)
