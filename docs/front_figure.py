"""The figure of README.md, from the quickstart's runs: ``python docs/front_figure.py runs/quickstart``."""

from __future__ import annotations

import io
import sys
from pathlib import Path

from PIL import Image

from medseg.labels.colors import label_colors
from medseg.reports.record import read_record
from medseg.reports.worst_and_best import draw_overlays

_HEIGHT = 560  # pixels


def front_figure(quickstart: Path, network: str = "hnoseg_xs") -> Image.Image:
    """The differences of the comparison, and beside them the best case of ``network``, both as medseg drew them."""
    record = read_record(quickstart / network)
    overlays = draw_overlays(record, label_colors(list(record.label_space.labels)), None)
    best = list(overlays.columns.values())[-1][0]
    parts = [Image.open(quickstart / "compared" / "differences.png"), Image.open(io.BytesIO(best.jpeg))]
    parts = [part.convert("RGB").resize((round(part.width * _HEIGHT / part.height), _HEIGHT)) for part in parts]
    figure = Image.new("RGB", (sum(part.width for part in parts), _HEIGHT), "white")
    figure.paste(parts[0], (0, 0))
    figure.paste(parts[1], (parts[0].width, 0))
    return figure


if __name__ == "__main__":
    front_figure(Path(sys.argv[1])).save(Path(__file__).parents[1] / "scripts" / "quickstart.jpg", quality=85)
