"""medseg: published medical image segmentation systems under one roof, on MONAI."""

__version__ = "0.1.0"
