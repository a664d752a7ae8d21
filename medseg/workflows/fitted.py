"""What is fitted to a network's weights and stored beside them in ``inference.yaml``: other weights do not take it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from medseg.workflows.cleanup import with_rules
from medseg.workflows.probabilities import TEMPERATURE

__all__ = ["without_fitted"]


def without_fitted(config: Mapping[str, Any]) -> dict[str, Any]:
    """An inference config without post-processing rules and temperature."""
    return {key: value for key, value in with_rules(config, {}).items() if key != TEMPERATURE}
