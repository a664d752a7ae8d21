"""The page of measured results and the figure of README.md, from finished studies and a case of a report.

    medseg study studies/hippocampus.yaml --output measured/hippocampus --set data::hippocampus::data_dir=DIR
    python3 scripts/quickstart.py
    medseg report --run runs/quickstart/SegResNet
    python docs/measured.py measured runs/quickstart/SegResNet/figures/case_organs_021.png --hardware "…"

Each study of ``studies/`` that has a folder of its name in ``measured`` becomes a section of ``docs/results.md``.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import yaml
from PIL import Image

DOCS = Path(__file__).parent
STUDIES = DOCS.parent / "studies"
_FIGURES = ("forest", "ranks")
_WIDTH, _COLORS = 1600, 255  # of the front figure
_HEAD = """# Results

What was measured here, and how to measure it again. Each section is one study: its file, the command, the machine, and
the tables and figures as [`medseg study`](tutorials/study.md) wrote them. `docs/measured.py` makes the page of the
studies' folders.

Trainings of a few minutes on a processor say which network learns most in that time; they say nothing about networks
that trained for a day on a GPU. [Equal conditions](explanation/equal-conditions.md) and
[scores and intervals](explanation/statistics.md) say what the figures mean.

"""
_PUBLISHED = """## Published figures

From the authors' articles, as each bundle's page states them: other cases, other trainings, other definitions of
scores. They are **published, not measured here**, and cannot be set against the tables above. The site lists them
below; in the repository they are in `bundles/*/docs/README.md`.

<!-- published figures -->
"""


def section(study: Path, done: Path, hardware: str) -> str:
    """A study as a section; its figures are copied beside the page."""
    facts = [json.loads(path.read_text(encoding="utf-8")) for path in sorted((done / "runs").rglob("run.json"))]
    runs = [run for run in facts if "started" in run]  # without pooled folds
    days = sorted({run["started"][:10] for run in runs})
    result = json.loads((done / "study.json").read_text(encoding="utf-8"))
    cases = "; ".join(
        f"{data['name']}, {data['cases']} scored cases of {data['subjects']} subjects, {data['folds']} folds, "
        f"{data['seeds']} seeds"
        for data in result["data"]
    )
    sets = yaml.safe_load(study.read_text(encoding="utf-8"))["data"]
    places = {name: "data_dir=DIR" if "data_dir" in entry else "json_list=LIST" for name, entry in sets.items()}
    where = "".join(f" \\\n  --set data::{name}::{place}" for name, place in places.items())
    images = []
    for name in _FIGURES:
        target = DOCS / "results" / f"{study.stem}_{name}.png"
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(done / "figures" / f"{name}.png", target)
        images.append(f"![{study.stem}: {name}](results/{target.name})")
    tables, _, methods = (done / "study.md").read_text(encoding="utf-8").partition("\nWe trained ")
    return "\n\n".join(
        [
            f"## {study.stem.replace('_', ' ').capitalize()}",
            f"Data: {cases}. Score: {result['score']}. Machine: {hardware}; {runs[0]['measured_on']}. "
            f"Date: {' to '.join(dict.fromkeys((days[0], days[-1])))}.",
            f'```bash title="needs the data and {sum(run["training_seconds"] for run in runs) / 60:.0f} minutes"\n'
            f"medseg study studies/{study.name} --output measured/{study.stem}{where}\n```",
            tables.strip(),
            *images,
            f"**Methods**, as the study wrote them: We trained {methods.strip()}",
            f"The study's file, `studies/{study.name}`:",
            f"```yaml\n{study.read_text(encoding='utf-8').strip()}\n```",
        ]
    )


def front_figure(done: Path, case: Path) -> Image.Image:
    """A study's figures, and beside them the case of a report."""
    left = [Image.open(done / "figures" / f"{name}.png").convert("RGB") for name in _FIGURES]
    height = sum(part.height for part in left)
    right = Image.open(case).convert("RGB")
    right = right.resize((round(right.width * height / right.height), height), Image.Resampling.LANCZOS)
    figure = Image.new("RGB", (left[0].width + right.width, height), "white")
    figure.paste(left[0], (0, 0))
    figure.paste(left[1], (0, left[0].height))
    figure.paste(right, (left[0].width, 0))
    figure = figure.resize((_WIDTH, round(height * _WIDTH / figure.width)), Image.Resampling.LANCZOS)
    # Of the palettes the one of most distinct colours: an adaptive one gives nearly all to the greys of the images.
    return figure.quantize(_COLORS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("measured", type=Path, help="folder of the studies' folders")
    parser.add_argument("case", type=Path, help="figure of a case, of a run's report")
    parser.add_argument("--hardware", required=True, help="what the trainings ran on, in words")
    options = parser.parse_args(arguments)
    studies = [path for path in sorted(STUDIES.glob("*.yaml")) if (options.measured / path.stem / "study.md").is_file()]
    parts = [section(path, options.measured / path.stem, options.hardware) for path in studies]
    (DOCS / "results.md").write_text(_HEAD + "\n\n".join([*parts, _PUBLISHED]), encoding="utf-8")
    front_figure(options.measured / studies[0].stem, options.case).save(DOCS / "front.png", optimize=True)


if __name__ == "__main__":
    main()
