"""``medseg validate``."""

from __future__ import annotations

import argparse
import math
from typing import Any

from medseg.cli import add_trust

HELP = "Score a run's validation cases on the images' own grid: Dice, HD95 and surface Dice per case and label."


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--run", required=True, metavar="DIR", help="run folder")
    parser.add_argument("--checkpoint", default="best", metavar="C", help="best, last or a file (default best)")
    parser.add_argument(
        "--space", choices=("source", "model"), default="source", help="grid of the scores (default source)"
    )
    parser.add_argument("--tolerance", type=float, metavar="MM", help="tolerance of the surface Dice in mm (default 1)")
    parser.add_argument("--data_dir", metavar="DIR", help="where the images are now (default: as in training)")
    parser.add_argument("--device", metavar="D", help="cpu, cuda or cuda:N")
    parser.add_argument(
        "--overlay",
        action="append",
        default=[],
        metavar="NAME",
        help="a further config of the run, such as evaluate_published",
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="ID=VALUE", help="any id of the config, such as overlap=0.25"
    )
    add_trust(parser)


def run(args: argparse.Namespace) -> int:
    from medseg.workflows.compose import parse_assignments
    from medseg.workflows.evaluation import evaluate
    from medseg.workflows.folds import evaluate_folds, fold_runs

    result = (evaluate_folds if fold_runs(args.run) else evaluate)(
        args.run,
        checkpoint=args.checkpoint,
        space=args.space,
        tolerance=args.tolerance,
        device=args.device,
        data_dir=args.data_dir,
        overrides=parse_assignments(args.set),
        overlays=args.overlay,
        allow_expressions=args.allow_expressions,
    )
    print_scores(result)
    return 0


def print_scores(result: dict[str, Any]) -> None:
    """The table per label, and the mean as the last line."""
    print(f"{'label':<28}{'cases':>6}{'Dice':>9}{'HD95 mm':>10}{'surface Dice':>14}")
    for label, row in result["labels"].items():
        values = [row.get(score, {}).get("mean") for score in ("dice", "hd95", "surface_dice")]
        shown = ["-" if value is None or math.isnan(value) else f"{value:.4f}" for value in values]
        print(f"{label[:27]:<28}{row['dice']['cases']:>6}{shown[0]:>9}{shown[1]:>10}{shown[2]:>14}")
    mean = result["mean_dice"]
    print(f"mean_dice: {'nan' if mean is None else f'{mean:.4f}'}")
