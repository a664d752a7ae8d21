"""The version of medseg."""

__version__ = "0.2.0"
