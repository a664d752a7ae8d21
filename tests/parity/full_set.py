"""Where the full sets of the original programs' numbers lie, for the tests that need more than this folder holds."""

from __future__ import annotations

from pathlib import Path

__all__ = ["FULL_SET"]

FULL_SET = Path(__file__).parents[3] / "shared" / "fixtures"
