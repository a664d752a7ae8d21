"""Probabilities that a command saves beside its label maps, and the temperature that they are calibrated with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any, Literal

from medseg.bundle.compose import amended, derived
from medseg.bundle.dump import rewrite_yaml
from medseg.bundle.folder import Bundle
from medseg.bundle.recipe import Recipe
from medseg.errors import ConfigError

__all__ = ["TEMPERATURE", "ProbabilitySettings", "saving", "saving_joined", "store_temperature", "stored_temperature"]

TEMPERATURE = "temperature"  # id in inference.yaml
_STEPS = "postprocessing::transforms"  # id in inference.yaml
_SAVE = "medseg.transforms.SaveLabelsd"
_OF = {
    "medseg.transforms.ToSourceGridd": "medseg.transforms.SaveProbabilitiesd",
    "medseg.transforms.TasksToSourceGridd": "medseg.transforms.SaveTaskProbabilitiesd",
}


@dataclass(frozen=True)
class ProbabilitySettings:
    """What is saved beside label maps.

    Attributes:
        probabilities: number type of probabilities, saved as <case>.npz. In nnU-Net's form; a uint8 has steps of 1/255.
        probability_grid: grid of these files. It is the original image space (source), or that of the network (model).
        uncertainty: entropy of each voxel, saved as uncertainty/<case>.nii.gz. It is 0 to 1; 2D images get a .png.
    """

    _: KW_ONLY
    probabilities: Literal["float16", "float32", "uint8"] | None = None
    probability_grid: Literal["source", "model"] = "source"
    uncertainty: bool = False

    @property
    def kinds(self) -> tuple[str, ...]:
        """What is saved, by the names of ``files_beside``."""
        wanted = {"probabilities": self.probabilities is not None, "uncertainty": self.uncertainty}
        return tuple(name for name, asked in wanted.items() if asked)

    @property
    def arguments(self) -> dict[str, Any]:
        """Those of ``SaveProbabilitiesd``; empty where nothing is saved.

        Raises:
            ConfigError: a grid of files that are not asked for.
        """
        if self.probabilities is None and self.probability_grid != "source":
            raise ConfigError("--probability_grid says where --probabilities lie; give both, or leave it out.")
        if self.probabilities is None and not self.uncertainty:
            return {}
        return {"dtype": self.probabilities, "grid": self.probability_grid, "uncertainty": self.uncertainty}


def saving(recipe: Recipe, id_: str, settings: ProbabilitySettings, *, temperature: float, place: str | Path) -> Recipe:
    """A recipe that saves what the settings ask for before logits become labels.

    Args:
        recipe: recipe of an inference or evaluation.
        id_: id of its list of post-processing transforms.
        settings: what is saved.
        temperature: divisor of the logits.
        place: file that the list is from, like which it is judged.

    Raises:
        ConfigError: nothing in the list makes labels in the original image space, or writes them.
    """
    arguments = settings.arguments
    if not arguments:
        return recipe
    written = recipe.value(id_)
    steps = written if isinstance(written, list) and all(isinstance(step, Mapping) for step in written) else []
    places = [place for place, step in enumerate(steps) if step.get("_target_") in _OF]
    folder = next((step["output_dir"] for step in steps if step.get("_target_") == _SAVE), None)
    if not places or folder is None:
        raise ConfigError(
            f"{id_} has no medseg.transforms.ToSourceGridd and {_SAVE}, beside which probabilities could be saved; "
            "restore them, or leave out --probabilities and --uncertainty."
        )
    labels = steps[places[0]]
    step = {**labels, "_target_": _OF[labels["_target_"]], "output_dir": folder, **arguments}
    step[TEMPERATURE] = temperature
    return amended(recipe, derived({id_: [*steps[: places[0]], step, *steps[places[0] :]]}, str(place)))


def saving_joined(recipe: Recipe, settings: ProbabilitySettings, *, place: str | Path) -> Recipe:
    """The same for the inference of several runs, which meet as probabilities in the original image space.

    Raises:
        ConfigError: probabilities on the grid of a network.
    """
    arguments = settings.arguments
    if not arguments:
        return recipe
    if settings.probability_grid != "source":
        raise ConfigError("Members meet in the original image space; leave --probability_grid out.")
    step = {"_target_": _OF["medseg.transforms.ToSourceGridd"], "keys": "pred", "label_space": "@label_space"}
    steps = [{**step, "output_dir": "@output_dir", **arguments}, *recipe.value(_STEPS)]
    return amended(recipe, derived({_STEPS: steps}, str(place)))


def stored_temperature(bundle: Bundle) -> float:
    """The temperature in ``inference.yaml`` of a run or bundle; 1 where it is not calibrated."""
    return float(bundle.recipe("infer").tree.get(TEMPERATURE, 1.0)) if bundle.has("inference") else 1.0


def store_temperature(bundle: Bundle, temperature: float) -> None:
    """Write the temperature into ``configs/inference.yaml``."""
    rewrite_yaml({**bundle.recipe("infer").tree, TEMPERATURE: temperature}, bundle.config("inference"))
