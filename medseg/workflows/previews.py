"""A preview of each prediction: one PNG per case."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from medseg.data import Case
from medseg.errors import ConfigError
from medseg.faults import reason_of
from medseg.labels.colors import space_colors
from medseg.storage import whole_file
from medseg.transforms.save import FORMATS
from medseg.workflows.inference import Inference

__all__ = ["draw_previews", "refuse_previews"]

logger = logging.getLogger("medseg")

_DPI = 120


def refuse_previews(form: str | None) -> None:
    """Previews are drawn of label maps.

    Raises:
        ConfigError: the format is DICOM.
    """
    if form is not None and FORMATS[form].endswith(".dcm"):
        raise ConfigError(f"--preview draws NIfTI, NRRD and PNG, not --format {form}; leave one of them out.")


def draw_previews(inference: Inference, cases: Sequence[Case], label_maps: Mapping[str, Path], folder: Path) -> None:
    """Write ``<case>.png`` of every label map that has none yet, or was written since.

    A case that cannot be drawn is warned of: its label map stands.
    """
    from medseg.data.case_view import load_view
    from medseg.reports.overlays import preview_figure

    space, tree = inference.label_space, inference.recipe.tree
    normalization = (tree.get("preprocess") or {}).get("normalization") or ()
    folder.mkdir(parents=True, exist_ok=True)
    for case in cases:
        label_map, path = label_maps[case.id], folder / f"{case.id}.png"
        if not label_map.is_file() or (path.is_file() and path.stat().st_mtime >= label_map.stat().st_mtime):
            continue
        try:
            view = load_view(case, label_map, space, inference.bundle.channel_names, normalization, reference=False)
            figure = preview_figure(view, {name: space_colors(space)[name] for name in space.labels})
            with whole_file(path) as temporary:
                figure.savefig(temporary, format="png", dpi=_DPI)
        except Exception as error:  # readers raise anything
            logger.debug("preview of %s", case.id, exc_info=True)
            logger.warning("No preview of %s: %s", case.id, reason_of(error))
