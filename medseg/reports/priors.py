"""Figure of learned priors: how alike the tokens of tasks and of modalities are (Hermes, arXiv 2306.02416)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform
from torch import Tensor

from medseg.errors import ConfigError, ModelError
from medseg.labels import LabelSpace
from medseg.reports.drawing import INK
from medseg.settings import File, Folder, takes
from medseg.storage import read_yaml, whole_file
from medseg.weights import read_state_dict

__all__ = ["PriorsSettings", "prior_similarity", "similar_order", "write_prior_picture"]

_SUFFIXES = (".png", ".svg", ".pdf")


def prior_similarity(state: Mapping[str, Tensor], kind: str, rows: Sequence[int]) -> np.ndarray:
    """Mean over the network's scales of the cosines between prior rows, ``(len(rows), len(rows))`` from -1 to 1.

    Args:
        state: weights of a task-conditioned network.
        kind: ``task`` or ``modality``; the ten tokens of a modality are one vector.
        rows: ids; -1 is the null task or the unknown modality.

    Raises:
        ModelError: the weights have no priors, or too few rows.
    """
    tables = [value for name, value in state.items() if name.endswith(f".priors.{kind}")]
    if not tables:
        raise ModelError("The weights hold no priors; name a run or bundle of hermes_resunet or hermes_medformer.")
    if max(rows) >= len(tables[0]) - 1:
        raise ModelError(f"The weights have {len(tables[0]) - 1} {kind} priors, the label table names id {max(rows)}.")
    cosines = []
    for table in tables:
        vectors = table.float().flatten(1).numpy()[list(rows)]
        unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        cosines.append(unit @ unit.T)
    return np.asarray(np.mean(cosines, axis=0))


def similar_order(similarity: np.ndarray) -> list[int]:
    """An order in which alike rows are neighbours: the leaves of average-linkage clustering of 1 - cosine."""
    if len(similarity) < 3:
        return list(range(len(similarity)))
    distance = np.clip(1 - (similarity + similarity.T) / 2, 0, None)
    np.fill_diagonal(distance, 0)
    return [int(i) for i in leaves_list(linkage(squareform(distance, checks=False), "average", optimal_ordering=True))]


@dataclass(frozen=True)
class PriorsSettings:
    """The run whose priors are drawn.

    Attributes:
        run: run or bundle folder with models/model.pt.
        output: image file: .png, .svg or .pdf.
    """

    run: Folder
    output: File


@takes(PriorsSettings)
def write_prior_picture(settings: PriorsSettings) -> Path:
    """Draw the similarity of the learned priors of tasks and modalities, for a run on several data sets.

    Two matrices of similarities, of the best weights.

    Raises:
        ModelError: no weights, or a network without priors.
        ConfigError: ``output`` is not an image file.
    """
    folder, output = Path(settings.run), Path(settings.output)
    if output.suffix.lower() not in _SUFFIXES:
        raise ConfigError(f"--output {output}: expected an image file, {', '.join(_SUFFIXES)}.")
    config = folder / "configs" / "inference.yaml"
    weights = folder / "models" / "model.pt"
    for path in (config, weights):
        if not path.is_file():
            raise ModelError(f"{path} not found; name a trained run, or import weights into the bundle.")
    content = read_yaml(config, ModelError)
    space, state = LabelSpace.from_table(content["labels"]), read_state_dict(weights)
    panels = [("tasks", "task", dict(zip(space.labels, space.task_ids, strict=True)))]
    if space.modalities:
        panels.append(("modalities", "modality", {**space.modalities, "unknown": -1}))
    side = max(4.5, 0.19 * len(space.labels) + 2.5)
    figure = Figure(figsize=(side + (4.5 if len(panels) > 1 else 0), side), layout="constrained")
    widths = [side, 4.5][: len(panels)]
    for axes, (title, kind, ids) in zip(
        figure.subplots(1, len(panels), squeeze=False, width_ratios=widths)[0], panels, strict=True
    ):
        similarity = prior_similarity(state, kind, list(ids.values()))
        order = similar_order(similarity)
        names = [list(ids)[i] for i in order]
        image = axes.imshow(similarity[np.ix_(order, order)], cmap="RdBu_r", vmin=-1, vmax=1)
        axes.set_xticks(range(len(names)), names, rotation=90, fontsize=7, color=INK)
        axes.set_yticks(range(len(names)), names, fontsize=7, color=INK)
        axes.set_title(f"{title}: cosine of priors", fontsize=10, loc="left", color=INK)
    figure.colorbar(image, ax=figure.axes, shrink=0.6)
    with whole_file(output) as temporary:
        figure.savefig(temporary, dpi=150)
    return output
