"""Post-processing rules in a bundle: the entry ``cleanup`` of ``inference.yaml``, and the transform that reads it.

Whoever runs ``inference.yaml``, medseg's commands or ``python -m monai.bundle run``, applies them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

from medseg.bundle.dump import rewrite_yaml
from medseg.bundle.folder import Bundle
from medseg.errors import ConfigError
from medseg.metrics import CleanupRules

__all__ = ["add_cleaning", "rules_of", "store_rules", "stored_rules", "with_rules"]

_TARGET = "medseg.transforms.CleanLabelsd"
_SAVE = "medseg.transforms.SaveLabelsd"


def stored_rules(bundle: Bundle) -> CleanupRules:
    """The rules of a run or bundle, label -> steps; empty where it has none."""
    return dict(bundle.recipe("infer").tree.get("cleanup") or {}) if bundle.has("inference") else {}


def rules_of(run: Bundle, evaluation: Mapping[str, Any]) -> CleanupRules:
    """The rules that an evaluation applies: those of inference, unless its config has ``cleanup`` itself.

    Args:
        run: the run, which may have no ``inference.yaml``.
        evaluation: its merged config; a published protocol without post-processing says ``cleanup: {}``.
    """
    return dict(evaluation["cleanup"] or {}) if "cleanup" in evaluation else stored_rules(run)


def store_rules(bundle: Bundle, rules: CleanupRules) -> None:
    """Write the rules into ``configs/inference.yaml``; empty ones leave no trace.

    Raises:
        ConfigError: its post-processing is not a list of transforms.
    """
    rewrite_yaml(with_rules(bundle.recipe("infer").tree, rules), bundle.config("inference"))


def with_rules(config: Mapping[str, Any], rules: CleanupRules) -> dict[str, Any]:
    """An inference config with these rules instead of its own."""
    result = deepcopy(dict(config))
    cleaned = "cleanup" in result
    result.pop("cleanup", None)
    if not rules and not cleaned:
        return result
    steps = [step for step in _steps(result["postprocessing"]["transforms"]) if step.get("_target_") != _TARGET]
    if not rules:
        result["postprocessing"]["transforms"] = steps
        return result
    result["postprocessing"]["transforms"] = add_cleaning(steps, "@cleanup")
    # Beside the transforms that read it.
    keys = list(result)
    place = keys.index("postprocessing")
    entries = [(key, result[key]) for key in keys]
    return dict([*entries[:place], ("cleanup", dict(rules)), *entries[place:]])


def add_cleaning(transforms: Any, rules: str | CleanupRules) -> list[dict[str, Any]]:
    """Transforms of a config with the cleaning put in before label maps are saved.

    Raises:
        ConfigError: they are no list, or save nothing.
    """
    steps = _steps(transforms)
    saving = [place for place, step in enumerate(steps) if step.get("_target_") == _SAVE]
    if not saving:
        raise ConfigError(f"The config's post-processing has no {_SAVE}, before which labels could be cleaned; add it.")
    step = {"_target_": _TARGET, "keys": "pred", "label_space": "@label_space", "rules": rules}
    return [*steps[: saving[0]], step, *steps[saving[0] :]]


def _steps(transforms: Any) -> Sequence[dict[str, Any]]:
    if isinstance(transforms, list) and all(isinstance(step, Mapping) for step in transforms):
        return transforms
    raise ConfigError(
        "The config's post-processing is not a list of transforms, so labels cannot be cleaned; write it as one, or "
        "use --no_postprocess."
    )
